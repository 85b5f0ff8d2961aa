"""The emulated links: queues, transfers, arrivals. A state machine in emulated time, without I/O.

The caller drives it: it asks for the ``next_event``, lets nodes act before it with ``put``, then takes the
``step``. Events of one instant are ordered: class 0, arrivals of transfers that ended before; class 2, queue
operations (the caller's, by node); class 3, ends of transfers by sender, with their arrivals where nothing
delays them.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from heapq import heapify, heappop, heappush
from typing import ClassVar

from decentral.checkpoint.state import Stateful
from decentral.errors import DecentralError
from decentral.network.flows import FixedRates, Flow, Flows, SharedRates
from decentral.network.ledger import Ledger, Reason
from decentral.network.maxmin import MaxMinRates
from decentral.network.model import INFINITE_NS, Arrival, Item, NetworkModel, Transfer

__all__ = ["Arrival", "Item", "Links", "Transfer"]


class Links(Stateful):
    """All links of an emulated network: one queue per sender, ``concurrency`` transfers in progress each.

    With concurrency 1 strictly the head of a sender's queue starts when its slot is free; otherwise the first
    message to a destination to which no transfer of this sender is in progress. Messages of one (sender,
    destination) pair arrive in the order of the queue.

    Args:
        model: the network.
        ledger: counts what becomes of every message; its ``held`` is set to this object's.
        trace: called with every transfer that ends or is cut, at that moment.

    Attributes:
        started: per sender, sequences of the transfers started that a flush can no longer stop, in order;
            take the lists out. With the model's ``abort_on_flush`` those are the transfers that have ended.
            Messages that will be lost are left out.
        sent, sent_bytes: per sender, messages and payload bytes whose transfer is complete, lost ones too.
        dropped, dropped_bytes: per sender, those dropped without: by a flush, cut, or unsent at the end. At
            any moment made = sent + dropped + queued + in progress.
        busy_ns: per sender, time with a transfer in progress (overhead included), counted when it pauses.
        sent_bits: per sender, bits on the wire (overhead and cut transfers included), counted at ends.
    """

    GIVEN: ClassVar[str] = (
        "model ledger _deliver _trace _slots _latency_ns _latencies _key _draws _overhead_bits _cuts"
    )

    def __init__(
        self, model: NetworkModel, ledger: Ledger, trace: Callable[[Transfer], None] | None = None
    ) -> None:
        n = model.n
        self.model = model
        self.ledger = ledger
        ledger.held = self.held
        self._deliver = ledger.delivered.add
        self.started: dict[int, list[int]] = {}
        self.sent = [0] * n
        self.sent_bytes = [0] * n
        self.dropped = [0] * n
        self.dropped_bytes = [0] * n
        self.busy_ns = [0] * n
        self.sent_bits = [0] * n
        self._trace = trace
        self._flows = flows_of(model)
        self._slots = model.concurrency or n
        self._queues: list[deque[Item]] = [deque() for _ in range(n)]
        self._active: list[dict[int, Flow]] = [{} for _ in range(n)]
        self._busy_since_ns = [0] * n
        self._arrivals: list[tuple[int, int, int, Item]] = [(INFINITE_NS, 0, 0, Item(0, 0, 0, 0, 0, 0))]
        self._order = 0
        self._now_ns = 0
        self._closed = False
        one_latency = model.latency_ns.shape == (1, 1)
        self._latency_ns = int(model.latency_ns[0, 0])
        self._latencies: list[list[int]] | None = None if one_latency else model.latency_ns.tolist()
        self._last_arrival_ns: dict[tuple[int, int], int] = {}
        self._key = model.seeds.integer("network").to_bytes(8, "little")
        self._draws = model.loss > 0 or model.jitter_ns > 0
        self._overhead_bits = 8 * model.overhead_bytes
        self._cuts = model.abort_on_flush

    def put(self, now_ns: int, sender: int, items: Sequence[Item], *, flush: bool) -> None:
        """``sender`` queues ``items`` behind what is queued, or, with ``flush``, in its place.

        A flush drops what has not started (reason ``flush``) and, with the model's ``abort_on_flush``, cuts
        what is in progress (reason ``abort``).

        Args:
            now_ns: not before anything that was processed, not after the ``next_event``.
            sender: the sender.
            items: messages to other nodes, in the order of sending.
            flush: drop what is queued first.

        Raises:
            DecentralError: ``now_ns`` lies in the past.
        """
        self._advance(now_ns)
        if flush:
            self._drop_queue(sender, "flush")
            if self.model.abort_on_flush:
                for flow in list(self._active[sender].values()):
                    self._abort(now_ns, flow, "abort")
        if items:
            self.ledger.made.add_all(sender, items)
            self._queues[sender].extend(items)
            self._start(now_ns, sender)

    def stop(self, now_ns: int, sender: int) -> None:
        """Drop what ``sender`` has queued (reason ``end``); its transfers in progress go on."""
        self._advance(now_ns)
        self._drop_queue(sender, "end")

    def lose(self, now_ns: int, sender: int) -> None:
        """``sender`` is lost: of what it has sent, what has not arrived never will (reason ``lost_node``)."""
        self._advance(now_ns)
        self._drop_queue(sender, "lost_node")
        for flow in list(self._active[sender].values()):
            self._abort(now_ns, flow, "lost_node")
        for _, _, _, item in [each for each in self._arrivals if each[1] == sender and each[0] < INFINITE_NS]:
            self.ledger.dropped["lost_node"].add(sender, item.destination, item.nbytes)
        self._arrivals = [each for each in self._arrivals if each[1] != sender or each[0] >= INFINITE_NS]
        heapify(self._arrivals)
        self.started.pop(sender, None)

    def close(self, now_ns: int) -> None:
        """End of the run: what is queued is dropped (reason ``end``), the rest stays in flight for good."""
        self._advance(now_ns)
        if self._closed:
            return
        self._closed = True
        for sender, active in enumerate(self._active):
            self._drop_queue(sender, "end")
            for flow in active.values():
                self.sent_bits[sender] += int(flow.bits - self._flows.left(now_ns, flow))
            if active:
                self.busy_ns[sender] += now_ns - self._busy_since_ns[sender]

    def next_event(self) -> tuple[int, int]:
        """Time and class (0: an arrival; 3: a transfer) of what ``step`` does; (INFINITE_NS, 0): nothing."""
        if self._closed:
            return INFINITE_NS, 0
        arrival_ns = self._arrivals[0][0]
        end_ns = self._flows.next_ns()
        return (arrival_ns, 0) if arrival_ns <= end_ns else (end_ns, 3)

    def step(self) -> list[Arrival]:
        """Process the next event: an arrival, the end of a transfer, or the end of a transfer's overhead.

        Returns:
            What arrived: the arrival; or the message of the ended transfer where neither latency, jitter nor
            an earlier message of the pair delays it; or nothing.

        Raises:
            DecentralError: there is no event, or a ``put`` at a later time has overtaken it.
        """
        arrival_ns = self._arrivals[0][0]
        end_ns = self._flows.next_ns()
        if arrival_ns <= end_ns:
            if arrival_ns >= INFINITE_NS:
                raise DecentralError("Links.step: no event is left, expected one; ask next_event first")
            self._advance(arrival_ns)
            _, sender, _, item = heappop(self._arrivals)
            self._deliver(sender, item.destination, item.nbytes)
            return [Arrival(arrival_ns, sender, item)]
        self._advance(end_ns)
        flow = self._flows.pop()
        return [] if flow is None else self._end(end_ns, flow)

    def held(self) -> Iterator[tuple[int, Item]]:
        """(sender, message) of everything queued, in progress or travelling."""
        for sender, queue in enumerate(self._queues):
            for item in queue:
                yield sender, item
            for flow in self._active[sender].values():
                yield sender, flow.item
        for at_ns, sender, _, item in self._arrivals:
            if at_ns < INFINITE_NS:
                yield sender, item

    def _advance(self, now_ns: int) -> None:
        if now_ns < self._now_ns:
            raise DecentralError(
                f"emulated network: event at {now_ns} ns, expected none before {self._now_ns} ns, the latest "
                "processed; act on the links in order of time"
            )
        self._now_ns = now_ns

    def _start(self, now_ns: int, sender: int) -> None:
        """Start what may start."""
        queue, active = self._queues[sender], self._active[sender]
        position = 0
        while position < len(queue) and len(active) < self._slots:
            if queue[position].destination in active:
                position += 1
            else:
                item = queue[position]
                del queue[position]
                self._begin(now_ns, sender, item)

    def _begin(self, now_ns: int, sender: int, item: Item) -> None:
        active = self._active[sender]
        if not active:
            self._busy_since_ns[sender] = now_ns
        self._order += 1
        flow = Flow(sender, item, self._order, now_ns, 8 * item.nbytes + self._overhead_bits)
        active[item.destination] = flow
        if self._draws:
            flow.lost, flow.jitter_ns = self._draw(sender, item.sequence)
        if not flow.lost and not self._cuts:
            self._certain(sender, item.sequence)
        self._flows.add(now_ns, flow)

    def _certain(self, sender: int, sequence: int) -> None:
        started = self.started.get(sender)
        if started is None:
            self.started[sender] = [sequence]
        else:
            started.append(sequence)

    def _draw(self, sender: int, sequence: int) -> tuple[bool, int]:
        """Is this message lost, and its jitter in ns; a keyed hash, since a generator per message is slow."""
        digest = hashlib.blake2b(b"%d %d" % (sender, sequence), key=self._key, digest_size=16).digest()
        lost = int.from_bytes(digest[:8], "little") < self.model.loss * 2**64
        # A remainder of 64 bits: the bias is below jitter_ns / 2**64.
        return lost, int.from_bytes(digest[8:], "little") % (self.model.jitter_ns + 1)

    def _end(self, now_ns: int, flow: Flow) -> list[Arrival]:
        sender, item = flow.sender, flow.item
        destination, nbytes = item.destination, item.nbytes
        self.sent[sender] += 1
        self.sent_bytes[sender] += nbytes
        self.sent_bits[sender] += flow.bits
        self._leave(now_ns, sender, destination)
        if self._trace is not None:
            self._trace(Transfer(sender, item, flow.start_ns, now_ns, "lost" if flow.lost else "delivered"))
        queue = self._queues[sender]
        if queue:
            if self._slots == 1:
                self._begin(now_ns, sender, queue.popleft())
            else:
                self._start(now_ns, sender)
        if flow.lost:
            self.ledger.dropped["loss"].add(sender, destination, nbytes)
            return []
        if self._cuts:
            self._certain(sender, item.sequence)
        latencies = self._latencies
        at_ns = now_ns + (self._latency_ns if latencies is None else latencies[sender][destination])
        if self.model.jitter_ns:
            pair = (sender, destination)
            at_ns = max(at_ns + flow.jitter_ns, self._last_arrival_ns.get(pair, 0))
            self._last_arrival_ns[pair] = at_ns
        if at_ns > now_ns:
            heappush(self._arrivals, (at_ns, sender, flow.order, item))
            return []
        self._deliver(sender, destination, nbytes)
        return [Arrival(at_ns, sender, item)]

    def _leave(self, now_ns: int, sender: int, destination: int) -> None:
        active = self._active[sender]
        del active[destination]
        if not active:
            self.busy_ns[sender] += now_ns - self._busy_since_ns[sender]

    def _abort(self, now_ns: int, flow: Flow, reason: Reason) -> None:
        sender, item = flow.sender, flow.item
        self.sent_bits[sender] += int(flow.bits - self._flows.left(now_ns, flow))
        self._flows.cut(now_ns, flow)
        self._leave(now_ns, sender, item.destination)
        self._count_dropped(sender, (item,), reason)
        if self._trace is not None:
            self._trace(Transfer(sender, item, flow.start_ns, now_ns, "aborted"))

    def _drop_queue(self, sender: int, reason: Reason) -> None:
        queue = self._queues[sender]
        if queue:
            self._count_dropped(sender, queue, reason)
            queue.clear()

    def _count_dropped(self, sender: int, items: Collection[Item], reason: Reason) -> None:
        self.dropped[sender] += len(items)
        self.dropped_bytes[sender] += self.ledger.dropped[reason].add_all(sender, items)


def flows_of(model: NetworkModel) -> Flows:
    """The cheapest exact way to share the links of this network."""
    if model.contention == "uplink":
        return FixedRates(model) if model.concurrency == 1 else SharedRates(model)
    return SharedRates(model) if model.concurrency == 1 else MaxMinRates(model)
