"""What a node is followed by: who scores it, who hears of its progress, and when it stops."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from decentral.arrays import FloatArray
from decentral.network.model import INFINITE_NS
from decentral.records import Value
from decentral.tasks.base import Scores


class TimeIsUp(Exception):
    """The run's time limit was reached inside a round, which therefore does not count. Not an error."""


class RoundsAreOver(Exception):
    """A node is resumed that had ended its rounds and was serving others. Not an error."""


class Evaluation(Protocol):
    """Scores a model at an evaluation point, off the clock."""

    def score(self, x: FloatArray, *, final: bool) -> tuple[Scores, dict[str, Value]]:
        """Scores on the curve's fixed subset, or on everything if ``final``; and what to log beside them."""
        ...


class Listener(Protocol):
    """Who follows the run: progress for a display, liveness for a supervisor."""

    def progress(self, node: int, round_: int, train_loss: float | None) -> None:
        """A local round is finished."""
        ...

    def evaluated(self, node: int, round_: int, scores: Scores) -> None:
        """An evaluation is finished."""
        ...


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """When a node stops and when it is evaluated.

    Args:
        max_rounds: T, local rounds to run; None: until the time limit.
        test_after: evaluate after every so many rounds; the first and the last state always are.
        test_every_ns: instead, evaluate at the end of the first round that ends at or after 1, 2, ... times
            this: nodes of asynchronous algorithms do different numbers of rounds in the same time.
        limit_ns: no round starts at or after this time; those of synchronous algorithms count only if they
            are over by then.
    """

    max_rounds: int | None
    test_after: int
    limit_ns: int = INFINITE_NS
    test_every_ns: int | None = None

    def due(self, finished: int, now_ns: int, before_ns: int) -> bool:
        """Whether a node is evaluated that finished ``finished`` rounds at ``now_ns``, the last but one at
        ``before_ns``."""
        if self.test_every_ns is None:
            return finished % self.test_after == 0
        return now_ns // self.test_every_ns > before_ns // self.test_every_ns
