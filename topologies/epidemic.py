"""Epidemic: every node pushes to ``degree`` random others, independently of them (algorithms.md 6).

EL-Local's graph, and Mosaic's ``el_local_per_fragment`` (algorithms.md 3.3). The sources of a node are
derived by evaluating every node's draw, so nobody sends "not for you" markers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated

from annotated_types import Ge

from decentral.graphs import (
    RECENT_BLOCKS,
    RoundGraphs,
    by_round,
    check_recipients,
    random_recipients,
    rounds_per_block,
)
from decentral.seeding import Seeds


@dataclass(frozen=True, kw_only=True)
class Epidemic:
    """Random directed graphs of out-degree ``degree``, usual choice ceil(log2 n); in-degrees vary.

    Args:
        fragments: K, the number of fragments.
        degree: recipients per node and fragment, drawn without replacement; less than n.
        dynamic: new recipients each round.
        per_fragment: independent recipients for each fragment; otherwise those of fragment 0.
    """

    n: int
    seeds: Seeds
    fragments: Annotated[int, Ge(1)] = 1
    degree: Annotated[int, Ge(1)]
    dynamic: bool = True
    per_fragment: bool = True

    def __post_init__(self) -> None:
        check_recipients("epidemic", n=self.n, degree=self.degree)

    @property
    def symmetric(self) -> bool:
        """True where everybody sends to everybody."""
        return self.degree == self.n - 1

    def _round(self, t: int) -> RoundGraphs:
        rounds = rounds_per_block(self.n * self.degree, dynamic=self.dynamic)
        block, position = divmod(t if self.dynamic else 0, rounds)
        return _block(self, block, rounds)[position]

    def targets(self, i: int, t: int, k: int) -> tuple[int, ...]:
        """The nodes that node ``i`` draws in round ``t`` for fragment ``k``."""
        return self._round(t).targets(i)[k]

    def sources(self, i: int, t: int, k: int) -> tuple[int, ...]:
        """The nodes that draw node ``i`` in round ``t`` for fragment ``k``."""
        return self._round(t).sources(i)[k]


@lru_cache(maxsize=RECENT_BLOCKS)
def _block(graph: Epidemic, block: int, rounds: int) -> list[RoundGraphs]:
    different = graph.fragments if graph.per_fragment else 1
    drawn = random_recipients(graph.seeds, block, (different * rounds, graph.n, graph.degree))
    return by_round(drawn, rounds, graph.fragments, symmetric=graph.symmetric)


TOPOLOGY = Epidemic
EXAMPLES: list[dict[str, object]] = [
    {"n": 16, "degree": 4, "fragments": 3},
    {"n": 9, "degree": 2, "fragments": 2, "per_fragment": False},
    {"n": 10, "degree": 3, "fragments": 2, "dynamic": False},
    {"n": 5, "degree": 4, "dynamic": False},
]
