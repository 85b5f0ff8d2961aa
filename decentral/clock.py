"""Real time as one node sees it, in integer nanoseconds, so that equal instants compare equal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

NS_PER_S = 1_000_000_000


class WallClock:
    """Real, monotonic time since ``start``, less what was spent paused.

    One thread starts and pauses it; any thread may read it.

    Args:
        offset_ns: to be added to this host's monotonic clock to get the one that all hosts of a run share.
    """

    def __init__(self, offset_ns: int = 0) -> None:
        self._offset_ns = offset_ns
        self._state: tuple[int, int | None] = (time.monotonic_ns(), None)
        """Origin, and the instant of the pause in progress: one tuple, so readers see both or neither."""

    def start(self) -> None:
        """The start barrier fell: it is 0 now."""
        self._state = (time.monotonic_ns(), None)

    def shared_ns(self) -> int:
        """Real time on the clock that all hosts of a run share, whether paused or not."""
        return time.monotonic_ns() + self._offset_ns

    @property
    def running(self) -> bool:
        """False inside ``paused``."""
        return self._state[1] is None

    def now_ns(self) -> int:
        """Nanoseconds since ``start``, pauses left out; stands still inside ``paused``."""
        origin_ns, paused_at_ns = self._state
        return (time.monotonic_ns() if paused_at_ns is None else paused_at_ns) - origin_ns

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Shift the origin by what the block took; not to be nested.

        Each node pauses for itself: while others still compute, a node that waits for a paused one sees
        its own clock run. Only a virtual clock can make evaluation free for everybody.
        """
        origin_ns, _ = self._state
        before_ns = time.monotonic_ns()
        self._state = (origin_ns, before_ns)
        try:
            yield
        finally:
            self._state = (origin_ns + time.monotonic_ns() - before_ns, None)
