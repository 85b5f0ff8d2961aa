"""``network.jsonl``: what the emulated network did, written once at the end of a run (decentral.records)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

from decentral.checkpoint.state import Stateful
from decentral.network.links import Links
from decentral.network.model import NetworkModel, Transfer
from decentral.records import Recorder, Value, refusals

NS_PER_S = 1_000_000_000


class Trace(Stateful):
    """Keeps the transfers that begin before ``until_ns``, at most ``most`` of them."""

    GIVEN: ClassVar[str] = "_until_ns _most"

    def __init__(self, until_ns: int, most: int = 20_000) -> None:
        self._until_ns = until_ns
        self._most = most
        self.transfers: list[Transfer] = []

    def __call__(self, transfer: Transfer) -> None:
        """A transfer has ended."""
        if transfer.start_ns < self._until_ns and len(self.transfers) < self._most:
            self.transfers.append(transfer)


def describe(model: NetworkModel, compute_ns: Sequence[int]) -> dict[str, Value]:
    """Fields of the header event that state the network's rules and every node's nominal seconds a round."""
    return {
        "contention": model.contention,
        "concurrency": "all" if model.concurrency is None else model.concurrency,
        "abort_on_flush": model.abort_on_flush,
        "overhead_bytes": model.overhead_bytes,
        "overhead_s": model.overhead_ns / NS_PER_S,
        "loss": model.loss,
        "jitter_s": model.jitter_ns / NS_PER_S,
        "compute_s": [each / NS_PER_S for each in compute_ns],
    }


def write_network_log(
    recorder: Recorder,
    links: Links,
    trace: Trace,
    *,
    header: Mapping[str, Value],
    end_ns: int,
    reason: str,
    cpu_s: float,
    refused: Mapping[str, int],
) -> None:
    """Write everything; the accounts are checked against what the links hold first.

    Args:
        recorder: takes the lines.
        links: closed.
        trace: transfers for the timeline.
        header: ``run arm seed nodes`` and ``describe``.
        end_ns: emulated end of the run.
        reason: ``done``, ``failed`` or ``interrupted``.
        cpu_s: CPU seconds of the timekeeper.
        refused: frames and connections that its socket refused, by reason.

    Raises:
        DecentralError: an account is wrong.
    """
    links.ledger.check()
    model = links.model
    recorder.write("header", **header)
    for node in range(model.n):
        busy_ns = links.busy_ns[node]
        recorder.write(
            "uplink",
            node=node,
            rate_bps=rate(model.uplink_bps[node]),
            downlink_bps=rate(model.downlink_bps[node]),
            busy_s=busy_ns / NS_PER_S,
            sent_bytes=links.sent_bytes[node],
            time_s=end_ns / NS_PER_S,
            utilisation=busy_ns / end_ns if end_ns else 0.0,
        )
    for row in links.ledger.rows():
        recorder.write("links", **row)
    for transfer in trace.transfers:
        recorder.write(
            "transfer",
            node=transfer.sender,
            to=transfer.item.destination,
            fragment=transfer.item.fragment,
            tag=transfer.item.tag,
            start_s=transfer.start_ns / NS_PER_S,
            end_s=transfer.end_ns / NS_PER_S,
            bytes=transfer.item.nbytes,
            outcome=transfer.outcome,
        )
    recorder.write("end", time_s=end_ns / NS_PER_S, reason=reason, cpu_s=cpu_s, **refusals(refused))


def rate(bps: float) -> float | None:
    """``bps`` for a log: null where nothing limits."""
    return None if math.isinf(bps) else float(bps)
