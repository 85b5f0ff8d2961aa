"""The launcher's part in checkpoints: when they are made, and what hosts need to go on from one."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from decentral.errors import PreflightError
from launch.checkpoints import LIST, numbers
from launch.collect import PIECE_BYTES
from launch.due import Due
from launch.executors.base import Job
from launch.executors.line import Line
from launch.keeping import forget_old, last_whole, make_sure
from launch.paths import CHECKPOINTS
from launch.placement import Placement


class Checkpoints:
    """Those of one job.

    Args:
        job: the job.
        lines: of its hosts.
        placement: who is where.
        now_s: real seconds.
    """

    def __init__(
        self,
        job: Job,
        lines: Mapping[str, Line],
        placement: Placement,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        asked, resumed = job.arm.checkpoint, job.resumed
        self._job = job
        self._lines = lines
        self._placement = placement
        self._now_s = now_s
        self._apart: set[str] = set()
        rounds = 0 if resumed is None else resumed.rounds
        self._due = Due(job.arm.nodes, every=asked.every, every_s=asked.every_s, rounds=rounds)
        self._number = max(numbers(job.folder), default=0)
        self._making = True
        self._least = self._synced = 0
        self._ended = False

    def begin(self) -> None:
        """All members run: from now on one can be made."""
        self._making = False

    def progress(self, node: int, round_: int) -> None:
        """A node has finished so many rounds."""
        if node < self._job.arm.nodes:
            self._due.progress(node, round_)

    def look(self) -> None:
        """To be called every now and then: has one made when it is due, one at a time."""
        if not self._making and not self._ended and self._due.due(self._now_s()):
            self._making = True
            self._number += 1
            timekeeper = self._job.arm.nodes + 1
            line = self._lines[self._placement.host_of[timekeeper]]
            line.order(
                "tell", member=timekeeper, words=["checkpoint", self._number, self._due.least, self._least]
            )

    def end(self) -> None:
        """A node is lost: what would be saved now would lack it."""
        self._ended = True

    def saved(self, number: int) -> None:
        """One has been made: what is too old is removed here as it is where it was made.

        Raises:
            PreflightError: what was sent of it cannot be kept.
        """
        self._making = False
        folder = self._job.folder
        kept = last_whole(folder)
        if self._apart:  # members here have synced what they wrote; what was sent has been written here
            for each in kept:
                if each.number > self._synced:
                    make_sure(folder, each)
                    self._synced = each.number
        self._least = max(self._least, forget_old(folder, kept))

    def forgotten(self, path: str) -> bool:
        """Whether a piece of a file belongs to a checkpoint that has been removed since."""
        parts = path.split("/")
        return parts[0] == CHECKPOINTS and parts[1].isdecimal() and int(parts[1]) < self._least

    @property
    def nominal_ns(self) -> int | None:
        """What a round was found to compute before the job was resumed; None at the beginning."""
        return None if self._job.resumed is None else self._job.resumed.nominal_ns

    def apart(self, host: str) -> None:
        """``host`` does not see the run folder."""
        self._apart.add(host)

    def is_apart(self, host: str) -> bool:
        """Whether what ``host`` writes has to be sent here."""
        return host in self._apart

    def bring(self, host: str) -> None:
        """Send a host what its members go on from, if it does not see the run folder.

        Raises:
            PreflightError: a file cannot be read.
        """
        checkpoint, base = self._job.resumed, self._job.folder.path
        if checkpoint is None or host not in self._apart:
            return
        members = self._placement.members_on(host)
        entries = [entry for entry in checkpoint.entries if entry.member in members]
        paths = [checkpoint.folder / LIST, *(checkpoint.folder / entry.name for entry in entries)]
        # What its processes printed too: it is appended to, and what is here replaced by what is there.
        logs = [base / entry.log for entry in entries] + [self._job.folder.log(host)]
        for path in [*paths, *logs]:
            _send(self._lines[host], path, path.relative_to(base).as_posix())


def _send(line: Line, path: Path, name: str) -> None:
    try:
        with path.open("rb") as file:
            offset = 0
            while piece := file.read(PIECE_BYTES):
                line.order("put", path=name, offset=offset, data=piece)
                offset += len(piece)
    except FileNotFoundError:
        return  # a log in which nothing was written yet
    except OSError as error:
        raise PreflightError(f"cannot read {path} to resume from it: {error.strerror}") from error
