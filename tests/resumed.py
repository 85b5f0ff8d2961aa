"""Runs that are killed right after a checkpoint and go on from it, inline, and what must be equal then."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from decentral.arrays import FloatArray
from decentral.config import Arm
from launch import checkpoints
from launch.executors import inline_checkpoints
from launch.executors.base import Interruption, Job
from launch.executors.inline import InlineExecutor
from launch.executors.inline_checkpoints import InlineCheckpoints
from launch.paths import JobFolder
from tests.harness import SilentDisplay, events

REAL = ("wall_s", "run", "pid", "start_unix_s", "cpu_s", "core")
"""Fields of logs that tell of real time and processes."""


class Killed(BaseException):
    """Nothing catches it, as nothing catches a power cut."""


class At:
    """A checkpoint is due at the given numbers of times that time could have gone on; counts them.

    Args:
        moments: the numbers, from 1.
    """

    least = 0

    def __init__(self, moments: Sequence[int]) -> None:
        self.count = 0
        self._moments = set(moments)

    def progress(self, node: int, round_: int) -> None:
        """Rounds do not matter."""

    def due(self, now_s: float) -> bool:
        """Whether this is one of the moments."""
        self.count += 1
        return self.count in self._moments


def play(
    arm: Arm, folder: JobFolder, moments: Sequence[int], monkeypatch: pytest.MonkeyPatch, *, kill: bool
) -> tuple[FloatArray | None, int]:
    """Run ``arm`` in ``folder``, from its newest checkpoint if it has one.

    Args:
        arm: with checkpoints.
        folder: of the job.
        moments: when checkpoints are made (``At``).
        monkeypatch: puts ``At`` in place.
        kill: end the run at once after the last of them.

    Returns:
        Final models, shape (n, d), or None if it was killed; and how often time could have gone on.
    """
    due = At(moments)
    left = len(moments)
    save = InlineCheckpoints.save

    def save_and_end(made: InlineCheckpoints) -> None:
        nonlocal left
        save(made)
        left -= 1
        if not left and kill:
            raise Killed

    found, problems = checkpoints.newest(folder)
    assert not problems
    if found is not None:
        checkpoints.cut_logs(folder, found)
    executor = InlineExecutor()
    with monkeypatch.context() as patched, Interruption().installed() as interruption:
        patched.setattr(inline_checkpoints, "Due", lambda n, **_: due)
        patched.setattr(InlineCheckpoints, "save", save_and_end)
        try:
            outcome = executor.run(Job(arm, 1, folder, found), SilentDisplay(), interruption)
        except Killed:
            return None, due.count
        finally:
            executor.close()
    assert outcome.state == "done", outcome.cause
    return np.stack([np.load(folder.model(i)) for i in range(arm.nodes)]), due.count


def logged(folder: JobFolder, ignored: Sequence[str] = REAL) -> list[dict[str, Any]]:
    """All events of all logs without what is of real time."""
    paths = [*sorted(folder.path.glob("nodes/*.jsonl")), folder.metrics, folder.network]
    return [
        {"log": path.name, **{key: value for key, value in event.items() if key not in ignored}}
        for path in paths
        for event in events(path)
    ]
