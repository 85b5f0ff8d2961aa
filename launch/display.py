"""What a running experiment shows: a live table in a terminal, a plain line every few seconds elsewhere.

Displays know node numbers, rounds and scores, and nothing of the launcher. They start no thread (the
launcher forks) and draw only when they are called, a few times a second at most, so that 100 000 calls
of ``progress`` cost little. One (arm, seed) runs at a time; ``progress`` and ``evaluated`` speak of it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Protocol, TextIO

from rich.console import Console

from launch.live_table import LiveDisplay
from launch.progress import LOST, Job, Now, Progress, duration


class Display(Protocol):
    """Told by the launcher what happens: the plan, then for each job its start to its end, then close."""

    def plan(self, jobs: Sequence[tuple[str, int]], nodes: int, max_rounds: int) -> None:
        """Every (arm, seed) of the experiment in the order in which they will run.

        ``max_rounds`` is the most that a node can reach, 0 where that is unknown.
        """
        ...

    def job_started(self, arm: str, seed: int, nodes: int, max_rounds: int) -> None:
        """``(arm, seed)`` is now the one that runs."""
        ...

    def hosts(self, members: Mapping[str, Sequence[int]]) -> None:
        """On which host which members of the job are that was started.

        A member is a node, or the number of nodes for the observer, or one more for the timekeeper.
        """

    def host(self, name: str, state: str | None, alive: int | None = None) -> None:
        """``state`` is a word or two: ``starting``, ``running``, ``lost``, ...; ``alive`` processes live.

        None: as before.
        """

    def heard(self, name: str) -> None:
        """Something came from this host just now, if only a sign of life."""

    def stalled(self, member: int, what: str | None, for_s: float) -> None:
        """A member does not go on: ``what`` is up with it, for how long already; None: it goes on again."""

    def lost(self, node: int) -> None:
        """The others go on without ``node``."""

    def tick(self) -> None:
        """Time passes: told about once a second while a job runs, also where nothing happens."""

    def progress(self, node: int, round: int, train_loss: float | None) -> None:
        """``node`` has finished ``round`` local rounds."""
        ...

    def evaluated(self, node: int, round: int, metric: str, score: float, loss: float) -> None:
        """The model that ``node`` had after ``round`` rounds has been evaluated."""
        ...

    def job_ended(self, arm: str, seed: int, state: str, message: str) -> None:
        """``state`` is one word (``done``, ``failed``, ...); ``message`` may be empty."""
        ...

    def note(self, text: str) -> None:
        """Something that the user should read now."""
        ...

    def close(self) -> None:
        """Nothing follows. May be called twice."""
        ...


def _measured(job: Job) -> str:
    return job.quality() + (f" in round {job.score[2]}" if job.score is not None else "")


class PlainDisplay:
    """One line of text per job start and end, and a few every ``every_s`` seconds between them.

    Of several hosts it says at once which is lost, and else what they have in common; ``decentral status``
    has the rest.

    Args:
        stream: lines are written to it and flushed.
        every_s: least seconds between two lines of progress.
        now: the clock.
    """

    def __init__(self, stream: TextIO, every_s: float = 5.0, now: Now = time.monotonic) -> None:
        self._stream = stream
        self._every_s = every_s
        self._progress = Progress(now)
        self._due_s = 0.0
        self._agreed = ""

    def plan(self, jobs: Sequence[tuple[str, int]], nodes: int, max_rounds: int) -> None:
        """See ``Display``."""
        self._progress.plan(jobs, nodes, max_rounds)
        up_to = f" and up to {max_rounds} rounds each" if max_rounds else ""
        self._line(f"{len(jobs)} runs of {nodes} nodes{up_to}")

    def job_started(self, arm: str, seed: int, nodes: int, max_rounds: int) -> None:
        """See ``Display``."""
        job = self._progress.start(arm, seed, nodes, max_rounds)
        up_to = f", up to {max_rounds} rounds" if max_rounds else ""
        self._line(f"{self._name(job)}: started, {nodes} nodes{up_to}")

    def progress(self, node: int, round: int, train_loss: float | None) -> None:
        """See ``Display``."""
        self._progress.progress(node, round, train_loss)
        self.tick()

    def hosts(self, members: Mapping[str, Sequence[int]]) -> None:
        """See ``Display``."""
        self._progress.placed(members)
        self._agreed = self._progress.agreed()

    def host(self, name: str, state: str | None, alive: int | None = None) -> None:
        """See ``Display``."""
        job = self._progress.running
        if not self._progress.host(name, state, alive) or job is None or len(job.hosts) < 2:
            return
        if state == LOST:
            self._line(f"  host {name}  {job.host_line(name)}")
        agreed = self._progress.agreed()
        if agreed and agreed != self._agreed:
            self._agreed = agreed
            self._line(f"  {self._progress.counted()}: {agreed}")

    def heard(self, name: str) -> None:
        """See ``Display``."""

    def stalled(self, member: int, what: str | None, for_s: float) -> None:
        """See ``Display``."""
        self._progress.stalled(member, what, for_s)
        self._line(
            f"  {self._progress.name(member)} {f'{what} since {for_s:.0f} s' if what else 'goes on again'}"
        )

    def lost(self, node: int) -> None:
        """See ``Display``."""
        self._progress.lost(node)

    def tick(self) -> None:
        """See ``Display``."""
        job = self._progress.running
        if job is None or self._progress.now() < self._due_s:
            return
        parts = [f"round {job.span()}", _measured(job), self._progress.remaining()]
        self._line(f"{self._name(job)}: {', '.join(part for part in parts if part)}")
        for line in (*self._progress.host_summary(), *self._progress.stall_lines()):
            self._line(f"  {line}")

    def evaluated(self, node: int, round: int, metric: str, score: float, loss: float) -> None:
        """See ``Display``."""
        self._progress.evaluated(node, round, metric, score)

    def job_ended(self, arm: str, seed: int, state: str, message: str) -> None:
        """See ``Display``."""
        job = self._progress.end(arm, seed, state, message)
        parts = [f"{state} after {duration(job.elapsed_s(job.ended_s or 0.0))}", _measured(job), message]
        self._line(f"{self._name(job)}: {', '.join(part for part in parts if part)}")

    def note(self, text: str) -> None:
        """See ``Display``."""
        self._line(text)

    def close(self) -> None:
        """See ``Display``."""

    def _name(self, job: Job) -> str:
        place = list(self._progress.jobs).index((job.arm, job.seed)) + 1
        return f"{job.arm} seed {job.seed} ({place} of {len(self._progress.jobs)})"

    def _line(self, text: str) -> None:
        now_s = self._progress.now()
        self._due_s = now_s + self._every_s
        self._stream.write(f"[{duration(now_s - self._progress.started_s)}] {text}\n")
        self._stream.flush()


def make_display(stream: TextIO) -> Display:
    """A ``LiveDisplay`` where ``stream`` is a terminal that can move its cursor, else a ``PlainDisplay``.

    ``NO_COLOR`` takes the colours away and ``TERM=dumb`` the live table.
    """
    if not stream.isatty() or os.environ.get("TERM", "dumb") in ("dumb", "unknown", ""):
        return PlainDisplay(stream)
    return LiveDisplay(Console(file=stream, no_color=bool(os.environ.get("NO_COLOR"))))
