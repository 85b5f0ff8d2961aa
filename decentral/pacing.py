"""One node's uplink in real time: the rules of ``decentral.network.links``, kept by a clock. No I/O.

The emulated network's own state machine decides what starts, how long it takes and when it arrives; here it
is driven by the time that the caller reads. All deadlines are absolute, each transfer starting when the one
before it should have ended, so lateness of timers never adds up.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

from decentral.downlink import GrantedFlows
from decentral.messages import Message
from decentral.network.ledger import Ledger
from decentral.network.links import Arrival, Item, Links
from decentral.network.model import NetworkModel, Transfer
from decentral.observations import Samples, Transfers
from decentral.speech import Role, Totals


class Entry(NamedTuple):
    """One message for the queue; the network knows it by ``sequence``, which no other of this node has."""

    destination: int
    message: Message
    sequence: int
    role: Role


class Due(NamedTuple):
    """A message that is to reach ``destination`` at ``at_ns``: to be handed to the transport now."""

    at_ns: int
    destination: int
    message: Message


class _Put(NamedTuple):
    entries: Sequence[Entry]
    flush: bool


class PacedLinks(Links):
    """The links of one sender; under contention ``"both"`` the receivers say when its transfers end."""

    def __init__(self, model: NetworkModel, trace: Callable[[Transfer], None]) -> None:
        super().__init__(model, Ledger(model.n), trace)
        self._cuts = False  # payloads leave when transfers end, so a start may be told at once
        self.granted: GrantedFlows | None = None
        if model.contention == "both":
            self._flows = self.granted = GrantedFlows(model)


class Pacer:
    """What node ``node`` has queued, transfers and has under way; used by one thread.

    Args:
        node: the sender.
        model: the network.
        trace: hears of every transfer that ended or was cut.

    Attributes:
        links: the emulated links; all but this node's are idle.
        transfers: what was asked of and achieved by those that were delivered, per destination.
        lateness_ns: by how much events were processed after their time.
        lost: peers that have ended.
    """

    def __init__(
        self, *, node: int, model: NetworkModel, trace: Callable[[Transfer], None] | None = None
    ) -> None:
        self.links = PacedLinks(model, self._ended)
        self.granted = self.links.granted
        self.transfers = Transfers()
        self.lateness_ns = Samples()
        self._node = node
        self._model = model
        self._trace = trace
        self._direct = (
            model.unlimited
            and not (model.latency_ns.any() or model.jitter_ns or model.overhead_ns)
            and not model.loss
        )
        """Nothing is asked of these links: messages go straight to the transport."""
        self._sent = Totals(0, 0, 0, 0)
        self._agenda: list[tuple[int, int, _Put | None]] = []
        self._order = itertools.count()
        self._store: dict[int, Message] = {}
        self._began: dict[int, tuple[int, bool]] = {}
        self._ends_ns: dict[int, int] = {}
        self._now_ns = 0
        self._processed_ns = 0
        self.lost: set[int] = set()

    @property
    def totals(self) -> Totals:
        """Messages and payload bytes transferred and dropped so far."""
        links, node = self.links, self._node
        own = Totals(links.sent[node], links.sent_bytes[node], links.dropped[node], links.dropped_bytes[node])
        return Totals(*(a + b for a, b in zip(own, self._sent, strict=True)))

    def put(self, at_ns: int, entries: Sequence[Entry], *, flush: bool = False) -> None:
        """At ``at_ns``, which may lie ahead, queue ``entries``; with ``flush`` in place of what is queued."""
        self._schedule(at_ns, _Put(entries, flush))

    def stop(self, at_ns: int) -> None:
        """At ``at_ns`` drop what is queued then, and what was to be queued later."""
        self._hasten(at_ns)
        self._schedule(at_ns, None)

    def grant(self, sequence: int, end_ns: int, service_ns: int) -> None:
        """A receiver says that its downlink has taken a transfer in at ``end_ns``, in ``service_ns``.

        What has been done meanwhile is not undone: the transfer ends no sooner than that.
        """
        assert self.granted is not None
        self.granted.grant(sequence, max(end_ns, self._now_ns), service_ns)

    def lose(self, peer: int, at_ns: int) -> None:
        """``peer`` has ended at ``at_ns``: what is sent to it still uses the link, and arrives at nobody."""
        self.lost.add(peer)
        if self.granted is not None:
            self.granted.lose(peer, max(at_ns, self._now_ns))

    def next_ns(self) -> int:
        """When ``advance`` has something to do; ``INFINITE_NS``: not before something is put."""
        link_ns = self.links.next_event()[0]
        return min(link_ns, self._agenda[0][0]) if self._agenda else link_ns

    def advance(self, now_ns: int) -> list[Due]:
        """Everything that happens up to and at ``now_ns``, in the order in which it should.

        Returns:
            What is to be handed over, in order of arrival.
        """
        links, agenda, due = self.links, self._agenda, []
        while True:
            link_ns, class_ = links.next_event()
            if agenda and (agenda[0][0], 2) < (link_ns, class_):
                at_ns, _, put = agenda[0]
                if at_ns > now_ns:
                    break
                heapq.heappop(agenda)
                self._now_ns = max(self._now_ns, at_ns)
                if put is None:
                    links.stop(self._now_ns, self._node)
                else:
                    due += self._do(put)
                # It began when it was put, however late this thread heard of it.
                self._note_starts(self._now_ns, followed=False)
                continue
            if link_ns > now_ns:
                break
            self._now_ns = link_ns
            self.lateness_ns.add(now_ns - link_ns)
            self._processed_ns = now_ns
            due += [self._due(arrival) for arrival in links.step()]
            self._note_starts(now_ns, followed=True)
        return due if not self.lost else [each for each in due if self._somebody(each)]

    def close(self, now_ns: int) -> None:
        """End of the run: what is queued is dropped, what is under way stays in flight.

        Raises:
            DecentralError: the accounts differ from what the links hold.
        """
        self._hasten(now_ns)
        self.advance(now_ns)
        self.links.close(max(now_ns, self._now_ns))
        self.links.ledger.check()

    def _schedule(self, at_ns: int, put: _Put | None) -> None:
        heapq.heappush(self._agenda, (at_ns, next(self._order), put))

    def _hasten(self, at_ns: int) -> None:
        self._agenda = [(min(when_ns, at_ns), order, put) for when_ns, order, put in self._agenda]
        heapq.heapify(self._agenda)

    def _somebody(self, due: Due) -> bool:
        """Whether there is somebody at its destination; if not, it is dropped."""
        there = due.destination not in self.lost
        if not there:
            self.links.ledger.at_nobody(self._node, due.destination, due.message.nbytes)
        return there

    def _do(self, put: _Put) -> list[Due]:
        items = [
            Item(
                entry.destination, entry.message.nbytes, entry.sequence,
                entry.message.round, entry.message.fragment, entry.role,
            )
            for entry in put.entries
        ]  # fmt: skip
        if self._direct:
            return self._do_direct(put.entries, items)
        if put.flush:
            self._store = {number: self._store[number] for number in self._began if number in self._store}
        self._store.update((entry.sequence, entry.message) for entry in put.entries)
        self.links.put(self._now_ns, self._node, items, flush=put.flush)
        return []

    def _do_direct(self, entries: Sequence[Entry], items: Sequence[Item]) -> list[Due]:
        ledger, node, now_ns = self.links.ledger, self._node, self._now_ns
        ledger.made.add_all(node, items)
        for item in items:
            ledger.delivered.add(node, item.destination, item.nbytes)
            if self._trace is not None:
                self._trace(Transfer(node, item, now_ns, now_ns, "delivered"))
            self.transfers.add(item.destination, bits=8 * item.nbytes, asked_ns=0, took_ns=0, followed=False)
        nbytes = sum(item.nbytes for item in items)
        self._sent = self._sent._replace(
            sent=self._sent.sent + len(items), sent_bytes=self._sent.sent_bytes + nbytes
        )
        return [Due(now_ns, entry.destination, entry.message) for entry in entries]

    def _note_starts(self, at_ns: int, *, followed: bool) -> None:
        started = self.links.started.pop(self._node, ())
        if started and not followed:
            self.transfers.begin_row()
        for sequence in started:
            self._began[sequence] = (at_ns, followed)

    def _ended(self, transfer: Transfer) -> None:
        item, start_ns, end_ns = transfer.item, transfer.start_ns, transfer.end_ns
        sequence = item.sequence
        if self._trace is not None:
            self._trace(transfer)
        asked_ns = end_ns - start_ns
        if self.granted is not None:
            asked_ns = self.granted.asked_ns.pop(sequence, 0)
        if transfer.outcome != "delivered":
            self._store.pop(sequence, None)
            self._began.pop(sequence, None)
            return
        self._ends_ns[sequence] = end_ns
        began_ns, followed = self._began[sequence]
        self.transfers.add(
            item.destination,
            bits=8 * (item.nbytes + self._model.overhead_bytes),
            asked_ns=asked_ns,
            took_ns=self._processed_ns - began_ns,
            followed=followed,
        )

    def _due(self, arrival: Arrival) -> Due:
        item = arrival.item
        del self._began[item.sequence]
        self.transfers.delayed(item.destination, arrival.at_ns - self._ends_ns.pop(item.sequence))
        return Due(arrival.at_ns, item.destination, self._store.pop(item.sequence))
