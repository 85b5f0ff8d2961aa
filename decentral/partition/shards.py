"""Label-sorted shards cut at random places: the k-shard partition of DivShare."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Ge

from decentral.arrays import IntArray
from decentral.errors import ConfigError
from decentral.tasks.base import Examples


@dataclass(frozen=True, kw_only=True)
class Shards:
    """DivShare's "5 shards per node" (WWW 2025, Section 5.1; algorithms.md 9.5).

    The rows, sorted by class, form a circle. Each node in turn draws ``shards`` times a uniform place in
    what remains of the circle and takes the floor(quota / shards) rows that follow. Shards may straddle two
    classes and the gaps that earlier draws left. The quota is floor(N / n); the last node's is what the
    others' quotas leave of N. Rows beyond whole shards stay unused: of CIFAR-10's 50,000 rows, 60 nodes with
    5 shards get 830 each, the last 850, and 180 are left out. ``shards_dealt`` is McMahan's scheme.

    Args:
        shards: number of shards per node; more shards make the nodes' data more alike.
    """

    shards: Annotated[int, Ge(1)] = 5

    def split(self, examples: Examples, n: int, rng: np.random.Generator) -> list[IntArray]:
        """Row numbers of nodes 0..n-1, shard after shard.

        Raises:
            ConfigError: the task has no labels, or a node's quota is below one row per shard.
        """
        if examples.labels is None:
            raise ConfigError("shards: this task has no classes; use partition iid, simple or by_group")
        quota = examples.count // n
        if quota < self.shards:
            raise ConfigError(
                f"shards(n={n}, shards={self.shards}): {examples.count} rows give {quota} per node, fewer"
                f" than one per shard; use n * shards <= {examples.count}"
            )
        circle = np.argsort(examples.labels, kind="stable")
        parts = []
        for node in range(n):
            size = (quota if node < n - 1 else examples.count - (n - 1) * quota) // self.shards
            taken = []
            for _ in range(self.shards):
                # A circle has no first row, so turning it changes no later draw's distribution.
                circle = np.roll(circle, -int(rng.integers(len(circle))))
                taken.append(circle[:size])
                circle = circle[size:]
            parts.append(np.concatenate(taken))
        return parts


PARTITIONERS = {"shards": Shards}
