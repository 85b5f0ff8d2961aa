"""D-PSGD (Lian et al., NeurIPS 2017) with Metropolis-Hastings weights on an undirected graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from decentral.errors import ConfigError
from decentral.mixing import metropolis_hastings, weighted
from decentral.node import Node
from decentral.topology import Topology


@dataclass(frozen=True, kw_only=True)
class DPsgd:
    """Train, send the whole model to all neighbors, mix with w_ij = 1 / (1 + max(d_i, d_j)).

    Args:
        local_steps: H, SGD steps per round.
        topology: an undirected graph, usually static.

    Deviations: train-then-mix as in DecentralizePy; Lian's original mixes the models of before the gradient
    step. Degrees are derived from the shared topology instead of travelling in the message.
    """

    synchronous: ClassVar[bool] = True

    local_steps: int
    topology: Topology

    def __post_init__(self) -> None:
        if not self.topology.symmetric:
            name = type(self.topology).__name__
            raise ConfigError(
                f"topology = {name}: dpsgd needs an undirected graph for doubly stochastic weights; "
                f"use regular, ring or another undirected topology, or algorithm = epidemic"
            )

    def run(self, node: Node) -> None:
        """One node's rounds; x = w_ii * y + sum over neighbors of w_ij * y_j."""
        whole = node.fragments()
        for t in node.rounds():
            node.train(steps=self.local_steps)
            neighbors = self.topology.targets(node.id, t, 0)
            outgoing = [(j, node.message(t, 0, whole)) for j in neighbors]
            received = node.exchange(t, outgoing, [(j, 0) for j in neighbors])
            degrees = {j: len(self.topology.targets(j, t, 0)) for j in neighbors}
            node.update(weighted(metropolis_hastings(len(neighbors), degrees)), received, whole)


ALGORITHM = DPsgd
