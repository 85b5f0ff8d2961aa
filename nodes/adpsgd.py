"""AD-PSGD (Lian et al., ICML 2018): asynchronous averaging of pairs, with bipartite roles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from annotated_types import Gt

from decentral.arrays import IntArray
from decentral.errors import ConfigError
from decentral.messages import Message
from decentral.mixing import average, pair_average
from decentral.node import Node


@dataclass(frozen=True, kw_only=True)
class AdPsgd:
    """Active nodes train and average with a random passive one; passive ones train and answer at any time.

    Half of the nodes are active and pick any passive one, so nobody waits in a circle. A passive node takes
    its snapshot and averages in one act, and the active one averages the snapshot that it sent: the pair's
    sum is conserved. What a node learns while its model is averaged is added to it afterwards, so gradients
    may be stale (algorithms.md 4.2).

    Args:
        local_steps: H, SGD steps per round.
        roles: ``random_half`` draws the active nodes, ``parity`` makes odd ids active.
        overlap: active nodes train on while an exchange is under way: x = (s + y)/2 + (x - s).
        request_timeout_s: after it an active node goes on without averaging; None: it waits for ever. Where
            messages can be lost a timeout is needed.

    Deviations: H steps per exchange instead of one. Passive nodes train freely, not in proportion to what
    they are asked (dasklearn's budget).
    """

    synchronous: ClassVar[bool] = False

    local_steps: int
    roles: Literal["random_half", "parity"] = "random_half"
    overlap: bool = False
    request_timeout_s: Annotated[float, Gt(0)] | None = None

    def check(self, n: int) -> None:
        """Refuse an odd number of nodes."""
        if n % 2:
            raise ConfigError(f"nodes = {n}: adpsgd pairs active with passive nodes; use an even n = {n + 1}")

    def volume(self, n: int) -> float:
        """One exchange of two models per round of an active node, so 1 per node of either role."""
        return 1.0

    def run(self, node: Node) -> None:
        """Either role's rounds."""
        whole = node.fragments()
        passive = self.passive(node)
        if node.id in passive:
            node.serve(pair_average)
            for _ in node.rounds():
                node.train(steps=self.local_steps)
            return
        kept = node.keep(sent=None)
        for k in node.rounds():
            node.train(steps=self.local_steps)
            if kept.sent is not None:
                self._settle(node, kept.sent)
            sent = node.message(k, 0, whole)
            node.ask(int(node.rng("partner", k).choice(passive)), sent)
            if self.overlap:
                kept.sent = sent
            elif (reply := node.answer(self.request_timeout_s)) is not None:
                node.update(average, [reply], whole)  # x is still what was sent
        if kept.sent is not None:
            self._settle(node, kept.sent)

    def passive(self, node: Node) -> IntArray:
        """The passive nodes, ascending; the same at every node."""
        if self.roles == "parity":
            return np.arange(0, node.n, 2)
        return np.sort(node.shared_rng("roles").permutation(node.n)[node.n // 2 :])

    def _settle(self, node: Node, sent: Message) -> None:
        reply = node.answer(self.request_timeout_s, more=True)
        if reply is not None:  # x = (s + y)/2 + (x - s)
            node.apply((reply.values - sent.values) * np.float32(0.5))


ALGORITHM = AdPsgd
