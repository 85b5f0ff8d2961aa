"""Whole owners (users, speaking roles) to nodes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from decentral.arrays import IntArray
from decentral.errors import ConfigError
from decentral.tasks.base import Examples


@dataclass(frozen=True, kw_only=True)
class ByGroup:
    """Give every node a contiguous block of groups with all their rows (algorithms.md 9.4, 9.5).

    Numbers of groups per node differ by at most one, the larger first: 610 users on 60 nodes give nodes
    0..9 eleven users and the others ten. Numbers of rows differ as the groups do.

    Args:
        shuffle: deal the groups in random order instead of that of their ids (for roles, whose ids follow
            the plays).
    """

    shuffle: bool = False

    def split(self, examples: Examples, n: int, rng: np.random.Generator) -> list[IntArray]:
        """Row numbers of nodes 0..n-1, group after group, ascending within a group.

        Raises:
            ConfigError: the task has no groups, or fewer groups than nodes.
        """
        if examples.groups is None:
            raise ConfigError(
                "by_group: rows of this task have no owners; use partition iid, shards or dirichlet"
            )
        order = np.argsort(examples.groups, kind="stable")
        first_rows = np.flatnonzero(np.diff(examples.groups[order])) + 1
        groups = np.split(order, first_rows)
        if len(groups) < n:
            raise ConfigError(
                f"by_group(n={n}): there are {len(groups)} groups, fewer than nodes; use n <= {len(groups)}"
            )
        ranks = rng.permutation(len(groups)) if self.shuffle else np.arange(len(groups))
        return [np.concatenate([groups[rank] for rank in block]) for block in np.array_split(ranks, n)]


PARTITIONERS = {"by_group": ByGroup}
