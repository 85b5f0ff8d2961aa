"""Class proportions drawn from a Dirichlet distribution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt

from decentral.arrays import IntArray
from decentral.errors import ConfigError
from decentral.tasks.base import Examples


@dataclass(frozen=True, kw_only=True)
class Dirichlet:
    """Deal each class in proportions drawn from Dir(alpha * 1_n) (algorithms.md 9.5).

    A node that already holds N / n rows or more gets nothing of the following classes. A draw counts when
    every node has at least as many rows as there are classes; otherwise all proportions are drawn again,
    at most ``max_retries`` times (other implementations retry for ever). No row is left out; the numbers of
    rows per node differ, the more so the smaller alpha.

    Args:
        alpha: concentration; 0.1 is strongly, 1 mildly skewed, large values approach iid.
        max_retries: draws after the first before giving up, each about 0.3 ms for 60 nodes and 10 classes.
    """

    alpha: Annotated[float, Gt(0)] = 0.1
    max_retries: Annotated[int, Ge(0)] = 1000

    def split(self, examples: Examples, n: int, rng: np.random.Generator) -> list[IntArray]:
        """Row numbers of nodes 0..n-1, each node's shuffled.

        Raises:
            ConfigError: the task has no labels, or no draw gave every node enough rows.
        """
        if examples.labels is None:
            raise ConfigError("dirichlet: this task has no classes; use partition iid, simple or by_group")
        _, class_sizes = np.unique(examples.labels, return_counts=True)
        enough = len(class_sizes)
        if examples.count < n * enough:
            raise ConfigError(
                f"dirichlet(n={n}): {examples.count} rows cannot give every node {enough}, one per class; use"
                f" n <= {examples.count // enough}"
            )
        for _ in range(1 + self.max_retries):
            cuts = self._cuts(class_sizes, n, rng)
            if cuts is not None and np.diff(cuts, axis=1).sum(axis=0).min() >= enough:
                return _deal(examples.labels, class_sizes, cuts, rng)
        raise ConfigError(
            f"dirichlet(n={n}, alpha={self.alpha}): after {self.max_retries} retries some node still had"
            f" fewer than {enough} rows, one per class; use a larger alpha or max_retries, or fewer nodes"
        )

    def _cuts(self, class_sizes: IntArray, n: int, rng: np.random.Generator) -> IntArray | None:
        """Where each class is cut, shape (classes, n + 1), or None where a class found no taker."""
        held = np.zeros(n, dtype=np.int64)
        full = class_sizes.sum() / n
        cuts = np.empty((len(class_sizes), n + 1), dtype=np.int64)
        for size, cut in zip(class_sizes, cuts, strict=True):
            shares = rng.dirichlet(np.full(n, self.alpha)) * (held < full)
            # Small alphas put all weight on few nodes; when those are full, nothing is left to renormalize.
            if not (total := shares.sum()) > 0:
                return None
            cut[0] = 0
            cut[1:] = np.minimum(np.cumsum(shares / total) * size, size)
            cut[-1] = size
            held += np.diff(cut)
        return cuts


def _deal(
    labels: IntArray, class_sizes: IntArray, cuts: IntArray, rng: np.random.Generator
) -> list[IntArray]:
    shuffled = rng.permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    starts = np.cumsum(class_sizes) - class_sizes
    bounds = starts[:, None] + cuts
    return [
        rng.permutation(np.concatenate([by_class[first:last] for first, last in bounds[:, node : node + 2]]))
        for node in range(cuts.shape[1] - 1)
    ]


PARTITIONERS = {"dirichlet": Dirichlet}
