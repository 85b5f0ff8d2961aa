"""Mosaic Learning (arXiv 2602.04352, Algorithm 1): every fragment has a gossip matrix of its own.

The gossip mode is the topology it is given (algorithms.md 3.3): ``regular`` is the paper's
regular_per_fragment, ``epidemic`` its el_local_per_fragment, ``vn_regular`` Shatter's graph over n*K
virtual nodes; ``dynamic = false`` keeps the first round's graphs. K = 1 is Epidemic Learning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from decentral.fragments import Fragmenter
from decentral.mixing import average
from decentral.node import Node
from decentral.topology import Topology


@dataclass(frozen=True, kw_only=True)
class Mosaic:
    """Train, then mix each fragment over a graph of its own.

    Args:
        local_steps: H, SGD steps per round.
        topology: graph of round t and fragment k; W^(k) is uniform over own and received (section 5.1).
        fragmenter: C: [d] -> [K], the same on every node.

    Deviation: the paper draws one batch per round in its box and says a fresh one per step in the text;
    here every step draws a fresh batch (algorithms.md D3).
    """

    synchronous: ClassVar[bool] = True

    local_steps: int
    topology: Topology
    fragmenter: Fragmenter

    def run(self, node: Node) -> None:
        """Algorithm 1, lines 2 to 9, at one node."""
        fragments = node.fragments(self.fragmenter)
        ks = range(len(fragments))
        for t in node.rounds():
            node.train(steps=self.local_steps)
            outgoing = [
                (j, node.message(t, k, fragments)) for k in ks for j in self.topology.targets(node.id, t, k)
            ]
            expected = [(j, k) for k in ks for j in self.topology.sources(node.id, t, k)]
            received = node.exchange(t, outgoing, expected)
            node.update(average, received, fragments)  # eq. (1)


ALGORITHM = Mosaic
