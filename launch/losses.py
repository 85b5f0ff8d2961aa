"""Nodes that ended before their run, and that the others went on without."""

from __future__ import annotations

from dataclasses import dataclass

FEWEST_NODES = 2
"""With fewer a run cannot go on."""


@dataclass(frozen=True)
class Loss:
    """A node that the others went on without: when in rounds of its own and on the run's clock, and why.

    ``time_s`` is None where nobody counted time any more; in real time no evaluation is left out of it.
    """

    node: int
    host: str
    cause: str
    round: int
    time_s: float | None = None

    @property
    def sentence(self) -> str:
        """Who, where, and what became of it."""
        return f"node {self.node} on host {self.host} {self.cause}"
