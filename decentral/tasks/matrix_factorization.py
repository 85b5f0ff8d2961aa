"""Matrix factorization trained by SGD without autograd: the model of MovieLens (algorithms.md 9.2)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import NamedTuple

import numpy as np

from decentral.arrays import AnyArray, FloatArray, IntArray, aligned
from decentral.errors import ConfigError
from decentral.model import batch_rows
from decentral.tasks.base import Poll, Sgd, Shapes

_TOGETHER = 128
"""Batches between two polls: about a millisecond."""


class Ratings(NamedTuple):
    """Who rated what how: three vectors of one length, users and items numbered from 0."""

    users: IntArray
    items: IntArray
    values: FloatArray

    def take(self, rows: IntArray) -> Ratings:
        """The ratings numbered ``rows``, in that order."""
        return Ratings(self.users[rows], self.items[rows], self.values[rows])


class MatrixFactorization:
    """One node's user and item vectors, trained by SGD on the batch mean of (u_i . v_j - r)^2.

    The gradient of a batch touches at most 2 b rows of the model, so a step of plain SGD reads and writes
    only these; rows that occur twice in a batch get the sum of their gradients, as a dense gradient has it.
    Momentum and weight decay move all parameters, so with either of them a step is dense (and 10 to 100
    times slower).

    Args:
        ratings: this node's training ratings.
        shapes: of the two factor matrices.
        sgd: settings; the velocity of ``momentum`` starts at zero and stays here.
    """

    def __init__(self, ratings: Ratings, shapes: Shapes, sgd: Sgd) -> None:
        (_, (users, factors)), (_, (items, _)) = shapes
        if not len(ratings.users):
            raise ConfigError(
                "movielens: a node has no training ratings; use fewer nodes or another partition"
            )
        self._x = aligned((users + items) * factors)
        self._table = self._x.reshape(-1, factors)
        self._pairs = np.stack([ratings.users, users + ratings.items])
        self._values = np.ascontiguousarray(ratings.values)
        self._sgd = sgd
        self._velocity = np.zeros_like(self._table) if sgd.momentum or sgd.weight_decay else None

    @property
    def x(self) -> FloatArray:
        """The live flat model, shape (d,): user vectors, then item vectors."""
        return self._x

    def state(self) -> dict[str, AnyArray]:
        """The momentum buffer, if there is one."""
        return {} if self._velocity is None else {"velocity": self._velocity.copy()}

    def restore(self, state: Mapping[str, AnyArray]) -> None:
        """Take on a momentum buffer."""
        if self._velocity is not None:
            np.copyto(self._velocity, state["velocity"])

    def train(self, steps: int, rng: np.random.Generator, poll: Poll | None = None) -> float:
        """Run ``steps`` SGD steps in place and return the mean over them of the batch's MSE.

        A model that diverges becomes inf or nan, and so does the loss.
        """
        total = 0.0
        with np.errstate(over="ignore", invalid="ignore"):
            for batches in self._batches(steps, rng):
                pairs = self._pairs[:, batches].swapaxes(0, 1).reshape(len(batches), -1)
                targets = self._values[batches]
                step = self._sparse if self._velocity is None else self._dense
                total += float(np.mean(step(pairs, targets).astype(np.float64) ** 2)) * len(batches)
                if poll is not None:
                    poll()
        return total / steps

    def _batches(self, steps: int, rng: np.random.Generator) -> Iterator[IntArray]:
        """Positions in the shard, shape (batches, size): what follows each other with one size, cut."""
        rows, sizes = batch_rows(np.arange(len(self._values)), self._sgd.batch, steps, rng)
        start = 0
        for size, run in groupby(sizes):
            end = start + size * len(list(run))
            batches = rows[start:end].reshape(-1, size)
            yield from (batches[first : first + _TOGETHER] for first in range(0, len(batches), _TOGETHER))
            start = end

    def _sparse(self, pairs: IntArray, targets: FloatArray) -> FloatArray:
        """Plain SGD over batches; see ``_dense`` for shapes. About 9 us per batch of 2: every call counts."""
        table = self._table
        size, factors = targets.shape[1], table.shape[1]
        errors = np.empty_like(targets)
        ordered = np.sort(pairs, axis=1)
        repeats = (ordered[:, 1:] == ordered[:, :-1]).any(axis=1).tolist()
        old = np.empty((2 * size, factors), dtype=np.float32)
        change = np.empty_like(old)
        vectors = old.reshape(2, size, factors)
        users, items = vectors
        partners, changes = vectors[::-1], change.reshape(2, size, factors)
        factor = np.empty((size, 1), dtype=np.float32)
        flat_factor = factor[:, 0]
        rate = np.array(2.0 * self._sgd.lr / size, dtype=np.float32)
        take, dot, multiply, subtract = table.take, np.vecdot, np.multiply, np.subtract
        subtract_at = subtract.at
        for rows, target, error, repeated in zip(pairs, targets, errors, repeats, strict=True):
            take(rows, 0, old, "clip")
            dot(users, items, error)
            subtract(error, target, error)
            multiply(error, rate, flat_factor)
            multiply(partners, factor, changes)
            if repeated:
                subtract_at(table, rows, change)
            else:
                subtract(old, change, old)
                table[rows] = old
        return errors

    def _dense(self, pairs: IntArray, targets: FloatArray) -> FloatArray:
        """SGD with momentum and weight decay, buffers as in torch.optim.SGD.

        Args:
            pairs: rows of the model, users first, shape (batches, 2 * size).
            targets: ratings, shape (batches, size).

        Returns:
            Prediction minus rating before each step, shape (batches, size).
        """
        table, velocity, sgd = self._table, self._velocity, self._sgd
        assert velocity is not None
        errors = np.empty_like(targets)
        gradient = np.empty_like(table)
        for rows, target, error in zip(pairs, targets, errors, strict=True):
            vectors = table[rows].reshape(2, len(target), -1)
            np.subtract(np.vecdot(vectors[0], vectors[1]), target, out=error)
            np.multiply(table, np.float32(sgd.weight_decay), out=gradient)
            partial = vectors[::-1] * (np.float32(2.0 / len(target)) * error)[:, None]
            np.add.at(gradient, rows, partial.reshape(len(rows), -1))
            velocity *= np.float32(sgd.momentum)
            velocity += gradient
            np.multiply(velocity, np.float32(sgd.lr), out=gradient)
            table -= gradient
        return errors
