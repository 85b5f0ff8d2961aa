"""DivShare (WWW 2025, Algorithms 1 to 3): asynchronous; every fragment goes to recipients of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge

from decentral.errors import ConfigError
from decentral.fragments import Fragmenter
from decentral.mixing import average
from decentral.node import Node
from decentral.recipients import check_recipients, draw_recipients
from decentral.resampled import average_newest


@dataclass(frozen=True, kw_only=True)
class DivShare:
    """Train, refill the queue with fragments for random nodes, average with what came meanwhile.

    Args:
        local_steps: H, SGD steps per round.
        fragmenter: C: [d] -> [F]; F is ceil(1/Omega - 1e-9) for the paper's Omega, so 10 for 0.1.
        recipients: J, per fragment; the paper takes ceil(log2 n).
        flush: what is still queued when a round ends is stale and dropped; the transfer in progress goes on.
        resample: draw another map every round; the paper does not say, its code keeps one (algorithms.md D5).

    Deviations: the round ends with the aggregation instead of starting with it, as in the authors' code, and
    the trained model is kept, which Algorithm 1 forgets: the trajectory is the paper's (D1, D2). Every step
    draws a fresh batch (D3). The fragments of round k are sent during round k + 1. With ``resample`` a newer
    fragment of the same number still replaces an older one that waits, though the two cover other parameters.
    """

    synchronous: ClassVar[bool] = False
    hints: ClassVar[Mapping[str, str]] = {"omega": "use fragments.count = ceil(1 / Omega), so 10 for 0.1"}

    local_steps: int
    fragmenter: Fragmenter
    recipients: Annotated[int, Ge(1)] = 6
    flush: bool = True
    resample: bool = False

    def __post_init__(self) -> None:
        if self.resample and self.fragmenter.map not in ("per_tensor", "global"):
            raise ConfigError(
                f'fragments.map = "{self.fragmenter.map}": is not random, so algorithm.resample = true would '
                f'not change it; use map = "per_tensor" or "global"'
            )

    def check(self, n: int) -> None:
        """Refuse more recipients than there are other nodes."""
        check_recipients(self.recipients, n)

    def volume(self, n: int) -> float:
        """Whole models that a node queues per round: J, whatever F is."""
        return float(self.recipients)

    def run(self, node: Node) -> None:
        """Algorithm 1 at one node; Algorithms 2 and 3 are the draw and the network's sender."""
        maps = (node.resampled_fragments if self.resample else node.fragments)(self.fragmenter)
        mix = average_newest if self.resample else average
        refill = node.outqueue.replace if self.flush else node.outqueue.extend
        for k in node.rounds():
            node.train(steps=self.local_steps)
            fragments = maps.at(k)
            drawn = draw_recipients(
                node.rng("recipients", k), node.peers, fragments=len(fragments), count=self.recipients
            ).tolist()
            outgoing = [(j, node.message(k, f, fragments)) for f, chosen in enumerate(drawn) for j in chosen]
            refill(node.shuffled(outgoing, k))
            node.update(mix, node.inqueue.take_latest(), maps)  # eq. (1)


ALGORITHM = DivShare
