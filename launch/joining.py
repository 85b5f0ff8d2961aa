"""How a member takes part in a run: its sockets, and the start barrier."""

from __future__ import annotations

from decentral.transports.addresses import Endpoint
from decentral.transports.wire import ZmqWire
from decentral.transports.zeromq import FOR_NODES, FOR_OBSERVER, ZmqTransport
from launch.assignment import Assignment, Channel
from launch.build import Workload


def open_transport(workload: Workload, assignment: Assignment, timeout_s: float | None) -> ZmqTransport:
    """Bind the member's sockets.

    Args:
        workload: the run.
        assignment: the member's.
        timeout_s: liveness timeout; None waits for ever.

    Raises:
        PreflightError: it cannot listen there.
    """
    n = workload.arm.nodes
    return ZmqTransport(
        node=assignment.number,
        run=assignment.run,
        folder=assignment.sockets,
        max_payload_bytes=workload.batch_bytes,
        timeout_s=timeout_s,
        listen=assignment.listen,
        kinds=FOR_OBSERVER if assignment.number == n else FOR_NODES,
        members=n + 2,
    )


def open_wire(workload: Workload, assignment: Assignment, transport: ZmqTransport) -> ZmqWire:
    """The member's way to the timekeeper and, over ``transport``, to the others."""
    return ZmqWire(
        node=assignment.number,
        observer=workload.arm.nodes,
        transport=transport,
        folder=assignment.sockets,
        batch_bytes=workload.batch_bytes,
        timeout_s=workload.arm.run.liveness_timeout_s,
    )


def meet(channel: Channel, endpoint: Endpoint | None) -> None:
    """Tell where this member can be reached; blocks until all are there."""
    address, key = endpoint or (None, None)
    channel.tell("ready", address, key)
    channel.await_order("go")
