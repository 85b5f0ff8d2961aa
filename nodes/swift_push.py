"""What the DivShare paper compared itself with under the name of SWIFT (algorithms.md 5.4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge

from decentral.mixing import average
from decentral.node import Node
from decentral.recipients import check_recipients, draw_recipients


@dataclass(frozen=True, kw_only=True)
class SwiftPush:
    """DivShare with whole models: push to J random nodes every round, average with what came meanwhile.

    Args:
        local_steps: H, SGD steps per round.
        recipients: J, drawn anew every round from all other nodes.
        flush: drop what is still queued when a round ends; the authors' code does not, so that the queue of a
            node whose link is too slow grows and what it sends gets ever staler.

    Deviations from SWIFT (``swift`` is the original): no fixed graph, no CCS weights, no communication set,
    no copies of neighbors that outlive their aggregation.
    """

    synchronous: ClassVar[bool] = False

    local_steps: int
    recipients: Annotated[int, Ge(1)] = 6
    flush: bool = False

    def check(self, n: int) -> None:
        """Refuse more recipients than there are other nodes."""
        check_recipients(self.recipients, n)

    def volume(self, n: int) -> float:
        """Whole models that a node queues per round."""
        return float(self.recipients)

    def run(self, node: Node) -> None:
        """One node's rounds; x = mean of the own model and the newest of every sender."""
        whole = node.fragments()
        refill = node.outqueue.replace if self.flush else node.outqueue.extend
        for k in node.rounds():
            node.train(steps=self.local_steps)
            drawn = draw_recipients(
                node.rng("recipients", k), node.peers, fragments=1, count=self.recipients
            ).tolist()
            refill(node.shuffled([(j, node.message(k, 0, whole)) for j in drawn[0]], k))
            node.update(average, node.inqueue.take_latest(), whole)


ALGORITHM = SwiftPush
