"""Epidemic: every node pushes to ``degree`` random others, independently of them (algorithms.md 6).

EL-Local's graph and Mosaic's ``el_local_per_fragment`` (3.3); no "not for you" markers are needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge

from decentral.graphs import RoundGraphs, check_recipients, drawn_round
from decentral.random_graphs import random_recipients
from decentral.seeding import Seeds


@dataclass(frozen=True, kw_only=True)
class Epidemic:
    """Random directed graphs of out-degree ``degree``, usually ceil(log2 n); in-degrees vary.

    Args:
        degree: recipients per node and fragment, without replacement; less than n.
        dynamic: new recipients each round; a static draw may leave a node without sources.
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
        shape = (self.fragments if self.per_fragment else 1, self.n, self.degree)
        return drawn_round(random_recipients, self.seeds, t if self.dynamic else None, shape)

    def targets(self, i: int, t: int, k: int) -> tuple[int, ...]:
        """The nodes that node ``i`` draws in round ``t`` for fragment ``k``."""
        return self._round(t).targets(i)[k if self.per_fragment else 0]

    def sources(self, i: int, t: int, k: int) -> tuple[int, ...]:
        """The nodes that draw node ``i``, found by evaluating every node's draw."""
        return self._round(t).sources(i)[k if self.per_fragment else 0]


TOPOLOGY = Epidemic
EXAMPLES: list[dict[str, object]] = [{"n": n, "degree": 3, "dynamic": n > 4} for n in (4, 9)]
EXAMPLES += [{"n": 16, "degree": 4, "fragments": 3}, {"n": 9, "degree": 2, "dynamic": False}]
EXAMPLES += [{"n": 9, "degree": 2, "fragments": 2, "per_fragment": False}]
