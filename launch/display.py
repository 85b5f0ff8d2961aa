"""What a running experiment shows: a live table in a terminal, a plain line every few seconds elsewhere.

Displays know node numbers, rounds and scores, and nothing of the launcher. They start no thread (the
launcher forks) and draw only when they are called, a few times a second at most, so that 100 000 calls
of ``progress`` cost little. One (arm, seed) runs at a time; ``progress`` and ``evaluated`` speak of it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Protocol, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from launch.progress import Job, Now, Progress, duration

WIDE = 100
"""Columns from which on there is room for a bar beside the numbers."""


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
    """One line of text per job start and end, and one every ``every_s`` seconds between them.

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
        job = self._progress.running
        if job is not None and self._progress.now() >= self._due_s:
            parts = [f"round {job.span()}", _measured(job), self._progress.remaining()]
            self._line(f"{self._name(job)}: {', '.join(part for part in parts if part)}")

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


class LiveDisplay:
    """A table, redrawn in place: a line per (arm, seed) and one for the whole experiment.

    Args:
        console: a terminal.
        every_s: least seconds between two drawings.
        now: the clock.
    """

    def __init__(self, console: Console, every_s: float = 0.2, now: Now = time.monotonic) -> None:
        self._console = console
        self._every_s = every_s
        self._progress = Progress(now)
        self._due_s = 0.0
        # No refresh thread. Standard output stays the caller's: it may be a file or a pipe.
        self._live = Live(console=console, auto_refresh=False, redirect_stdout=False)

    def plan(self, jobs: Sequence[tuple[str, int]], nodes: int, max_rounds: int) -> None:
        """See ``Display``."""
        self._progress.plan(jobs, nodes, max_rounds)
        self._live.start()
        self._draw()

    def job_started(self, arm: str, seed: int, nodes: int, max_rounds: int) -> None:
        """See ``Display``."""
        self._progress.start(arm, seed, nodes, max_rounds)
        self._draw()

    def progress(self, node: int, round: int, train_loss: float | None) -> None:
        """See ``Display``."""
        self._progress.progress(node, round, train_loss)
        if self._progress.now() >= self._due_s:
            self._draw()

    def evaluated(self, node: int, round: int, metric: str, score: float, loss: float) -> None:
        """See ``Display``."""
        self._progress.evaluated(node, round, metric, score)
        if self._progress.now() >= self._due_s:
            self._draw()

    def job_ended(self, arm: str, seed: int, state: str, message: str) -> None:
        """See ``Display``."""
        self._progress.end(arm, seed, state, message)
        self._draw()

    def note(self, text: str) -> None:
        """See ``Display``."""
        self._console.print(Text(text))

    def close(self) -> None:
        """See ``Display``."""
        if self._live.is_started:
            self._draw()
            self._live.stop()

    def _draw(self) -> None:
        now_s = self._progress.now()
        self._due_s = now_s + self._every_s
        wide = self._console.width >= WIDE
        table = Table.grid(padding=(0, 2))
        for _ in range(7 if wide else 6):
            table.add_column(no_wrap=True)
        before, shown, after = self._window()
        for job in shown:
            table.add_row(*_row(job, now_s, with_bar=wide))
        total = f"elapsed {duration(now_s - self._progress.started_s)}"
        folded = [f"{count} {where}" for count, where in ((before, "above"), (after, "below")) if count]
        parts = [total, self._progress.remaining(), f"({', '.join(folded)})" if folded else ""]
        self._live.update(Group(table, Text("  ".join(part for part in parts if part))), refresh=True)

    def _window(self) -> tuple[int, list[Job], int]:
        """How many jobs are left out above, those that fit (the running one is there), how many below."""
        jobs = list(self._progress.jobs.values())
        height = max(1, self._console.height - 4)
        ended = sum(job.ended_s is not None for job in jobs)
        first = max(0, min(ended - height // 2, len(jobs) - height))
        shown = jobs[first : first + height]
        return first, shown, len(jobs) - first - len(shown)


def _row(job: Job, now_s: float, *, with_bar: bool) -> list[str | Text | ProgressBar]:
    # Text, so that square brackets in a name or message are not read as markup.
    cells: list[str | Text | ProgressBar] = [Text(job.arm), f"seed {job.seed}"]
    if job.state == "waiting":
        return [*cells, Text("waiting", style="dim")]
    if with_bar:
        cells.append(ProgressBar(total=max(1, job.max_rounds), completed=job.slowest, width=20))
    reason = f": {job.message.splitlines()[0]}" if job.message else ""
    state = Text(f"{job.state}{reason}", style="" if job.state in ("running", "done") else "bold red")
    return [*cells, f"round {job.span()}", duration(job.elapsed_s(now_s)), Text(job.quality()), state]


def make_display(stream: TextIO) -> Display:
    """A ``LiveDisplay`` where ``stream`` is a terminal that can move its cursor, else a ``PlainDisplay``.

    ``NO_COLOR`` takes the colours away and ``TERM=dumb`` the live table.
    """
    if not stream.isatty() or os.environ.get("TERM", "dumb") in ("dumb", "unknown", ""):
        return PlainDisplay(stream)
    return LiveDisplay(Console(file=stream, no_color=bool(os.environ.get("NO_COLOR"))))
