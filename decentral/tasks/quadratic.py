"""Quadratics with one matrix and scattered optima, whose consensus theory has closed forms. numpy only.

Row r has the loss ``f_r(x) = 1/2 (x - o_r)' A (x - o_r)``; a node's loss is the mean over its rows, so its
optimum is the mean of their ``o_r``, and the global optimum is the mean of all ``o_r``. Like Mosaic's convex
experiment (algorithms.md 3.6: one A for all nodes), with two differences: the factor 1/2, so a gradient
step is ``x - lr A (x - o)`` without the paper's 2, and optima that may differ between nodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Ge
from numpy.typing import NDArray

from decentral.arrays import AnyArray, FloatArray, IntArray, aligned
from decentral.errors import ConfigError
from decentral.model import batch_rows
from decentral.seeding import Seeds
from decentral.tasks.base import Examples, Metric, Poll, Scores, Sgd, Shapes, Split


@dataclass(frozen=True, kw_only=True)
class Quadratic:
    """Minimise the mean of quadratics over rows.

    Args:
        d: number of parameters, held as two tensors of ceil(d/2) and floor(d/2) entries.
        rows: number of training rows; the test split is all of them.
        heterogeneity: standard deviation of every coordinate of a row's optimum ``o_r`` around their
            common centre; 0 gives every row the same loss.
        condition: largest over smallest eigenvalue of A; the largest is 1, the others are evenly spaced
            in the logarithm, and the eigenvectors are random.
        noise: standard deviation of the normal noise added to every coordinate of each step's gradient.
        data_seed: of A and all ``o_r``; the run's own seed does not change the problem.
    """

    d: Annotated[int, Ge(2)] = 16
    rows: Annotated[int, Ge(1)] = 1024
    heterogeneity: Annotated[float, Ge(0)] = 1.0
    condition: Annotated[float, Ge(1)] = 10.0
    noise: Annotated[float, Ge(0)] = 0.0
    data_seed: Annotated[int, Ge(0)] = 0

    @property
    def metric(self) -> Metric:
        """Euclidean distance to the global optimum."""
        return Metric("distance", higher_is_better=False)

    def check(self) -> None:
        """Nothing is needed: the data is drawn."""

    def shapes(self) -> Shapes:
        """Two tensors, so that maps by tensor have something to divide."""
        return (("first", (self.d - self.d // 2,)), ("second", (self.d // 2,)))

    def load(self) -> LoadedQuadratic:
        """Draw A and the optima."""
        draw = Seeds(self.data_seed).rng("quadratic")
        vectors, _ = np.linalg.qr(draw.standard_normal((self.d, self.d)))
        values = np.geomspace(1 / self.condition, 1, self.d)
        centre = draw.standard_normal(self.d)
        optima = centre + self.heterogeneity * draw.standard_normal((self.rows, self.d))
        return LoadedQuadratic((vectors * values) @ vectors.T, optima, self.noise)


class LoadedQuadratic:
    """A quadratic with its rows; a ``decentral.tasks.base.LoadedTask``.

    Args:
        matrix: A, symmetric positive definite, shape (d, d).
        optima: o_r, shape (rows, d).
        noise: standard deviation of the gradient noise.

    Attributes:
        matrix: A, float64.
        optima: o_r, float64.
        optimum: their mean, the global optimum, shape (d,).
    """

    def __init__(self, matrix: NDArray[np.float64], optima: NDArray[np.float64], noise: float) -> None:
        self.matrix, self.optima, self._noise = matrix, optima, noise
        self.optimum: NDArray[np.float64] = optima.mean(axis=0)

    @property
    def examples(self) -> Examples:
        """The rows; they have neither classes nor owners."""
        return Examples(count=len(self.optima))

    def initial(self, seed: int) -> FloatArray:
        """Standard normal, shape (d,)."""
        x = aligned(len(self.optimum))
        x[:] = Seeds(seed).rng("model").standard_normal(len(x))
        return x

    def learner(self, shard: IntArray, sgd: Sgd) -> QuadraticLearner:
        """A learner on the rows ``shard``."""
        return QuadraticLearner(self.matrix, self.optima[shard], sgd, self._noise)

    def rows(self, split: Split) -> int:
        """All rows are both train and test."""
        return len(self.optima)

    def local_rows(self, split: Split, shard: IntArray) -> IntArray:
        """Refused: rows have no owners."""
        raise ConfigError(
            'evaluate.scope = "local": quadratic has no owners of rows; use evaluate.scope = "global"'
        )

    def evaluate(self, x: FloatArray, split: Split, rows: IntArray | None = None) -> Scores:
        """Mean ``loss`` over ``rows`` without noise, and ``distance`` to the optimum of *all* rows."""
        apart = x - (self.optima if rows is None else self.optima[rows])
        loss = 0.5 * np.einsum("ri,ij,rj->r", apart, self.matrix, apart, optimize=True).mean()
        return {"loss": float(loss), "distance": float(np.linalg.norm(x - self.optimum))}


class QuadraticLearner:
    """SGD on one node's quadratics; a ``decentral.tasks.base.Learner``.

    A batch's gradient is ``A (x - m)`` with m the mean of its optima, so each step is one product of A with
    x: everything that does not depend on x is computed for all steps of a call at once. Arithmetic is
    float32, as for the other tasks; losses are summed in float64.

    Args:
        matrix: A, shape (d, d).
        optima: of this node's rows, shape (rows, d).
        sgd: step size, mini-batch size and regularisation.
        noise: standard deviation of the gradient noise.
    """

    def __init__(
        self, matrix: NDArray[np.float64], optima: NDArray[np.float64], sgd: Sgd, noise: float
    ) -> None:
        self._matrix, self._optima, self._sgd, self._noise = matrix, optima, sgd, noise
        self._x = aligned(len(matrix))
        self._velocity = np.zeros_like(self._x)
        self._rows = np.arange(len(optima))
        # Weight decay adds wd * x to the gradient, which is a shift of A.
        self._descent = (sgd.lr * (matrix + sgd.weight_decay * np.eye(len(matrix)))).astype(np.float32)
        self._row_terms = np.einsum("ri,ij,rj->r", optima, matrix, optima, optimize=True)

    @property
    def x(self) -> FloatArray:
        """The live flat model, shape (d,)."""
        return self._x

    def state(self) -> dict[str, AnyArray]:
        """The momentum buffer."""
        return {"velocity": self._velocity.copy()}

    def restore(self, state: Mapping[str, AnyArray]) -> None:
        """Take on a momentum buffer."""
        np.copyto(self._velocity, state["velocity"])

    def train(self, steps: int, rng: np.random.Generator, poll: Poll | None = None) -> float:
        """Run ``steps`` SGD steps in place and return the mean of their batches' losses (without noise)."""
        rows, sizes = batch_rows(self._rows, self._sgd.batch, steps, rng)
        starts = np.cumsum([0, *sizes[:-1]])
        counts = np.asarray(sizes)
        means = np.add.reduceat(self._optima[rows], starts, axis=0) / counts[:, None]
        pulls = means @ self._matrix
        shifts = pulls - self._noise * rng.standard_normal(pulls.shape) if self._noise else pulls
        visited = np.empty(means.shape, dtype=np.float32)
        self._descend((self._sgd.lr * shifts).astype(np.float32), visited)
        # mean over a batch of 1/2 (x - o)' A (x - o), with the squares multiplied out.
        constants = np.add.reduceat(self._row_terms[rows], starts) / counts
        curved = np.einsum("ti,ti->t", visited @ self._matrix, visited)
        if poll is not None:
            poll()
        return float(0.5 * (curved - 2 * np.einsum("ti,ti->t", visited, pulls) + constants).mean())

    def _descend(self, shifts: FloatArray, visited: FloatArray) -> None:
        x, descent, velocity, momentum = self._x, self._descent, self._velocity, self._sgd.momentum
        step = np.empty_like(x)
        product, subtract = np.dot, np.subtract
        for shift, before in zip(shifts, visited, strict=True):
            before[:] = x
            product(descent, x, step)
            subtract(step, shift, step)
            if momentum:
                velocity *= momentum
                velocity += step
                subtract(x, velocity, x)
            else:
                subtract(x, step, x)


TASKS = {"quadratic": Quadratic}
