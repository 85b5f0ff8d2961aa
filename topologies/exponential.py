"""Exponential graph: node i sends to the nodes 1, 2, 4, ... places ahead (Assran et al. 2019, SGP)."""

from __future__ import annotations

from dataclasses import dataclass

from decentral.graphs import refusal
from decentral.seeding import Seeds


@dataclass(frozen=True, kw_only=True)
class Exponential:
    """Directed exponential graph on hops 2^p < n.

    Args:
        dynamic: one peer per round, hop 2^(t mod number of hops); otherwise all hops every round. Where n
            is a power of two, one cycle of the one-peer graph averages exactly (Ying et al. 2021).
    """

    n: int
    seeds: Seeds
    dynamic: bool = False

    def __post_init__(self) -> None:
        if self.n < 2:
            raise refusal("exponential", "hops need 2 nodes or more; use n = 2", n=self.n)

    @property
    def symmetric(self) -> bool:
        """True for two nodes, and for the static graph of three, which is complete."""
        return self.n == 2 or (self.n == 3 and not self.dynamic)

    def _hops(self, t: int) -> list[int]:
        hops = [1 << p for p in range((self.n - 1).bit_length())]
        return [hops[t % len(hops)]] if self.dynamic else hops

    def targets(self, i: int, t: int, k: int) -> tuple[int, ...]:
        """Nodes a hop of round ``t`` ahead of node ``i``, the same for every fragment."""
        return tuple(sorted((i + hop) % self.n for hop in self._hops(t)))

    def sources(self, i: int, t: int, k: int) -> tuple[int, ...]:
        """Nodes a hop of round ``t`` behind node ``i``, the same for every fragment."""
        return tuple(sorted((i - hop) % self.n for hop in self._hops(t)))


TOPOLOGY = Exponential
EXAMPLES: list[dict[str, object]] = [{"n": 2}, {"n": 3}, {"n": 4}, {"n": 9}]
EXAMPLES += [{"n": 3, "dynamic": True}, {"n": 8, "dynamic": True}, {"n": 11, "dynamic": True}]
