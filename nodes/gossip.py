"""Gossip Learning (Ormandi et al. 2013; Hegedus et al. 2021): models walk, are merged by age and trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt

from decentral.medium import Outgoing
from decentral.mixing import age_weight, limited_age_weight, weighted
from decentral.node import Node


@dataclass(frozen=True, kw_only=True)
class GossipLearning:
    """Push the model to a random node every period; merge with and train on the newest that comes.

    A local round begins when a model arrives. Of the models that arrive while a node trains only the newest
    is kept (the drop policy of dasklearn; algorithms.md 8.1). A run needs a time limit: the number of rounds
    is a matter of arrivals.

    Args:
        local_steps: H, SGD steps per round.
        period_s: Delta_g; the first push is at a random phase of it.
        merge: weight of a received model of age b beside the own one of age a: ``age`` b / (a + b); ``plain``
            1/2; ``limited`` as ``age``, but the older model alone where they differ by more than ``limit``.
        limit: L of ``limited``.

    Deviations: ages count SGD steps, as in gossipy (async-dl counts samples; the ratio is the same). A model
    is pushed again to a node that may know it. Nodes train only when a model arrives.
    """

    synchronous: ClassVar[bool] = False
    needs_time_limit: ClassVar[bool] = True

    local_steps: int
    period_s: Annotated[float, Gt(0)]
    merge: Literal["age", "plain", "limited"] = "age"
    limit: Annotated[int, Ge(0)] = 1

    def volume(self, n: int) -> float:
        """One model per period, and so about one per round where a node trains on every model it gets."""
        return 1.0

    def weight(self, own: int, received: int) -> float:
        """Weight of a received model of age ``received`` beside the own one of age ``own``."""
        if self.merge == "plain":
            return 0.5
        if self.merge == "age":
            return age_weight(own, received)
        return limited_age_weight(own, received, self.limit)

    def run(self, node: Node) -> None:
        """One node's rounds; its pushes go on meanwhile."""
        whole = node.fragments()
        kept = node.keep(round=0, age=0)

        def push(tick: int) -> Outgoing:
            peer = int(node.rng("peer", tick).choice(node.peers))
            return peer, node.message(kept.round, 0, whole, age=kept.age)

        node.every(self.period_s, node.rng("phase").uniform(0, self.period_s), push)
        for k in node.rounds():
            kept.round = k
            heard = node.hear()
            weight = self.weight(kept.age, heard.age)
            if weight:
                node.update(weighted({heard.sender: weight}), [heard], whole)
            kept.age = max(kept.age, heard.age)
            node.train(steps=self.local_steps)
            kept.age += self.local_steps
            node.record(age=kept.age)


ALGORITHM = GossipLearning
EXAMPLE = {"period_s": 1.0}
