"""Time as one node sees it. All blocking and all waiting goes through a clock.

``WallClock`` is real time; ``decentral.inline.InlineClock`` is emulated time with all nodes in one process.
Times are integer nanoseconds, so that equal instants compare equal on every machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, TypeVar

T = TypeVar("T")

NS_PER_S = 1_000_000_000


class Clock(Protocol):
    """One node's clock; used by that node's thread only."""

    def now_ns(self) -> int:
        """Time since the start barrier on the run's own clock; never decreases."""
        ...

    def compute(self, work: Callable[[], T]) -> T:
        """Run ``work`` and return its result once the compute window that it stands for is over.

        Under a virtual clock the window lasts what the compute model says, however long ``work`` takes.
        """
        ...

    def paused(self) -> AbstractContextManager[None]:
        """What runs inside (evaluation, logging) takes no time on this clock."""
        ...


class WallClock:
    """Real, monotonic time since ``start``, less what was spent paused."""

    def __init__(self) -> None:
        self._origin_ns = time.perf_counter_ns()
        self._paused_at_ns: int | None = None

    def start(self) -> None:
        """The start barrier fell: it is 0 now."""
        self._origin_ns = time.perf_counter_ns()

    def now_ns(self) -> int:
        """Nanoseconds since ``start``, evaluation left out; stands still inside ``paused``."""
        now = time.perf_counter_ns() if self._paused_at_ns is None else self._paused_at_ns
        return now - self._origin_ns

    def compute(self, work: Callable[[], T]) -> T:
        """Run ``work``; it lasts as long as it takes."""
        return work()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Shift the origin by what the block took.

        Each node pauses for itself: while others still compute, a node that waits for a paused one sees
        its own clock run. Only a virtual clock can make evaluation free for everybody.
        """
        before = self._paused_at_ns = time.perf_counter_ns()
        try:
            yield
        finally:
            self._origin_ns += time.perf_counter_ns() - before
            self._paused_at_ns = None
