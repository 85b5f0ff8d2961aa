"""``live.json``: what a running experiment says of itself, so that another terminal can look on.

A small file in the run folder, rewritten whole about once a second while the run lives and removed at its
end. Who reads it costs the run nothing and needs no socket.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from decentral.errors import PreflightError
from launch.display import Display
from launch.paths import RunFolder
from launch.progress import Job, Now, Progress

LIVE = "live.json"
LIVE_VERSION = 1


class LiveFile(Display):
    """Passes on to a display what a run tells it, and keeps ``live.json`` meanwhile.

    Args:
        folder: the run folder.
        display: hears everything first.
        every_s: least seconds between two versions of the file.
        now: seconds since 1970.
    """

    def __init__(
        self, folder: RunFolder, display: Display, every_s: float = 1.0, now: Now = time.time
    ) -> None:
        self._folder = folder
        self._display = display
        self._every_s = every_s
        self._progress = Progress(now)
        self._due_s = 0.0
        self._closed = self._noted = False
        self._stalls: list[dict[str, Any]] = []

    def plan(self, jobs: Sequence[tuple[str, int]], nodes: int, max_rounds: int) -> None:
        """See ``Display``."""
        self._display.plan(jobs, nodes, max_rounds)
        self._progress.plan(jobs, nodes, max_rounds)
        self._write()

    def job_started(self, arm: str, seed: int, nodes: int, max_rounds: int) -> None:
        """See ``Display``."""
        self._display.job_started(arm, seed, nodes, max_rounds)
        self._progress.start(arm, seed, nodes, max_rounds)
        self._stalls = []
        self._write()

    def hosts(self, members: Mapping[str, Sequence[int]]) -> None:
        """See ``Display``."""
        self._display.hosts(members)
        self._progress.placed(members)
        self._write()

    def host(self, name: str, state: str | None, alive: int | None = None) -> None:
        """See ``Display``."""
        self._display.host(name, state, alive)
        if self._progress.host(name, state, alive):
            self._write()
        self._write_if_due()

    def heard(self, name: str) -> None:
        """See ``Display``."""
        self._display.heard(name)
        self._progress.heard(name)

    def stalled(self, member: int, what: str | None, for_s: float) -> None:
        """See ``Display``."""
        self._display.stalled(member, what, for_s)
        self._end_stall(member)
        self._progress.stalled(member, what, for_s)
        self._write()

    def lost(self, node: int) -> None:
        """See ``Display``."""
        self._display.lost(node)
        self._end_stall(node)
        self._progress.lost(node)
        self._write()

    def tick(self) -> None:
        """See ``Display``."""
        self._display.tick()
        self._write_if_due()

    def progress(self, node: int, round: int, train_loss: float | None) -> None:
        """See ``Display``."""
        self._display.progress(node, round, train_loss)
        self._progress.progress(node, round, train_loss)
        self._write_if_due()

    def evaluated(self, node: int, round: int, metric: str, score: float, loss: float) -> None:
        """See ``Display``."""
        self._display.evaluated(node, round, metric, score, loss)
        self._progress.evaluated(node, round, metric, score)
        self._write_if_due()

    def job_ended(self, arm: str, seed: int, state: str, message: str) -> None:
        """See ``Display``."""
        self._display.job_ended(arm, seed, state, message)
        for member in list(self._progress.running.stalls) if self._progress.running else ():
            self._end_stall(member)
        self._progress.end(arm, seed, state, message)
        self._write()

    def note(self, text: str) -> None:
        """See ``Display``."""
        self._display.note(text)

    def close(self) -> None:
        """See ``Display``; the file is gone afterwards."""
        self._display.close()
        self._closed = True
        with suppress(OSError):  # it is out of date by itself once the launcher is gone
            (self._folder.path / LIVE).unlink()

    @property
    def stalls(self) -> list[dict[str, Any]]:
        """The stalls of the job that ended last, for the manifest: member, name, what, since_s, for_s."""
        return self._stalls

    def _end_stall(self, member: int) -> None:
        job, now_s = self._progress.running, self._progress.now()
        stall = job.stalls.get(member) if job is not None else None
        if stall is not None:
            self._stalls.append(
                {**self._stall(member), "since_s": stall.since_s, "for_s": round(now_s - stall.since_s, 1)}
            )

    def _stall(self, member: int) -> dict[str, Any]:
        job = self._progress.running
        what = job.stalls[member].what if job is not None else ""
        return {"member": member, "name": self._progress.name(member), "what": what}

    def _write_if_due(self) -> None:
        if self._progress.now() >= self._due_s:
            self._write()

    def _write(self) -> None:
        if self._closed:
            return
        self._due_s = self._progress.now() + self._every_s
        try:
            self._folder.write_json(LIVE, self._content())
        except PreflightError as error:  # to look on must not end the run; that its logs fail will
            if not self._noted:
                self._noted = True
                self._display.note(f"decentral status may not know how far this run is: {error}")

    def _content(self) -> dict[str, Any]:
        jobs, job = self._progress.jobs, self._progress.running
        return {
            "v": LIVE_VERSION,
            "written_s": self._progress.now(),
            "jobs": len(jobs),
            "ended": sum(other.ended_s is not None for other in jobs.values()),
            "job": None if job is None else self._job(job),
        }

    def _job(self, job: Job) -> dict[str, Any]:
        score = None if job.score is None else dict(zip(("metric", "value", "round"), job.score, strict=True))
        return {
            "arm": job.arm,
            "seed": job.seed,
            "started_s": job.started_s,
            "max_rounds": job.max_rounds,
            "score": score,
            "rounds": job.rounds,
            "lost": sorted(job.lost),
            "hosts": [
                {
                    "name": name,
                    "state": host.state,
                    "members": len(host.members),
                    "alive": host.alive,
                    "nodes": list(host.nodes),
                    "slowest": min(job.rounds_of(host.nodes), default=None),
                    "fastest": max(job.rounds_of(host.nodes), default=None),
                    "heard_s": host.heard_s,
                }
                for name, host in job.hosts.items()
            ],
            "stalls": [{**self._stall(m), "since_s": stall.since_s} for m, stall in job.stalls.items()],
        }


def live_path(run: Path) -> Path:
    """Where a run folder's ``live.json`` is while the run lives."""
    return run / LIVE
