"""Label-sorted shards of equal size dealt like cards: the partition of McMahan et al."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Ge

from decentral.arrays import IntArray
from decentral.errors import ConfigError
from decentral.tasks.base import Examples


@dataclass(frozen=True, kw_only=True)
class ShardsDealt:
    """Sort by class, cut into n * shards parts, deal ``shards`` of them to every node at random.

    McMahan et al., AISTATS 2017, Section 3 ("pathological non-IID"). Where n * shards does not divide the
    number of rows, parts differ by one row, so that no row is left out (there the division is exact).

    Args:
        shards: number of parts per node.
    """

    shards: Annotated[int, Ge(1)] = 2

    def split(self, examples: Examples, n: int, rng: np.random.Generator) -> list[IntArray]:
        """Row numbers of nodes 0..n-1, shard after shard.

        Raises:
            ConfigError: the task has no labels, or there are more shards than rows.
        """
        if examples.labels is None:
            raise ConfigError("shards_dealt: this task has no classes; use partition iid, simple or by_group")
        if examples.count < n * self.shards:
            raise ConfigError(
                f"shards_dealt(n={n}, shards={self.shards}): {examples.count} rows cannot fill"
                f" {n * self.shards} shards; use n * shards <= {examples.count}"
            )
        cards = np.array_split(np.argsort(examples.labels, kind="stable"), n * self.shards)
        hands = rng.permutation(n * self.shards).reshape(n, self.shards)
        return [np.concatenate([cards[card] for card in hand]) for hand in hands]


PARTITIONERS = {"shards_dealt": ShardsDealt}
