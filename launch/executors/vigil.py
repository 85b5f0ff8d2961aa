"""Which agents a job cannot count on any more: they are silent, or do not end their nodes when told to."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

from launch.display import Display
from launch.executors.line import Line
from launch.protocol import SILENCE_S
from launch.stalls import LOOK_EVERY_S, Stalls, look_at

OVERDUE_S = 5.0
"""How long after their nodes' grace agents may take to end them and say so, also on a busy machine."""


class Vigil:
    """Looks after the agents of one job.

    Args:
        lines: to them.
        display: hears which agents on this machine are stopped or blocked; what their nodes are, they tell.
    """

    def __init__(self, lines: Iterable[Line], display: Display) -> None:
        self._lines = list(lines)
        self._display = display
        self._stalls = Stalls()
        self._stalled: set[int] = set()
        self._look_due_s = 0.0
        self._end_by_s: float | None = None

    def stopping(self, grace_ms: int) -> None:
        """Nodes have been told to end, and are killed after ``grace_ms``."""
        self._end_by_s = time.monotonic() + grace_ms / 1000 + OVERDUE_S

    def look(self, at_work: Callable[[Line], bool]) -> Iterator[tuple[Line, str]]:
        """To be called every now and then: agents to be given up, and why.

        Args:
            at_work: whether nodes of an agent have not ended.
        """
        overdue = self._end_by_s is not None and time.monotonic() > self._end_by_s
        for line in self._lines:
            if line.ended:
                continue
            if line.silent:
                yield line, f"is lost: nothing has been heard of it for {SILENCE_S:g} s"
            elif overdue and at_work(line):
                yield line, "does not end its nodes"
        if time.monotonic() >= self._look_due_s:
            self._look_due_s = time.monotonic() + LOOK_EVERY_S
            self._look_here()

    def _look_here(self) -> None:
        """Agents on other hosts are silent when they are stopped; those here are seen."""
        for number, line in enumerate(self._lines):
            if line.remote or line.ended:
                continue
            look = look_at(line.pid)
            change = None if look is None else self._stalls.see(number, look, 0, time.monotonic())
            if change is not None and change.what is not None:
                self._stalled.add(number)
                self._display.note(
                    f"host {line.name}: the agent (pid {line.pid}) {change.what} since {change.for_s:.0f} s; "
                    f"until it goes on nothing is known of its nodes"
                )
            elif change is not None:
                self._stalled.discard(number)
                self._display.note(f"host {line.name}: the agent goes on again")
            if number not in self._stalled:
                self._display.heard(line.name)  # a pipe inside this machine: it lives, or ends
