"""A task that takes its time, used as a third-party part (``tests.integration.leisurely:Leisurely``)."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from decentral.arrays import IntArray
from decentral.tasks.base import Poll, Sgd
from decentral.tasks.quadratic import LoadedQuadratic, Quadratic, QuadraticLearner

PAUSE_S = 0.05
"""Real seconds that every call of ``train`` takes at least."""


@dataclass(frozen=True, kw_only=True)
class Leisurely(Quadratic):
    """Quadratics whose training takes real time, so that what befalls a run does so in the middle of it.

    A run that is only long in steps is over before its launcher has looked at it, on a machine that is fast
    enough.
    """

    def load(self) -> LoadedQuadratic:
        """The same rows."""
        loaded = super().load()
        return _Loaded(loaded.matrix, loaded.optima, self.noise)


class _Loaded(LoadedQuadratic):
    def learner(self, shard: IntArray, sgd: Sgd) -> QuadraticLearner:
        return _Learner(self.matrix, self.optima[shard], sgd, self._noise)


class _Learner(QuadraticLearner):
    def train(self, steps: int, rng: np.random.Generator, poll: Poll | None = None) -> float:
        time.sleep(PAUSE_S)
        return super().train(steps, rng, poll)
