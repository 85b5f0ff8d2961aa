"""A task that takes its time, used as a third-party part (``tests.integration.leisurely:Leisurely``).

A run that is only long in steps is over before its launcher has looked at it, on a machine that is fast.
One of this task goes on until the test has struck, on any machine: the test names a file that is not there,
strikes when it likes, and creates the file, whereupon the rest runs at full speed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge

from decentral.arrays import IntArray
from decentral.tasks.base import Poll, Sgd
from decentral.tasks.quadratic import LoadedQuadratic, Quadratic, QuadraticLearner

PAUSE_S = 0.05
"""Real seconds that a call of ``train`` takes at least."""
LIMIT_S = 300.0
"""For how long a brake may be on: whoever forgot to take it off is told, instead of waiting for ever."""


@dataclass(frozen=True, kw_only=True)
class Leisurely(Quadratic):
    """Quadratics whose training takes real time; the models are those of ``quadratic``.

    Args:
        brake: path of a file; training takes its time only while there is none. "" is always.
        hold_at: with a brake, the call of ``train`` (a node's first is 1) in which a node waits for the file,
            so that the run goes no further. Calls before it take ``PAUSE_S``.
    """

    brake: str = ""
    hold_at: Annotated[int, Ge(1)] = 1_000_000_000

    def load(self) -> LoadedQuadratic:
        """The same rows."""
        loaded = super().load()
        brake = Path(self.brake) if self.brake else None
        return _Loaded(loaded, self.noise, lambda: _Brake(brake, self.hold_at))


def braked(brake: Path, hold_at: int | None = None) -> dict[str, Any]:
    """``data`` of an arm (tests/harness.py) whose training takes its time until ``brake`` is there.

    ``brake.touch()`` lets it go on at full speed.
    """
    settings: dict[str, Any] = {"brake": str(brake)}
    if hold_at is not None:
        settings["hold_at"] = hold_at
    name = "tests.integration.leisurely:Leisurely"
    return {"name": name, "partition": {"name": "iid"}, "settings": settings}


class _Brake:
    """One learner's.

    Raises:
        TimeoutError: by ``wait``, if it is on for ``LIMIT_S``.
    """

    def __init__(self, path: Path | None, hold_at: int) -> None:
        self._path, self._hold_at = path, hold_at
        self._calls = 0
        self._off = False
        self._until_s = time.monotonic() + LIMIT_S

    def wait(self) -> None:
        """What a call of ``train`` waits before it does anything."""
        self._calls += 1
        while not self._off:
            if self._path is None:
                time.sleep(PAUSE_S)
                return
            self._off = self._path.exists()
            if self._off:
                return
            if time.monotonic() > self._until_s:
                raise TimeoutError(f"nobody created {self._path} within {LIMIT_S:g} s")
            time.sleep(PAUSE_S)
            if self._calls < self._hold_at:
                return


class _Loaded(LoadedQuadratic):
    def __init__(self, loaded: LoadedQuadratic, noise: float, brake: Callable[[], _Brake]) -> None:
        super().__init__(loaded.matrix, loaded.optima, noise)
        self._brake = brake

    def learner(self, shard: IntArray, sgd: Sgd) -> QuadraticLearner:
        return _Learner(self.matrix, self.optima[shard], sgd, self._noise, self._brake())


class _Learner(QuadraticLearner):
    def __init__(self, matrix: Any, optima: Any, sgd: Sgd, noise: float, brake: _Brake) -> None:
        super().__init__(matrix, optima, sgd, noise)
        self._brake = brake

    def train(self, steps: int, rng: np.random.Generator, poll: Poll | None = None) -> float:
        self._brake.wait()
        return super().train(steps, rng, poll)
