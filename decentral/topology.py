"""What an algorithm knows of a communication graph. Concrete graphs live in ``topologies/``."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class Topology(Protocol):
    """Who sends fragment ``k`` to whom in round ``t``: a pure function of ``(i, t, k)`` and the run seed.

    Every node holds an equal copy and evaluates it alone, so receivers know whom to wait for without
    a coordinator. For all i, j, t, k: j occurs in ``targets(i, t, k)`` exactly as often as i occurs
    in ``sources(j, t, k)``; a node never targets itself.
    """

    @property
    def n(self) -> int:
        """Number of nodes."""
        ...

    @property
    def symmetric(self) -> bool:
        """True where targets and sources are always the same nodes (an undirected graph)."""
        ...

    def targets(self, i: int, t: int, k: int) -> tuple[int, ...]:
        """Nodes to which node ``i`` sends fragment ``k`` in round ``t``, ascending; may repeat a node."""
        ...

    def sources(self, i: int, t: int, k: int) -> tuple[int, ...]:
        """Nodes that send fragment ``k`` to node ``i`` in round ``t``, ascending; may repeat a node."""
        ...
