"""Random regular graph: ``degree`` random neighbors per node, undirected (algorithms.md 3.3, 6, 7).

Redrawn each round it is EL-Oracle's graph, and Mosaic's ``regular_per_fragment``; static, it is D-PSGD's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge

from decentral.graphs import check_regular, drawn_round
from decentral.random_graphs import random_connected_regular, random_regular
from decentral.seeding import Seeds


@dataclass(frozen=True, kw_only=True)
class Regular:
    """Random regular graphs: static ones are redrawn until connected, dynamic ones may be disconnected.

    Args:
        fragments: K, the number of fragments.
        degree: neighbors per node; less than n, and n * degree is even.
        dynamic: a new graph each round.
        per_fragment: an independent graph for each fragment; otherwise all use that of fragment 0.
    """

    n: int
    seeds: Seeds
    fragments: Annotated[int, Ge(1)] = 1
    degree: Annotated[int, Ge(1)]
    dynamic: bool = True
    per_fragment: bool = True

    symmetric: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_regular("regular", n=self.n, degree=self.degree, connected=not self.dynamic)

    def targets(self, i: int, t: int, k: int) -> tuple[int, ...]:
        """The neighbors of node ``i`` in the graph of round ``t`` and fragment ``k``."""
        draw, t_drawn = (random_regular, t) if self.dynamic else (random_connected_regular, None)
        graphs, drawn = (self.fragments, k) if self.per_fragment else (1, 0)
        shape = (graphs, self.n, self.degree)
        return drawn_round(draw, self.seeds, t_drawn, shape).targets(i)[drawn]

    def sources(self, i: int, t: int, k: int) -> tuple[int, ...]:
        """The targets: edges are undirected."""
        return self.targets(i, t, k)


TOPOLOGY = Regular
EXAMPLES: list[dict[str, object]] = [
    {"n": 16, "degree": 4, "fragments": 3},
    {"n": 9, "degree": 6, "fragments": 2, "per_fragment": False},
    {"n": 10, "degree": 3, "fragments": 2, "dynamic": False},
    {"n": 8, "degree": 1},
]
