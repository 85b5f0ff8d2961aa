"""Shared downlinks in real time: receivers pace what comes in (contention ``"both"``).

What a transfer may take of a receiver's downlink depends on who else sends to it, which only the receiver
knows. So a sender *offers* each transfer when it starts; the receiver shares its downlink among those on
offer as the emulated network does, and *grants* each when its last bit would be in. Until then it keeps the
sender's slot, as a connection that the receiver reads slowly does.

Exact for concurrency 1. Deviation: with more transfers at a time, what a slow receiver leaves of a sender's
uplink is not given to that sender's other transfers, so rates can lie below the max-min fair ones.
"""

from __future__ import annotations

from dataclasses import replace
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from decentral.network.flows import Flow, SharedRates
from decentral.network.links import flows_of
from decentral.network.model import INFINITE_NS, Item, NetworkModel


class Offer(NamedTuple):
    """A transfer of ``nbytes`` to ``destination`` has started, or (``nbytes`` is None) was cut."""

    destination: int
    sequence: int
    start_ns: int
    nbytes: int | None


class Grant(NamedTuple):
    """The downlink has taken a transfer of ``sender`` in, ``service_ns`` after it began to."""

    sender: int
    sequence: int
    end_ns: int
    service_ns: int


class GrantedFlows:
    """One sender's transfers (a ``Flows``): each ends when its uplink is through and its receiver granted it.

    Args:
        model: the network.

    Attributes:
        offers: what receivers are to be told; to be taken out.
        asked_ns: per sequence of a transfer that ended, how long it was to take.
    """

    def __init__(self, model: NetworkModel) -> None:
        self.offers: list[Offer] = []
        self.asked_ns: dict[int, int] = {}
        self._uplink = flows_of(replace(model, contention="uplink"))
        self._pending: dict[int, Flow] = {}
        self._granted: dict[int, tuple[int, int]] = {}
        self._through: dict[int, int] = {}
        self._ends: list[tuple[int, int, Flow]] = []
        self._lost: set[int] = set()

    def add(self, now_ns: int, flow: Flow) -> None:
        """See Flows."""
        destination, nbytes, sequence = flow.item[:3]
        self._pending[sequence] = flow
        self._uplink.add(now_ns, flow)
        if destination in self._lost:
            self._granted[sequence] = (now_ns, 0)
        else:
            self.offers.append(Offer(destination, sequence, now_ns, nbytes))

    def grant(self, sequence: int, end_ns: int, service_ns: int) -> None:
        """The receiver's part of a transfer is over; one that was cut meanwhile is ignored."""
        if sequence in self._pending:
            self._granted[sequence] = (end_ns, service_ns)
            self._settle(sequence)

    def lose(self, destination: int, at_ns: int) -> None:
        """``destination`` has ended and grants nothing any more: transfers to it are the uplink's alone."""
        self._lost.add(destination)
        for sequence, flow in list(self._pending.items()):
            if flow.item.destination == destination and sequence not in self._granted:
                # As long as it took: nobody knows how long it should have taken.
                self.grant(sequence, at_ns, at_ns - flow.start_ns)

    def next_ns(self) -> int:
        """See Flows."""
        uplink_ns = self._uplink.next_ns()
        return min(uplink_ns, self._ends[0][0]) if self._ends else uplink_ns

    def pop(self) -> Flow | None:
        """See Flows; call ``next_ns`` first."""
        if self._ends and self._ends[0][0] <= self._uplink.next_ns():
            return heappop(self._ends)[2]
        end_ns = self._uplink.next_ns()
        flow = self._uplink.pop()
        if flow is not None:
            self._through[flow.item.sequence] = end_ns
            self._settle(flow.item.sequence)
        return None

    def left(self, now_ns: int, flow: Flow) -> float:
        """See Flows; the receiver's part is not known here."""
        return flow.left(now_ns)

    def cut(self, now_ns: int, flow: Flow) -> None:
        """See Flows."""
        sequence = flow.item.sequence
        if sequence not in self._pending:
            self._ends = [end for end in self._ends if end[2] is not flow]
            heapify(self._ends)
        elif sequence not in self._through:
            self._uplink.cut(now_ns, flow)
        for table in (self._pending, self._granted, self._through, self.asked_ns):
            table.pop(sequence, None)
        self.offers.append(Offer(flow.item.destination, sequence, now_ns, None))

    def _settle(self, sequence: int) -> None:
        if sequence not in self._granted or sequence not in self._through:
            return
        flow = self._pending.pop(sequence)
        granted_ns, service_ns = self._granted.pop(sequence)
        uplink_ns = self._through.pop(sequence)
        self.asked_ns[sequence] = max(service_ns, uplink_ns - flow.start_ns)
        heappush(self._ends, (max(granted_ns, uplink_ns), flow.order, flow))


class Downlink:
    """How receiver ``node`` shares its downlink; used by one thread. Times are any one clock's.

    Args:
        node: the receiver.
        model: the network, with contention ``"both"``.
    """

    def __init__(self, node: int, model: NetworkModel) -> None:
        self._node = node
        self._flows = SharedRates(model)
        self._overhead_bits = 8 * model.overhead_bytes
        self._on_offer: dict[tuple[int, int], Flow] = {}
        self._grants: list[Grant] = []
        self._order = 0
        self._changed_ns = 0

    def offer(self, sender: int, sequence: int, start_ns: int, nbytes: int) -> None:
        """A transfer has started. One that is heard of late still counts from its start, or from the last
        change of shares if that came after it.
        """
        self._run(start_ns)
        self._changed_ns = max(self._changed_ns, start_ns)
        self._order += 1
        item = Item(self._node, nbytes, sequence, 0, 0, 0)
        flow = Flow(sender, item, self._order, self._changed_ns, 8 * nbytes + self._overhead_bits)
        self._on_offer[sender, sequence] = flow
        self._flows.add(self._changed_ns, flow)

    def withdraw(self, sender: int, sequence: int, at_ns: int) -> None:
        """A transfer was cut; one that was granted meanwhile is no longer here."""
        self._run(at_ns)
        flow = self._on_offer.pop((sender, sequence), None)
        if flow is not None:
            self._changed_ns = max(self._changed_ns, at_ns)
            self._flows.cut(self._changed_ns, flow)

    def lose(self, sender: int, at_ns: int) -> None:
        """``sender`` has ended: what it had on offer takes nothing of the downlink any more."""
        for other, sequence in list(self._on_offer):
            if other == sender:
                self.withdraw(sender, sequence, at_ns)

    def next_ns(self) -> int:
        """When ``advance`` has something to do; ``INFINITE_NS``: nothing is on offer."""
        return self._flows.next_ns() if self._on_offer else INFINITE_NS

    def advance(self, now_ns: int) -> list[Grant]:
        """What has come in by ``now_ns`` and was not returned before."""
        self._run(now_ns)
        grants, self._grants = self._grants, []
        return grants

    def _run(self, until_ns: int) -> None:
        while (at_ns := self.next_ns()) <= until_ns:
            self._changed_ns = at_ns
            flow = self._flows.pop()
            if flow is not None:
                sequence = flow.item.sequence
                del self._on_offer[flow.sender, sequence]
                self._grants.append(Grant(flow.sender, sequence, at_ns, at_ns - flow.start_ns))
