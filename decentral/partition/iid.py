"""Independent and identically distributed shards."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from decentral.arrays import IntArray
from decentral.errors import ConfigError
from decentral.tasks.base import Examples


@dataclass(frozen=True, kw_only=True)
class Iid:
    """Shuffle all rows and cut them into n equal parts (algorithms.md 9.5).

    Sizes differ by at most one row, the larger parts first; no row is left out.
    """

    def split(self, examples: Examples, n: int, rng: np.random.Generator) -> list[IntArray]:
        """Row numbers of nodes 0..n-1, in shuffled order.

        Raises:
            ConfigError: fewer rows than nodes.
        """
        if examples.count < n:
            raise ConfigError(
                f"iid(n={n}): {examples.count} rows cannot give every node one; use n <= {examples.count}"
            )
        return list(np.array_split(rng.permutation(examples.count), n))


PARTITIONERS = {"iid": Iid}
