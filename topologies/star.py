"""Star: one center, whose neighbors are all other nodes (algorithms.md 7)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge

from decentral.graphs import refusal
from decentral.seeding import Seeds


@dataclass(frozen=True, kw_only=True)
class Star:
    """Static undirected star.

    Args:
        center: id of the node that all others know.
    """

    n: int
    seeds: Seeds
    center: Annotated[int, Ge(0)] = 0

    symmetric: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.n < 2:
            raise refusal("star", "a star needs 2 nodes or more; use n = 2 or topology complete", n=self.n)
        if not 0 <= self.center < self.n:
            expectation = f"center must be a node's id; use center = 0 to {self.n - 1}"
            raise refusal("star", expectation, n=self.n, center=self.center)

    def targets(self, i: int, t: int, k: int) -> tuple[int, ...]:
        """The center, or all others for the center, the same for every round and fragment."""
        return (*range(i), *range(i + 1, self.n)) if i == self.center else (self.center,)

    def sources(self, i: int, t: int, k: int) -> tuple[int, ...]:
        """The targets: edges are undirected."""
        return self.targets(i, t, k)


TOPOLOGY = Star
EXAMPLES: list[dict[str, object]] = [{"n": 2}, {"n": 7}, {"n": 7, "center": 3}]
