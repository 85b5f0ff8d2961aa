"""The observer's process: snapshots in, and under ``on_node_failure = "continue"`` the losses of nodes."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Any

import zmq

from decentral.clock import NS_PER_S, WallClock
from decentral.errors import Interrupted
from decentral.messages import Message
from decentral.observer import Observer
from decentral.records import refusals
from decentral.speech import Gone
from decentral.transports.receiving import GONE
from decentral.transports.wire import ZmqWire
from decentral.transports.zeromq import ZmqTransport
from launch.assignment import Assignment, Channel
from launch.build import Workload, build_observer
from launch.joining import meet, open_transport, open_wire
from launch.saving import ObserverSaving


def observe(workload: Workload, assignment: Assignment, channel: Channel) -> None:
    """Body of the observer's process."""
    recorder = assignment.log(assignment.folder.metrics)
    # Evaluations may lie further apart than the liveness timeout; whether nodes live, the agent sees.
    transport = open_transport(workload, assignment, timeout_s=None)
    observer = build_observer(workload, recorder, resumed=assignment.resume is not None)
    saving = assignment.saving(workload)
    saves = None if saving is None else ObserverSaving(saving, observer, recorder, transport.numbers)
    goes_on = workload.arm.run.on_node_failure == "continue"
    real = workload.arm.run.clock == "wall"
    wire = open_wire(workload, assignment, transport) if not real and (saves or goes_on) else None
    inbox = transport if wire is None else wire
    meet(channel, transport.endpoint)
    inbox.connect(assignment.book())
    if wire is not None and saves is not None:
        wire.saves(saves)
    elif wire is not None:
        wire.greet()
    losses = _LossesInRealTime(observer, transport, channel)
    come = list(saves.pending) if saves is not None else []
    try:
        while not observer.complete:
            if come:
                _show(observer, come.pop(0))
            elif wire is not None:
                _hear(observer, wire)
            elif goes_on:
                losses.hear()
            else:
                _show(observer, transport.receive(_what_it_waits_for))
    except Interrupted:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        recorder.write("end", reason="interrupted", **refusals(inbox.refused))
        raise
    recorder.write("end", reason="done", **refusals(inbox.refused))
    channel.tell("done")
    channel.await_order("release", losses.heed if real else lambda _: None)
    transport.close()
    recorder.close()


class _LossesInRealTime:
    """In real time the launcher tells the observer itself which nodes have ended.

    Args:
        observer: gathers snapshots.
        transport: brings them.
        channel: brings orders.
    """

    def __init__(self, observer: Observer, transport: ZmqTransport, channel: Channel) -> None:
        self._observer = observer
        self._transport = transport
        self._channel = channel
        self._clock = WallClock()
        self._clock.start()
        self._poller = zmq.Poller()
        self._poller.register(transport.inbox, zmq.POLLIN)
        self._poller.register(channel.fileno(), zmq.POLLIN)

    def hear(self) -> None:
        """The next snapshots or orders; what a lost node has shown before is taken in first."""
        self._poller.poll()
        while (snapshots := self._transport.receive_now()) is not None:
            _show(self._observer, snapshots)
        while (order := self._channel.read()) is not None:
            if isinstance(order, list):  # else it is for nodes
                self.heed(order)

    def heed(self, order: list[Any]) -> None:
        """Nodes have ended; when, is told in real time since the start barrier, with all pauses."""
        word, *nodes = order
        if word == GONE:
            at_ns = self._clock.now_ns()
            for node in nodes:
                self._observer.lose(node, at_ns)
                self._channel.tell("lost", node, at_ns / NS_PER_S)


def _hear(observer: Observer, wire: ZmqWire) -> None:
    """The next snapshots, or the loss of nodes, of which what they have shown before is taken in first."""
    lost: list[Gone] = []
    heard = wire.next(True, _what_it_waits_for, patient=True)
    while heard is not None:
        if isinstance(heard, Gone):
            lost.append(heard)
        else:
            assert isinstance(heard, list), "the timekeeper tells the observer nothing of time"
            _show(observer, heard)
        heard = wire.next(False, _what_it_waits_for) if lost else None
    for gone in lost:
        observer.lose(gone.peer, gone.at_ns)


def _show(observer: Observer, snapshots: Sequence[Message]) -> None:
    for snapshot in snapshots:
        observer.add(snapshot)


def _what_it_waits_for() -> str:
    return "snapshots of the nodes' models"
