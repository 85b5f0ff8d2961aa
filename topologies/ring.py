"""Ring: every node has the two nodes next to it in id order as neighbors (algorithms.md 7)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from decentral.graphs import refusal
from decentral.seeding import Seeds


@dataclass(frozen=True, kw_only=True)
class Ring:
    """Static undirected cycle of n nodes; two nodes are each other's single neighbor."""

    n: int
    seeds: Seeds

    symmetric: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.n < 2:
            raise refusal("ring", "a ring needs 2 nodes or more; use n = 2 or topology complete", n=self.n)

    def targets(self, i: int, t: int, k: int) -> tuple[int, ...]:
        """The neighbors of node ``i``, the same for every round and fragment."""
        return tuple(sorted({(i - 1) % self.n, (i + 1) % self.n}))

    def sources(self, i: int, t: int, k: int) -> tuple[int, ...]:
        """The targets: edges are undirected."""
        return self.targets(i, t, k)


TOPOLOGY = Ring
EXAMPLES: list[dict[str, object]] = [{"n": 2}, {"n": 3}, {"n": 8}, {"n": 13}]
