"""Nodes that ended before their run, and that the others went on without."""

from __future__ import annotations

from dataclasses import dataclass

FEWEST_NODES = 2
"""With fewer a run cannot go on."""


@dataclass(frozen=True)
class Loss:
    """A node that the others went on without: when in rounds of its own and in emulated time, and why."""

    node: int
    host: str
    cause: str
    round: int
    time_s: float | None = None
