"""Complete graph: every node is every other node's neighbor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from decentral.graphs import refusal
from decentral.seeding import Seeds


@dataclass(frozen=True, kw_only=True)
class Complete:
    """Static complete graph; a single node has no neighbor."""

    n: int
    seeds: Seeds

    symmetric: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.n < 1:
            raise refusal("complete", "a graph needs a node; use n = 1 or more", n=self.n)

    def targets(self, i: int, t: int, k: int) -> tuple[int, ...]:
        """All nodes but ``i``, the same for every round and fragment."""
        return (*range(i), *range(i + 1, self.n))

    def sources(self, i: int, t: int, k: int) -> tuple[int, ...]:
        """The targets: edges are undirected."""
        return self.targets(i, t, k)


TOPOLOGY = Complete
EXAMPLES: list[dict[str, object]] = [{"n": 1}, {"n": 2}, {"n": 9}]
