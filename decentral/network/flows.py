"""Transfers in progress and how fast their bytes flow, for each way of sharing links.

Remaining bits are settled, and an end computed anew, only when a flow's rate changes: a flow whose rate stays
ends ``ceil(bits / rate)`` after its first bit, to the nanosecond, however often its neighbors' rates change.
"""

from __future__ import annotations

import math
from heapq import heapify, heappop, heappush
from typing import ClassVar, Protocol

from decentral.checkpoint.state import Stateful
from decentral.network.model import INFINITE_NS, Item, NetworkModel
from decentral.network.sharing import water_level

NS = 1e9
"""Nanoseconds per second."""


class Flow:
    """One transfer in progress.

    Args:
        sender: the sender.
        item: the message; no other transfer of this sender to this destination is in progress.
        order: number of the transfer in order of starts; breaks ties.
        start_ns: when it took the sender's slot.
        bits: on the wire.

    Attributes:
        rate: bit/s since ``settled_ns``, when ``remaining`` bits were left; 0 before the first bit.
        end_ns: when its last bit leaves if rates stay.
        cap: the most that it can get apart from the shared link.
        lost: its message will not arrive.
        jitter_ns: extra latency of its message.
    """

    __slots__ = (
        "bits", "cap", "end_ns", "item", "jitter_ns", "lost", "order", "rate", "remaining", "sender",
        "settled_ns", "start_ns",
    )  # fmt: skip

    def __init__(self, sender: int, item: Item, order: int, start_ns: int, bits: int) -> None:
        self.sender = sender
        self.item = item
        self.order = order
        self.start_ns = self.settled_ns = start_ns
        self.end_ns = INFINITE_NS
        self.bits = bits
        self.remaining: float = bits
        self.rate = 0.0
        self.cap = math.inf
        self.lost = False
        self.jitter_ns = 0

    def left(self, now_ns: int) -> float:
        """Bits that have not left by ``now_ns``."""
        if now_ns >= self.end_ns:
            return 0.0
        if now_ns <= self.settled_ns:
            return self.remaining
        return max(0.0, self.remaining - self.rate * (now_ns - self.settled_ns) / NS)

    def go_on(self, now_ns: int, rate: float) -> None:
        """The rate changes at ``now_ns``, before the end."""
        self.remaining = self.left(now_ns)
        self.settled_ns = now_ns
        self.rate = rate
        self.end_ns = now_ns + math.ceil(self.remaining * NS / rate)


class Flows(Protocol):
    """All transfers in progress. Calls come in order of time."""

    def add(self, now_ns: int, flow: Flow) -> None:
        """A transfer takes its sender's slot; its bytes flow after the model's ``overhead_ns``."""
        ...

    def next_ns(self) -> int:
        """When ``pop`` is due; ``INFINITE_NS`` where nothing is in progress."""
        ...

    def pop(self) -> Flow | None:
        """The flow that ends at ``next_ns``, taken out; of several the least (sender, order).

        None: no flow ended, one's overhead did and its bytes begin to flow.
        """
        ...

    def left(self, now_ns: int, flow: Flow) -> float:
        """Bits of a flow in progress that have not left by ``now_ns``."""
        ...

    def cut(self, now_ns: int, flow: Flow) -> None:
        """Take a flow out before its end; what it leaves free is shared anew."""
        ...


class FixedRates(Stateful):
    """Concurrency 1, contention ``"uplink"``: nothing is shared, each flow has one rate from start to end.

    Args:
        model: the network.
    """

    GIVEN: ClassVar[str] = "_overhead_ns _uplink _pair"

    def __init__(self, model: NetworkModel) -> None:
        self._overhead_ns = model.overhead_ns
        self._uplink: list[float] = model.uplink_bps.tolist()
        self._pair: list[list[float]] | None = None if model.pair_bps is None else model.pair_bps.tolist()
        never = Flow(0, Item(0, 0, 0, 0, 0, 0), 0, INFINITE_NS, 0)
        self._ends: list[tuple[int, int, int, Flow]] = [(INFINITE_NS, 0, 0, never)]

    def add(self, now_ns: int, flow: Flow) -> None:
        """See Flows."""
        sender = flow.sender
        rate = self._uplink[sender]
        if self._pair is not None:
            rate = min(rate, self._pair[sender][flow.item.destination])
        flow.rate = rate
        flow.settled_ns = first_bit_ns = now_ns + self._overhead_ns
        flow.end_ns = end_ns = first_bit_ns + math.ceil(flow.bits * NS / rate)
        heappush(self._ends, (end_ns, sender, flow.order, flow))

    def next_ns(self) -> int:
        """See Flows."""
        return self._ends[0][0]

    def pop(self) -> Flow:
        """See Flows."""
        return heappop(self._ends)[3]

    def left(self, now_ns: int, flow: Flow) -> float:
        """See Flows."""
        return flow.left(now_ns)

    def cut(self, now_ns: int, flow: Flow) -> None:
        """See Flows."""
        self._ends.remove((flow.end_ns, flow.sender, flow.order, flow))
        heapify(self._ends)


class SharedRates(Stateful):
    """Each flow competes on one link only, and is capped by what else it crosses.

    Contention ``"uplink"``, any concurrency: a sender's flows share its uplink. Contention ``"both"``,
    concurrency 1: the flows to a receiver share its downlink; a sender's only flow has the uplink to itself.
    A start or an end changes rates on one link, and leaves one heap entry: the link's first end.

    Args:
        model: the network.
    """

    GIVEN: ClassVar[str] = "_by_sender _capacity _uplink _pair _overhead_ns"

    def __init__(self, model: NetworkModel) -> None:
        self._by_sender = model.contention == "uplink"
        own = model.uplink_bps if self._by_sender else model.downlink_bps
        self._capacity: list[float] = own.tolist()
        self._uplink: list[float] = model.uplink_bps.tolist()
        self._pair: list[list[float]] | None = None if model.pair_bps is None else model.pair_bps.tolist()
        self._overhead_ns = model.overhead_ns
        self._links: list[dict[int, Flow]] = [{} for _ in range(model.n)]
        self._version = [0] * model.n
        self._ends: list[tuple[int, int, int, int, int, Flow]] = []
        self._begins: list[tuple[int, int, Flow]] = []

    def add(self, now_ns: int, flow: Flow) -> None:
        """See Flows."""
        sender, destination = flow.sender, flow.item.destination
        flow.cap = math.inf if self._by_sender else self._uplink[sender]
        if self._pair is not None:
            flow.cap = min(flow.cap, self._pair[sender][destination])
        if self._overhead_ns:
            heappush(self._begins, (now_ns + self._overhead_ns, flow.order, flow))
        else:
            self._begin(now_ns, flow)

    def _begin(self, now_ns: int, flow: Flow) -> None:
        link = flow.sender if self._by_sender else flow.item.destination
        if not flow.bits or (math.isinf(flow.cap) and math.isinf(self._capacity[link])):
            flow.end_ns = now_ns
        self._links[link][flow.order] = flow
        self._share(now_ns, link)

    def _share(self, now_ns: int, link: int) -> None:
        flows = self._links[link]
        self._version[link] = version = self._version[link] + 1
        if not flows:
            return
        # A flow that ends at this very instant needs no share any more.
        flowing = [flow for flow in flows.values() if flow.end_ns > now_ns]
        if flowing:
            level = water_level(self._capacity[link], [flow.cap for flow in flowing])
            for flow in flowing:
                rate = flow.cap if flow.cap < level else level
                if rate != flow.rate:
                    flow.go_on(now_ns, rate)
        end_ns, sender, order = min([(flow.end_ns, flow.sender, flow.order) for flow in flows.values()])
        heappush(self._ends, (end_ns, sender, order, link, version, flows[order]))

    def next_ns(self) -> int:
        """See Flows."""
        ends, begins = self._ends, self._begins
        while ends and self._version[ends[0][3]] != ends[0][4]:
            heappop(ends)
        end_ns = ends[0][0] if ends else INFINITE_NS
        return min(end_ns, begins[0][0]) if begins else end_ns

    def pop(self) -> Flow | None:
        """See Flows; call ``next_ns`` first."""
        # Bytes begin before others end, so that flows without bytes compete by sender as well.
        if self._begins and (not self._ends or self._begins[0][0] <= self._ends[0][0]):
            now_ns, _, flow = heappop(self._begins)
            self._begin(now_ns, flow)
            return None
        now_ns, _, order, link, _, flow = heappop(self._ends)
        del self._links[link][order]
        self._share(now_ns, link)
        return flow

    def left(self, now_ns: int, flow: Flow) -> float:
        """See Flows."""
        return flow.left(now_ns)

    def cut(self, now_ns: int, flow: Flow) -> None:
        """See Flows."""
        link = flow.sender if self._by_sender else flow.item.destination
        if self._links[link].pop(flow.order, None) is not None:
            self._share(now_ns, link)
        else:
            self._begins = [begin for begin in self._begins if begin[2] is not flow]
            heapify(self._begins)
