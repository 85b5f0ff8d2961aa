"""What nodes learn: data, model and loss behind three small interfaces.

``Task`` is a cheap, frozen description made from the ``[data]`` table: it can be checked, and asked for
its parameter count, without torch and without reading the data. ``Task.load`` gives the ``LoadedTask``:
data mapped read-only, made once per host before nodes are forked, so that all of them share its memory.
``LoadedTask.learner`` gives each node its ``Learner``, which trains that node's flat model in place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np

from decentral.arrays import AnyArray, FloatArray, IntArray

Split: TypeAlias = Literal["train", "test"]
Shapes: TypeAlias = tuple[tuple[str, tuple[int, ...]], ...]
Scores: TypeAlias = Mapping[str, float]
Poll: TypeAlias = Callable[[], None]
"""Called between SGD steps: a node that trains still does what others wait for."""


@dataclass(frozen=True)
class Metric:
    """The score by which a task is judged: a key of ``Scores`` and its direction."""

    name: str
    higher_is_better: bool


@dataclass(frozen=True)
class Sgd:
    """Plain stochastic gradient descent, as in all the papers unless momentum or weight decay is given.

    Args:
        lr: learning rate.
        batch: mini-batch size b; the last batch of an epoch may be shorter.
        momentum: heavy-ball factor; the buffer stays on its node and is never averaged.
        weight_decay: L2 factor added to the gradient.
    """

    lr: float
    batch: int
    momentum: float = 0.0
    weight_decay: float = 0.0


@dataclass(frozen=True, eq=False)
class Examples:
    """What a partitioner may know of the training rows.

    Args:
        count: number of training rows N; rows are numbered 0..N-1.
        labels: class of every row, shape (N,), or None where there are no classes.
        groups: natural owner of every row (user, role), shape (N,), or None.
    """

    count: int
    labels: IntArray | None = None
    groups: IntArray | None = None


@runtime_checkable
class Learner(Protocol):
    """One node's training state. Not shared, not thread-safe."""

    @property
    def x(self) -> FloatArray:
        """The live flat model, shape (d,): ``train`` changes it in place and callers may write to it."""
        ...

    def train(self, steps: int, rng: np.random.Generator, poll: Poll | None = None) -> float:
        """Run ``steps`` SGD steps on ``x`` in place and return the mean training loss over them.

        Rows are drawn without replacement in an order reshuffled from ``rng`` at every call, wrapping
        into a new epoch (reshuffled again) when exhausted (algorithms.md 1.4).

        Args:
            steps: H.
            rng: of this call.
            poll: called after every step, or every few where they take less than a millisecond; it neither
                reads nor writes ``x``.
        """
        ...


@runtime_checkable
class Resumable(Protocol):
    """A learner whose training can be resumed from a checkpoint. Required where checkpoints are asked for."""

    def state(self) -> dict[str, AnyArray]:
        """What the next ``train`` depends on besides ``x``, by name: copies; empty where there is nothing."""
        ...

    def restore(self, state: Mapping[str, AnyArray]) -> None:
        """Take on what ``state`` gave."""
        ...


@runtime_checkable
class LoadedTask(Protocol):
    """A task whose data is in memory, read-only, shared by every node forked after ``load``."""

    @property
    def examples(self) -> Examples:
        """The training rows."""
        ...

    def initial(self, seed: int) -> FloatArray:
        """A freshly drawn flat model, shape (d,), the same for the same seed."""
        ...

    def learner(self, shard: IntArray, sgd: Sgd) -> Learner:
        """A learner on the training rows ``shard``, its ``x`` all zeros until the caller fills it."""
        ...

    def rows(self, split: Split) -> int:
        """Number of rows of ``split``."""
        ...

    def local_rows(self, split: Split, shard: IntArray) -> IntArray:
        """Rows of ``split`` that belong to the owners (users, roles) of the training rows ``shard``.

        Raises:
            ConfigError: the task has no owners, so ``evaluate.scope = "local"`` means nothing.
        """
        ...

    def evaluate(self, x: FloatArray, split: Split, rows: IntArray | None = None) -> Scores:
        """Scores of flat model ``x`` on ``rows`` of ``split`` (all where None); ``x`` is not changed.

        Always has ``loss`` (mean over rows, every row weighing the same) and ``metric.name``.
        """
        ...


@runtime_checkable
class Task(Protocol):
    """Description of a task: a frozen keyword-only dataclass whose fields are the ``[data]`` keys."""

    @property
    def metric(self) -> Metric:
        """The score by which models of this task are judged."""
        ...

    def check(self) -> None:
        """Raise ``DataError`` unless everything ``load`` needs is there. Cheap; reads no whole data set."""
        ...

    def shapes(self) -> Shapes:
        """Name and shape of every parameter tensor in state-dict order, without importing torch."""
        ...

    def load(self) -> LoadedTask:
        """Read, verify and map the data. Slow the first time; once per host."""
        ...


@runtime_checkable
class Partitioner(Protocol):
    """How training rows are dealt to nodes: a frozen keyword-only dataclass of its own settings."""

    def split(self, examples: Examples, n: int, rng: np.random.Generator) -> list[IntArray]:
        """Disjoint row numbers for nodes 0..n-1, each non-empty.

        Raises:
            ConfigError: the rows cannot be dealt so (too few, no labels, no groups).
        """
        ...


def size_of(shapes: Shapes) -> int:
    """Number of parameters d."""
    return sum(prod(shape) for _, shape in shapes)
