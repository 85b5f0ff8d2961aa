"""A live table of a running experiment, redrawn in place."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from launch.progress import Job, Now, Progress, duration

WIDE = 100
"""Columns from which on there is room for a bar beside the numbers."""


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
        """See ``launch.display.Display``."""
        self._progress.plan(jobs, nodes, max_rounds)
        self._live.start()
        self._draw()

    def job_started(self, arm: str, seed: int, nodes: int, max_rounds: int) -> None:
        """See ``launch.display.Display``."""
        self._progress.start(arm, seed, nodes, max_rounds)
        self._draw()

    def progress(self, node: int, round: int, train_loss: float | None) -> None:
        """See ``launch.display.Display``."""
        self._progress.progress(node, round, train_loss)
        self.tick()

    def hosts(self, members: Mapping[str, Sequence[int]]) -> None:
        """See ``launch.display.Display``."""
        self._progress.placed(members)
        self._draw()

    def host(self, name: str, state: str | None, alive: int | None = None) -> None:
        """See ``launch.display.Display``."""
        if self._progress.host(name, state, alive):
            self._draw()

    def heard(self, name: str) -> None:
        """See ``launch.display.Display``."""

    def stalled(self, member: int, what: str | None, for_s: float) -> None:
        """See ``launch.display.Display``."""
        self._progress.stalled(member, what, for_s)
        self._draw()

    def lost(self, node: int) -> None:
        """See ``launch.display.Display``."""
        self._progress.lost(node)
        self._draw()

    def tick(self) -> None:
        """See ``launch.display.Display``."""
        if self._progress.now() >= self._due_s:
            self._draw()

    def evaluated(self, node: int, round: int, metric: str, score: float, loss: float) -> None:
        """See ``launch.display.Display``."""
        self._progress.evaluated(node, round, metric, score)
        self.tick()

    def job_ended(self, arm: str, seed: int, state: str, message: str) -> None:
        """See ``launch.display.Display``."""
        self._progress.end(arm, seed, state, message)
        self._draw()

    def note(self, text: str) -> None:
        """See ``launch.display.Display``."""
        self._console.print(Text(text))

    def close(self) -> None:
        """See ``launch.display.Display``."""
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
        below = self._below()
        before, shown, after = self._window(len(below))
        for job in shown:
            table.add_row(*_row(job, now_s, with_bar=wide))
        total = f"elapsed {duration(now_s - self._progress.started_s)}"
        folded = [f"{count} {where}" for count, where in ((before, "above"), (after, "below")) if count]
        parts = [total, self._progress.remaining(), f"({', '.join(folded)})" if folded else ""]
        lines = [*below, Text("  ".join(part for part in parts if part))]
        self._live.update(Group(table, *lines), refresh=True)

    def _below(self) -> list[Text]:
        """A line for every host, where there are several, and for every process that does not go on."""
        hosts = [Text(f"  {line}") for line in self._progress.host_lines()]
        return hosts + [Text(f"  {line}", style="bold yellow") for line in self._progress.stall_lines()]

    def _window(self, taken: int) -> tuple[int, list[Job], int]:
        """How many jobs are left out above, those that fit (the running one is there), how many below."""
        jobs = list(self._progress.jobs.values())
        height = max(1, self._console.height - 4 - taken)
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
