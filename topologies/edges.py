"""Edges of a file: DecentralizePy's ``.edges`` format (algorithms.md 7).

The first line is the number of nodes, each further line an undirected edge ``i j``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from decentral.files import FilePath
from decentral.graphs import Rows, reachable, read_edges, refusal, undirected_rows
from decentral.seeding import Seeds


@dataclass(frozen=True, kw_only=True)
class Edges:
    """Static connected undirected graph; an edge given twice, in either order, counts once.

    Args:
        path: the file; it is read and checked when the topology is made.
    """

    n: int
    seeds: Seeds
    path: FilePath

    symmetric: ClassVar[bool] = True

    def __post_init__(self) -> None:
        reached = len(reachable(self._neighbors))
        if reached < self.n:
            expectation = f"node 0 reaches {reached} of {self.n} nodes; add edges that connect the graph"
            raise refusal("edges", expectation, path=self.path)

    @cached_property
    def _neighbors(self) -> Rows:
        return undirected_rows(self.n, read_edges(self.path, self.n))

    def targets(self, i: int, t: int, k: int) -> tuple[int, ...]:
        """The neighbors of node ``i``, the same for every round and fragment."""
        return self._neighbors[i]

    def sources(self, i: int, t: int, k: int) -> tuple[int, ...]:
        """The targets: edges are undirected."""
        return self._neighbors[i]


TOPOLOGY = Edges
EXAMPLES: list[dict[str, object]] = [{"n": 2}, {"n": 9}]
