"""What a session asks of an executor: run one job, tell the display, say how it ended."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Protocol

from decentral.config import Arm
from launch.checkpoints import Checkpoint
from launch.display import Display
from launch.losses import Loss
from launch.paths import JobFolder
from launch.supervisor import JobState


@dataclass(frozen=True)
class Job:
    """One arm with one seed.

    ``resumed`` is the checkpoint that it goes on from, to which its logs have been cut; None: from the start.
    """

    arm: Arm
    seed: int
    folder: JobFolder
    resumed: Checkpoint | None = None


@dataclass(frozen=True)
class Outcome:
    """How a job ended: ``done``, ``failed`` or ``interrupted``, the first cause, and the exit code for it.

    ``distrust`` says why a run in real time is not to be trusted (``decentral.fidelity``); ``placement``, by
    host, which nodes ran there, e.g. ``0-15, 20``; it is empty where none did; ``lost``, which nodes the
    others went on without.
    """

    state: JobState
    cause: str | None = None
    exit_code: int = 0
    distrust: tuple[str, ...] = ()
    placement: Mapping[str, str] = field(default_factory=dict)
    lost: tuple[Loss, ...] = ()


class Interruption:
    """SIGINT and SIGTERM as a flag and a readable file descriptor, instead of an exception anywhere.

    The first signal asks for an orderly end, the second for an immediate one.
    """

    def __init__(self) -> None:
        self.count = 0
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._callback: Callable[[], None] | None = None

    def fileno(self) -> int:
        """Readable from the first signal on."""
        return self._read

    @contextmanager
    def calling(self, callback: Callable[[], None]) -> Iterator[None]:
        """Inside the block the signal handler calls ``callback`` too; at once if a signal came before."""
        self._callback = callback
        try:
            if self.count:
                callback()
            yield
        finally:
            self._callback = None

    def drain(self) -> None:
        """Make ``fileno`` unreadable until the next signal."""
        os.read(self._read, 64)

    @contextmanager
    def installed(self) -> Iterator[Interruption]:
        """Handlers are in place inside the block; main thread only."""
        before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(self._read)
            os.close(self._write)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        os.write(self._write, b"!")
        if self._callback is not None:
            self._callback()


class Executor(Protocol):
    """Runs jobs one after the other."""

    def run(self, job: Job, display: Display, interruption: Interruption) -> Outcome:
        """Run ``job`` to its end, after which nothing of it runs; never raises for what a node does."""
        ...

    def close(self) -> None:
        """End whatever this executor started."""
        ...
