"""SWIFT's communication-coefficient selection (CCS) for uniform influence scores (algorithms.md 5.2)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from itertools import groupby
from types import MappingProxyType
from typing import TypeAlias

Rows: TypeAlias = tuple[tuple[int, ...], ...]
"""The neighbors of every node of an undirected graph."""


@lru_cache(maxsize=4)
def ccs_weights(neighbors: Rows) -> tuple[Mapping[int, float], ...]:
    """Per node, the weight of each neighbor; symmetric, and a node keeps at least 1/n for itself.

    In order of decreasing degree d_i: a node with no larger neighbor gives each neighbor 1 / (d_i + 1); any
    other takes over what its larger neighbors gave it and gives all the rest the same share u_i of what is
    left, counting itself, or the smallest share among itself and its neighbors of equal degree.

    Args:
        neighbors: of every node, ascending; undirected, without self-loops.

    Deviations: computed from the whole graph instead of by messages between neighbors. Among chains of nodes
    of equal degree the published procedure can end with w_ij != w_ji, so w_ij = min(w_ij, w_ji) here. It can
    also give a node's neighbors more than 1 in all (a node whose neighbors each have little left to give but
    to it), so the edges of a node that would keep less than 1/n are scaled down.
    """
    n = len(neighbors)
    degree = [len(row) for row in neighbors]
    given: list[dict[int, float]] = [{} for _ in range(n)]
    by_degree = sorted(range(n), key=lambda i: -degree[i])
    for d, group in groupby(by_degree, key=lambda i: degree[i]):
        members = list(group)
        share = {i: (1 - sum(given[i].values())) / (d - len(given[i]) + 1) for i in members}
        for i in members:
            equals = [share[j] for j in neighbors[i] if degree[j] == d] if given[i] else []
            weight = min([share[i], *equals])
            given[i] |= {j: weight for j in neighbors[i] if degree[j] <= d}
        for i in members:
            for j in neighbors[i]:
                if degree[j] < d:
                    given[j][i] = given[i][j]
    symmetric = [{j: min(given[i][j], given[j][i]) for j in neighbors[i]} for i in range(n)]
    room = [_room(sum(row.values()), n) for row in symmetric]
    return tuple(
        MappingProxyType({j: w * min(room[i], room[j]) for j, w in row.items()})
        for i, row in enumerate(symmetric)
    )


def _room(total: float, n: int) -> float:
    """By how much weights that sum to ``total`` have to shrink for 1/n to be left; 1 where they need not."""
    most = 1 - 1 / n
    return 1.0 if total <= most + 1e-12 else most / total
