"""Small world: a ring lattice with rewired edges (Watts and Strogatz 1998; algorithms.md 7)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, ClassVar

import networkx as nx
from annotated_types import Ge, Le

from decentral.graphs import Rows, refusal, undirected_rows
from decentral.seeding import Seeds


@dataclass(frozen=True, kw_only=True)
class SmallWorld:
    """Static connected undirected graph, redrawn until it is connected; degrees differ between nodes.

    Args:
        degree: neighbors per node before rewiring and on average after it, even.
        rewiring: probability with which each edge of the lattice gets a new end.
    """

    n: int
    seeds: Seeds
    degree: Annotated[int, Ge(2)]
    rewiring: Annotated[float, Ge(0), Le(1)] = 0.1

    symmetric: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.degree % 2 or not 2 <= self.degree < self.n:
            even = max(2, min(self.degree, self.n - 1) // 2 * 2)
            expectation = f"degree must be even and less than n; use degree = {even} and n > {even}"
            raise refusal("small_world", expectation, n=self.n, degree=self.degree)

    @cached_property
    def _neighbors(self) -> Rows:
        parameters = (self.n, self.degree, self.rewiring, 1000, self.seeds.integer("topology", 0))
        try:
            drawn = nx.connected_watts_strogatz_graph(*parameters)
        except nx.NetworkXError as error:
            expectation = "no connected graph in 1000 draws; use a larger degree or less rewiring"
            raise refusal("small_world", expectation, n=self.n, degree=self.degree) from error
        return undirected_rows(self.n, drawn.edges)

    def targets(self, i: int, t: int, k: int) -> tuple[int, ...]:
        """The neighbors of node ``i``, the same for every round and fragment."""
        return self._neighbors[i]

    def sources(self, i: int, t: int, k: int) -> tuple[int, ...]:
        """The targets: edges are undirected."""
        return self._neighbors[i]


TOPOLOGY = SmallWorld
EXAMPLES: list[dict[str, object]] = [{"n": 20, "degree": 4}, {"n": 15, "degree": 2, "rewiring": 0.5}]
