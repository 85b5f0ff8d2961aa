"""Virtual nodes: one random regular graph over n * K virtual nodes (Shatter; algorithms.md 3.3, 8.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge

from decentral.graphs import RoundGraphs, check_regular, drawn_round, refusal
from decentral.random_graphs import virtual_connected_regular, virtual_regular
from decentral.seeding import Seeds


@dataclass(frozen=True, kw_only=True)
class VnRegular:
    """Virtual node k of node i carries fragment k of i to the owners of its neighbors.

    Args:
        degree: neighbors per virtual node; less than n * K, and n * K * degree is even.
        dynamic: a new graph each round; a static graph of virtual nodes is connected.
        drop_self_edges: must be true. Deviation: Shatter's code counts the own fragment again for them.
    """

    n: int
    seeds: Seeds
    fragments: Annotated[int, Ge(1)]
    degree: Annotated[int, Ge(1)]
    dynamic: bool = True
    drop_self_edges: bool = True

    def __post_init__(self) -> None:
        sizes = {"n": self.n, "fragments": self.fragments}
        if not self.drop_self_edges:
            expectation = "a node sends itself nothing; use drop_self_edges = true"
            raise refusal("vn_regular", expectation, drop_self_edges=self.drop_self_edges)
        check_regular("vn_regular", **sizes, degree=self.degree, connected=not self.dynamic)

    @property
    def symmetric(self) -> bool:
        """True for one fragment and for a complete graph of virtual nodes."""
        return self.fragments == 1 or self.degree == self.n * self.fragments - 1

    def _round(self, t: int) -> RoundGraphs:
        draw, t_drawn = (virtual_regular, t) if self.dynamic else (virtual_connected_regular, None)
        return drawn_round(draw, self.seeds, t_drawn, (self.fragments, self.n, self.degree))

    def targets(self, i: int, t: int, k: int) -> tuple[int, ...]:
        """Owners of the neighbors of virtual node k of ``i``, once per edge."""
        return self._round(t).targets(i)[k]

    def sources(self, i: int, t: int, k: int) -> tuple[int, ...]:
        """Owners of virtual nodes k with neighbors that ``i`` owns, once per edge."""
        return self._round(t).sources(i)[k]


TOPOLOGY = VnRegular
EXAMPLES: list[dict[str, object]] = [{"n": n, "fragments": 4, "degree": 3, "dynamic": n > 5} for n in (5, 8)]
