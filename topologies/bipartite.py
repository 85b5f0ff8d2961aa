"""Complete bipartite graph between active and passive nodes (AD-PSGD; algorithms.md 4.2).

AD-PSGD's active nodes pick one of their neighbors themselves, so the graph is static and complete.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

from decentral.graphs import refusal
from decentral.random_graphs import random_order
from decentral.seeding import Seeds


@dataclass(frozen=True, kw_only=True)
class Bipartite:
    """Static undirected graph in which every active node knows every passive one.

    Args:
        roles: ``random_half`` draws the n / 2 active nodes, ``parity`` makes odd ids active.
    """

    n: int
    seeds: Seeds
    roles: Literal["random_half", "parity"] = "random_half"

    symmetric: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.n < 2 or self.n % 2:
            raise refusal("bipartite", f"n must be even; use n = {max(2, self.n + self.n % 2)}", n=self.n)

    @cached_property
    def _active(self) -> frozenset[int]:
        order = random_order(self.seeds, self.n) if self.roles == "random_half" else range(self.n)
        return frozenset(order[: self.n // 2] if self.roles == "random_half" else order[1::2])

    def role(self, i: int) -> Literal["active", "passive"]:
        """Whether node ``i`` starts exchanges (active) or answers them (passive)."""
        return "active" if i in self._active else "passive"

    def targets(self, i: int, t: int, k: int) -> tuple[int, ...]:
        """All nodes of the other role, the same for every round and fragment."""
        wanted = i not in self._active
        return tuple(j for j in range(self.n) if (j in self._active) == wanted)

    def sources(self, i: int, t: int, k: int) -> tuple[int, ...]:
        """The targets: edges are undirected."""
        return self.targets(i, t, k)


TOPOLOGY = Bipartite
EXAMPLES: list[dict[str, object]] = [{"n": 2}, {"n": 10}, {"n": 10, "roles": "parity"}]
