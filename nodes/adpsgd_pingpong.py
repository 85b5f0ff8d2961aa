"""What the DivShare paper compared itself with under the name of AD-PSGD (algorithms.md 4.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge

from decentral.messages import Message
from decentral.mixing import average
from decentral.node import Node
from decentral.speech import Role


@dataclass(frozen=True, kw_only=True)
class AdPsgdPingPong:
    """Train, ping random nodes with the own model, which pong theirs; average with what came meanwhile.

    Neither bilateral nor atomic: the mean of all models is not preserved; nothing blocks (``adpsgd`` is the
    published algorithm).

    Args:
        local_steps: H, SGD steps per round.
        pings: nodes pinged per round, drawn with replacement; J // 2 for a volume like that of DivShare's J.
        flush: drop what is still queued when a round ends, pongs too; the authors' code does not, so that the
            queue of a node whose link is too slow grows and what it sends gets ever staler.

    Deviations: in the authors' code one object is the latest model and every queued message, and its kind is
    changed in place, so that pings can leave as pongs and the other way round; here each message is its own.
    Of a sender's models the one of its latest round counts, theirs is the one that came last.
    """

    synchronous: ClassVar[bool] = False

    local_steps: int
    pings: Annotated[int, Ge(1)] = 3
    flush: bool = False

    def volume(self, n: int) -> float:
        """Whole models that a node queues per round: its pings, and as many pongs on average."""
        return 2.0 * self.pings

    def run(self, node: Node) -> None:
        """One node's rounds; x = mean of the own model and the newest of every sender."""
        whole = node.fragments()
        kept = node.keep(latest=node.message(0, 0, whole))

        def pong() -> Message:
            latest: Message = kept.latest
            return latest

        node.answer_pings(pong)
        for k in node.rounds():
            node.train(steps=self.local_steps)
            kept.latest = node.message(k, 0, whole)
            pinged = node.rng("recipients", k).choice(node.peers, size=self.pings)
            node.outqueue.put([(int(j), kept.latest) for j in pinged], role=Role.PING, flush=self.flush)
            node.update(average, node.inqueue.take_latest(), whole)


ALGORITHM = AdPsgdPingPong
