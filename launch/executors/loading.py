"""How agents come to have a job's data in memory, all the same, before any of them forks."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from decentral.disk import unwritable
from decentral.errors import DataError, PreflightError, RunFailed
from decentral.messages import RUN_ID_BYTES
from launch.agreement import Difference, Sample, differences
from launch.compose import compose
from launch.display import Display
from launch.executors.base import Job
from launch.executors.line import Line
from launch.files import contents
from launch.placement import Placement


class Loading:
    """The first stage of a job.

    Args:
        lines: one per host that takes part, by its name.
        job: the job.
        placement: who is where.
        display: hears of it.
        nominal_ns: what a round was found to compute, where the job goes on; None: what the arm says.
        lost: called with a line whose agent does not answer, and why.
        told: which notes on hosts that round otherwise the user has read in earlier jobs; added to.
    """

    def __init__(
        self,
        lines: Mapping[str, Line],
        job: Job,
        placement: Placement,
        *,
        display: Display,
        nominal_ns: int | None,
        lost: Callable[[Line, str], None],
        told: set[str] | None = None,
    ) -> None:
        self._lines = lines
        self._job = job
        self._placement = placement
        self._display = display
        self._nominal_ns = nominal_ns
        self._lost = lost
        self._told = set() if told is None else told
        self._measured = compose(job.arm, job.seed).measured and nominal_ns is None
        self._unloaded = set(lines)
        self._samples: dict[str, Sample] = {}
        self._probe = job.folder.path / ".probe"
        self._shared: dict[str, Any] = {}
        self._files: dict[str, bytes] = {}

    @property
    def complete(self) -> bool:
        """True once every agent has the data."""
        return not self._unloaded

    def begin(self) -> None:
        """Order it; where a round's time is to be measured, of the timekeeper's host first.

        Raises:
            PreflightError: the run folder cannot be written, or its copy of a file is gone; names it.
        """
        text = secrets.token_hex(16)
        try:
            self._probe.parent.mkdir(parents=True, exist_ok=True)
            self._probe.write_text(text, encoding="utf-8")
        except OSError as error:
            raise unwritable(self._probe, error) from error
        if any(line.remote for line in self._lines.values()):
            try:
                self._files = contents(self._job.arm)
            except DataError as error:
                raise PreflightError(str(error)) from error
        resumed = self._job.resumed
        self._shared = {
            "arm": self._job.arm.model_dump_json(),
            "seed": self._job.seed,
            "run": secrets.token_bytes(RUN_ID_BYTES),
            "folder": str(self._job.folder.path),
            "probe": {"path": str(self._probe), "text": text},
            "several": len(self._lines) > 1,
            "resume": None if resumed is None else resumed.number,
        }
        timekeeper = self._placement.host_of[max(self._placement.host_of)]
        for name in [timekeeper] if self._measured else list(self._lines):
            self._order(name, self._nominal_ns)

    def loaded(self, name: str, measured_ns: int | None, sample: Sample) -> None:
        """The agent of ``name`` has the data, and what it measured is told to the others."""
        self._samples[name] = sample
        if self._measured and len(self._unloaded) == len(self._lines):
            for other in self._unloaded - {name}:
                self._order(other, measured_ns)
        self._unloaded.discard(name)

    def disagreement(self) -> Difference | None:
        """A host that holds other data; those that only round otherwise are shown once."""
        samples = {name: self._samples[name] for name in self._lines}  # not by who was first
        for difference in differences(samples):
            if difference.fatal:
                return difference
            if difference.what not in self._told:
                self._told.add(difference.what)
                self._display.note(difference.what)
        return None

    def end(self) -> None:
        """The job is over."""
        with suppress(OSError):  # a disk that has become read-only is no cause of its own here
            self._probe.unlink()

    def _order(self, name: str, measured_ns: int | None) -> None:
        line = self._lines[name]
        members = self._placement.members_on(name)
        self._display.host(name, "loading")
        offset_ns = 0
        if self._job.arm.run.clock == "wall" and line.remote:
            try:
                offset_ns = line.measure_clock()
                known_ms = 1000 * line.facts["clock_error_s"]
                self._display.note(f"host {name}: its clock is known to {known_ms:.2f} ms")
            except RunFailed as silence:
                self._lost(line, str(silence))
                return
        line.order(
            "load",
            members=members,
            cores=[self._placement.core_of[member] for member in members],
            measured_ns=measured_ns,
            clock_offset_ns=offset_ns,
            files=self._files if line.remote else {},
            **self._shared,
        )
