"""When the next checkpoint is due."""

from __future__ import annotations


class Due:
    """When a checkpoint is due: so many rounds of the slowest node, or seconds, after the last one.

    Args:
        n: number of nodes.
        every: local rounds; None: whatever the rounds.
        every_s: real seconds; None: whatever the time.
        rounds: local rounds of every node so far.
    """

    def __init__(self, n: int, *, every: int | None, every_s: float | None, rounds: int = 0) -> None:
        self._every, self._every_s = every, every_s
        self._rounds = [rounds] * n
        self._last_round = rounds
        self._last_s: float | None = None

    @property
    def least(self) -> int:
        """Local rounds of the slowest node."""
        return min(self._rounds)

    def progress(self, node: int, round_: int) -> None:
        """A node has finished so many rounds."""
        self._rounds[node] = round_

    def due(self, now_s: float) -> bool:
        """Whether one is due; says so once, and then again after the next rounds or seconds."""
        if self._last_s is None:
            self._last_s = now_s
        by_rounds = self._every is not None and self.least // self._every > self._last_round // self._every
        by_time = self._every_s is not None and now_s - self._last_s >= self._every_s
        if not (by_rounds or by_time):
            return False
        self._last_round, self._last_s = self.least, now_s
        return True
