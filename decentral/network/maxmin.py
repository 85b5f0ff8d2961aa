"""Flows that share uplinks and downlinks at once: rates of the whole network, by water-filling."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import ClassVar

import numpy as np

from decentral.checkpoint.state import Stateful
from decentral.network.flows import NS, Flow
from decentral.network.model import INFINITE_NS, NetworkModel
from decentral.network.sharing import max_min_rates

# Rows of the whole-number and of the real columns; a flow is one column of each.
SENDER, DESTINATION, SETTLED, END = range(4)
CAP, RATE, REMAINING = range(3)


class MaxMinRates(Stateful):
    """Any concurrency and contention. See ``decentral.network.flows.Flows``.

    Rates are computed at most once per instant, when all starts and ends of the instant are known. Flows in
    progress are columns of arrays, so that a computation is a handful of vector operations.

    Args:
        model: the network.
    """

    GIVEN: ClassVar[str] = "_uplink _downlink _pair _overhead_ns"

    def __init__(self, model: NetworkModel) -> None:
        self._uplink = model.uplink_bps
        shared = model.contention == "both"
        self._downlink = model.downlink_bps if shared else np.full(model.n, np.inf)
        self._pair = model.pair_bps
        self._overhead_ns = model.overhead_ns
        self._flows: list[Flow] = []
        self._slot: dict[int, int] = {}
        self._whole = np.zeros((4, 64), dtype=np.int64)
        self._real = np.zeros((3, 64))
        self._begins: list[tuple[int, int, Flow]] = []
        self._changed_ns: int | None = None
        self._next_ns = INFINITE_NS

    def add(self, now_ns: int, flow: Flow) -> None:
        """See Flows."""
        if self._overhead_ns:
            heappush(self._begins, (now_ns + self._overhead_ns, flow.order, flow))
        else:
            self._begin(now_ns, flow)

    def _begin(self, now_ns: int, flow: Flow) -> None:
        self._settle(now_ns)
        i, j = flow.sender, flow.item.destination
        cap = np.inf if self._pair is None else self._pair[i, j]
        at_once = not flow.bits or np.isinf(min(cap, self._uplink[i], self._downlink[j]))
        slot = len(self._flows)
        if slot == self._whole.shape[1]:
            self._whole = np.concatenate((self._whole, np.zeros_like(self._whole)), axis=1)
            self._real = np.concatenate((self._real, np.zeros_like(self._real)), axis=1)
        self._whole[:, slot] = i, j, now_ns, now_ns if at_once else INFINITE_NS
        self._real[:, slot] = cap, 0.0, flow.bits
        self._flows.append(flow)
        self._slot[flow.order] = slot
        self._changed_ns = now_ns

    def next_ns(self) -> int:
        """See Flows."""
        if self._changed_ns is not None:
            self._next_ns = self._first_end_ns()
            # Other flows that end at the instant of the change leave first, then rates are computed once.
            if self._next_ns > self._changed_ns:
                self._share(self._changed_ns)
                self._next_ns = self._first_end_ns()
        return min(self._next_ns, self._begins[0][0]) if self._begins else self._next_ns

    def pop(self) -> Flow | None:
        """See Flows; call ``next_ns`` first."""
        if self._begins and self._begins[0][0] <= self._next_ns:
            now_ns, _, flow = heappop(self._begins)
            self._begin(now_ns, flow)
            return None
        ends = np.flatnonzero(self._whole[END, : len(self._flows)] == self._next_ns)
        flow = min((self._flows[slot] for slot in ends), key=lambda flow: (flow.sender, flow.order))
        self._remove(self._next_ns, flow)
        return flow

    def left(self, now_ns: int, flow: Flow) -> float:
        """See Flows."""
        self._settle(now_ns)
        slot = self._slot.get(flow.order)
        if slot is None:
            return flow.bits
        if now_ns >= self._whole[END, slot]:
            return 0.0
        flowed = self._real[RATE, slot] * (now_ns - self._whole[SETTLED, slot]) / NS
        return max(0.0, float(self._real[REMAINING, slot] - flowed))

    def cut(self, now_ns: int, flow: Flow) -> None:
        """See Flows."""
        if flow.order in self._slot:
            self._remove(now_ns, flow)
        else:
            self._begins = [begin for begin in self._begins if begin[2] is not flow]
            heapify(self._begins)

    def _remove(self, now_ns: int, flow: Flow) -> None:
        """Take a flow's column out; the last column moves there."""
        self._settle(now_ns)
        slot = self._slot.pop(flow.order)
        last = self._flows.pop()
        if last is not flow:
            end = len(self._flows)
            self._whole[:, slot] = self._whole[:, end]
            self._real[:, slot] = self._real[:, end]
            self._flows[slot] = last
            self._slot[last.order] = slot
        self._changed_ns = now_ns

    def _settle(self, now_ns: int) -> None:
        """Rates must be known since the last change before anything changes at a later instant."""
        if self._changed_ns is not None and self._changed_ns < now_ns:
            self._share(self._changed_ns)

    def _share(self, now_ns: int) -> None:
        """New rates from ``now_ns`` on; no flow ends at that instant."""
        self._changed_ns = None
        whole, real = self._whole[:, : len(self._flows)], self._real[:, : len(self._flows)]
        rates = max_min_rates(self._uplink, self._downlink, whole[SENDER], whole[DESTINATION], real[CAP])
        new = np.flatnonzero(rates != real[RATE])
        rate = rates[new]
        flowed = real[RATE, new] * (now_ns - whole[SETTLED, new]) / NS
        left = np.maximum(0.0, real[REMAINING, new] - flowed)
        real[RATE, new], real[REMAINING, new], whole[SETTLED, new] = rate, left, now_ns
        whole[END, new] = now_ns + np.minimum(np.ceil(left * NS / rate), INFINITE_NS).astype(np.int64)

    def _first_end_ns(self) -> int:
        return int(self._whole[END, : len(self._flows)].min()) if self._flows else INFINITE_NS
