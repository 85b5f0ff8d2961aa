"""SwarmSGD (Nadiradze et al., NeurIPS 2021), non-blocking: pairs average models while they train on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from annotated_types import Gt

from decentral.arrays import FloatArray
from decentral.node import Node


@dataclass(frozen=True, kw_only=True)
class SwarmSgd:
    """Train, then average communication copies with a random node, which goes on with its own training.

    A node keeps a communication copy z, its model after its last averaging. What it has learned since, x - z,
    stays its own: both ends move x and z by the same vector, half the difference of their copies.

    Args:
        local_steps: H, SGD steps between averagings; the mean where ``steps_dist`` is geometric.
        steps_dist: ``fixed``, or ``geometric`` (the paper's analysis); a round lasts as long as its steps.
        request_timeout_s: after it a node goes on without averaging; None: it waits for ever. Where messages
            can be lost a timeout is needed.

    Deviations: nodes start exchanges at their own pace instead of by a global clock of random edges. The
    initiator moves by half the difference to the copy that it *sent*, though others may have moved its copy
    meanwhile: this conserves the sum of all models. No quantization.
    """

    synchronous: ClassVar[bool] = False

    local_steps: int
    steps_dist: Literal["fixed", "geometric"] = "fixed"
    request_timeout_s: Annotated[float, Gt(0)] | None = None

    def volume(self, n: int) -> float:
        """Whole models that a node queues per round: its request, and one answer on average."""
        return 2.0

    def run(self, node: Node) -> None:
        """One node's rounds; it answers others at any time."""
        node.fragments()
        kept = node.keep(z=node.x.copy())

        def partner(x: FloatArray, received: FloatArray) -> FloatArray:
            before: FloatArray = kept.z.copy()
            shift = (received - kept.z) * np.float32(0.5)
            kept.z += shift
            x += shift
            return before

        def steps(k: int) -> int:
            if self.steps_dist == "fixed":
                return self.local_steps
            return int(node.rng("steps", k).geometric(1 / self.local_steps))

        node.stretch(lambda k: steps(k) / self.local_steps)
        node.serve(partner)
        for k in node.rounds():
            node.train(steps=steps(k))
            sent = node.model_message(k, kept.z)
            node.ask(int(node.rng("partner", k).choice(node.peers)), sent)
            reply = node.answer(self.request_timeout_s)
            if reply is not None:
                node.apply((reply.values - sent.values) * np.float32(0.5))
                kept.z[:] = node.x


ALGORITHM = SwarmSgd
