"""A task whose nodes do not train: what is left is the network (``train.mode = "none"``).

Every node holds a short random vector in place of its model, which is cut into as many fragments as the
model would be. Algorithms exchange these fragments exactly as a model's; on the emulated wire and in every
count of bytes each weighs what the model's weighs. Emulated time does not depend on what training finds, so
the schedule and the traffic are those of the trained run, without its data, its memory and its time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, nan, prod
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from decentral.arrays import AnyArray, FloatArray, IntArray, aligned
from decentral.fragments import Fragmenter
from decentral.messages import Message
from decentral.seeding import Seeds
from decentral.tasks.base import Examples, Metric, Poll, Scores, Sgd, Shapes, Split, Task, size_of

LEAST_LENGTH = 64
"""Entries of a vector at least: consensus distances then scatter by about a tenth between draws."""
FLOAT_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class Untrained:
    """``task`` without training; a ``decentral.tasks.base.Task`` that no data set is needed for.

    Args:
        task: what would be trained; only its shapes are used.
        n: number of nodes.
        fragmenter: how its model is cut.
        seeds: the run's streams; node i's vector is stream ``vector`` at i, standard normal.
    """

    task: Task
    n: int
    fragmenter: Fragmenter
    seeds: Seeds

    metric: ClassVar[Metric] = Metric("distance", higher_is_better=False)
    """Euclidean distance of a vector to the mean of all nodes' initial ones."""

    def check(self) -> None:
        """Nothing is needed."""

    def shapes(self) -> Shapes:
        """Those of the model that the vectors stand for."""
        return self.task.shapes()

    def load(self) -> LoadedUntrained:
        """Draw the vectors.

        Raises:
            ConfigError: the model cannot be cut so.
        """
        count = self.fragmenter.count
        length = ceil(LEAST_LENGTH / count)
        # One tensor, so that maps by tensor give every fragment the same; a map of whole tensors needs some.
        sizes = (length,) * count if self.fragmenter.map == "per_layer" else (count * length,)
        vectors = np.stack(
            [self.seeds.rng("vector", node).standard_normal(sum(sizes)) for node in range(self.n)]
        ).astype(np.float32)
        cut = self.fragmenter.split([prod(shape) for _, shape in self.shapes()])
        fragment_bytes = [FLOAT_BYTES * cut.indices(k).size for k in range(len(cut))]
        return LoadedUntrained(vectors, sizes, fragment_bytes, FLOAT_BYTES * size_of(self.shapes()))


class LoadedUntrained:
    """The vectors of all nodes; a ``decentral.tasks.base.LoadedTask`` without rows.

    Args:
        vectors: initial ones, shape (n, entries), float32.
        sizes: of the tensors that a vector consists of.
        fragment_bytes: payload of each fragment of the model.
        model_bytes: payload of a whole model.
    """

    def __init__(
        self, vectors: FloatArray, sizes: tuple[int, ...], fragment_bytes: list[int], model_bytes: int
    ) -> None:
        self.sizes = sizes
        self.vectors = vectors
        self._entries = sum(sizes)
        self._fragment_bytes = fragment_bytes
        self._model_bytes = model_bytes
        self._mean: NDArray[np.float64] = vectors.mean(axis=0, dtype=np.float64)

    @property
    def examples(self) -> Examples:
        """None."""
        return Examples(count=0)

    def payload_bytes(self, message: Message) -> int:
        """What a message with the same part of a model weighs; map sizes do not depend on the map's draw."""
        if message.values.size == self._entries:
            return self._model_bytes
        return self._fragment_bytes[message.fragment]

    def initial(self, seed: int) -> FloatArray:
        """Standard normal, shape (entries,); nodes start from ``vectors`` instead."""
        return Seeds(seed).rng("vector").standard_normal(self._entries).astype(np.float32)

    def learner(self, shard: IntArray, sgd: Sgd) -> UntrainedLearner:
        """A learner that learns nothing."""
        return UntrainedLearner(self._entries)

    def rows(self, split: Split) -> int:
        """None."""
        return 0

    def local_rows(self, split: Split, shard: IntArray) -> IntArray:
        """None."""
        return np.empty(0, dtype=np.int64)

    def evaluate(self, x: FloatArray, split: Split, rows: IntArray | None = None) -> Scores:
        """Distance of ``x`` to the mean of all initial vectors, as metric and as loss."""
        distance = float(np.sqrt(np.square(x - self._mean).sum()))
        return {"loss": distance, "distance": distance}


class UntrainedLearner:
    """Holds a vector and leaves it as it is; a ``decentral.tasks.base.Learner``.

    Args:
        entries: length of the vector.
    """

    def __init__(self, entries: int) -> None:
        self._x = aligned(entries)

    @property
    def x(self) -> FloatArray:
        """The live vector, shape (entries,)."""
        return self._x

    def state(self) -> dict[str, AnyArray]:
        """Nothing."""
        return {}

    def restore(self, state: Mapping[str, AnyArray]) -> None:
        """Nothing to take on."""

    def train(self, steps: int, rng: np.random.Generator, poll: Poll | None = None) -> float:
        """Do nothing; there is no training loss, so NaN."""
        return nan
