"""Epidemic Learning (NeurIPS 2023): full models to a few random nodes, drawn anew every round.

EL-Oracle with topology ``regular`` (a random s-regular graph per round), EL-Local with topology
``epidemic`` (every node draws s recipients). Both use uniform weights (algorithms.md 6).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from decentral.mixing import average
from decentral.node import Node
from decentral.topology import Topology


@dataclass(frozen=True, kw_only=True)
class EpidemicLearning:
    """Train, send the whole model, average with what arrives.

    Args:
        local_steps: H, SGD steps per round.
        topology: graph of round t.

    Deviation: receivers derive who sends to them from the shared seed; the reference code sends a marker
    message to every non-recipient instead.
    """

    synchronous: ClassVar[bool] = True

    local_steps: int
    topology: Topology

    def run(self, node: Node) -> None:
        """One node's rounds; x = (y + sum of received) / (1 + number received)."""
        whole = node.fragments()
        for t in node.rounds():
            node.train(steps=self.local_steps)
            outgoing = [(j, node.message(t, 0, whole)) for j in self.topology.targets(node.id, t, 0)]
            expected = [(j, 0) for j in self.topology.sources(node.id, t, 0)]
            received = node.exchange(t, outgoing, expected)
            node.update(average, received, whole)


ALGORITHM = EpidemicLearning
