"""Contiguous shards in the order of the data set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from decentral.arrays import IntArray
from decentral.errors import ConfigError
from decentral.tasks.base import Examples


@dataclass(frozen=True, kw_only=True)
class Simple:
    """Cut the rows, in the order given, into n contiguous equal parts (algorithms.md 9.5).

    Sizes differ by at most one row, the larger parts first; no row is left out and nothing is drawn.
    """

    def split(self, examples: Examples, n: int, rng: np.random.Generator) -> list[IntArray]:
        """Row numbers of nodes 0..n-1, ascending; ``rng`` is not used.

        Raises:
            ConfigError: fewer rows than nodes.
        """
        if examples.count < n:
            raise ConfigError(
                f"simple(n={n}): {examples.count} rows cannot give every node one; use n <= {examples.count}"
            )
        return list(np.array_split(np.arange(examples.count), n))


PARTITIONERS = {"simple": Simple}
