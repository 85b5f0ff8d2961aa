"""SWIFT (Bornstein et al., ICLR 2023): wait-free; averages with the last known models of fixed neighbors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge

from decentral.ccs import ccs_weights
from decentral.errors import ConfigError
from decentral.graphs import reachable
from decentral.messages import Message
from decentral.mixing import metropolis_hastings, weighted
from decentral.node import Node
from decentral.topology import Topology


@dataclass(frozen=True, kw_only=True)
class Swift:
    """Find an update, broadcast the model, average with every neighbor's newest one, apply the update.

    A round ends with the averaging, as with all other algorithms, and its model is scored then; the update is
    applied at the beginning of the next one, which changes nothing in the sequence of models.

    Args:
        local_steps: H; a step of the paper is a local round of H steps here.
        topology: a static connected undirected graph.
        comm_set: s of the communication set C_s: average in every (s + 1)-th round.
        weights: ``ccs`` (decentral.ccs), or ``mh`` for Metropolis-Hastings.
        broadcast: ``every_step`` as in the authors' code, or only ``on_average``.
        flush: drop what is still queued when a round ends; the authors' code does not.

    Deviations: a neighbor that has not been heard of yet counts with the common initial model; with another
    ``run.init`` than common, with this node's own. Influence scores are uniform, as in the authors' code.
    Neighbors are sent to in random order, else a flush would always drop the same ones' messages.
    """

    synchronous: ClassVar[bool] = False

    local_steps: int
    topology: Topology
    comm_set: Annotated[int, Ge(0)] = 0
    weights: Literal["ccs", "mh"] = "ccs"
    broadcast: Literal["every_step", "on_average"] = "every_step"
    flush: bool = False

    def __post_init__(self) -> None:
        fault = "" if self.topology.symmetric else "directed"
        fault = "redrawn every round" if getattr(self.topology, "dynamic", False) else fault
        if fault:
            raise ConfigError(
                f"topology = {type(self.topology).__name__}: swift needs a static undirected graph, this one "
                f"is {fault}; use ring, or regular with dynamic = false"
            )

    def check(self, n: int) -> None:
        """Refuse a graph that is not connected."""
        reached = len(reachable(tuple(self.topology.targets(i, 0, 0) for i in range(n))))
        if reached < n:
            raise ConfigError(
                f"topology: swift needs a connected graph, node 0 reaches {reached} of {n} nodes; add edges"
            )

    def volume(self, n: int) -> float:
        """Whole models that a node queues per round: the mean degree, as often as it broadcasts."""
        degree = sum(len(self.topology.targets(i, 0, 0)) for i in range(n)) / n
        return degree / (1 if self.broadcast == "every_step" else self.comm_set + 1)

    def run(self, node: Node) -> None:
        """One node's rounds: last update, new update, broadcast, x = w_ii x + sum of w_ij last_j."""
        whole = node.fragments()
        graph = tuple(self.topology.targets(i, 0, 0) for i in range(node.n))
        neighbors = graph[node.id]
        degrees = {j: len(graph[j]) for j in neighbors}
        mh = metropolis_hastings(len(neighbors), degrees)
        mix = weighted(mh if self.weights == "mh" else ccs_weights(graph)[node.id])
        first = node.message(0, 0, whole)
        mailbox: dict[int, Message] = {j: first._replace(sender=j) for j in neighbors}
        kept = node.keep(mailbox=mailbox, update=None)
        refill = node.outqueue.replace if self.flush else node.outqueue.extend
        for k in node.rounds():
            if kept.update is not None:
                node.apply(kept.update)
            kept.update = node.local_update(steps=self.local_steps)
            average = (k + 1) % (self.comm_set + 1) == 0
            if average or self.broadcast == "every_step":
                refill(node.shuffled([(j, node.message(k, 0, whole)) for j in neighbors], k))
            if average:
                kept.mailbox |= {message.sender: message for message in node.inqueue.peek_latest()}
                node.update(mix, [each for j, each in kept.mailbox.items() if j not in node.lost], whole)


ALGORITHM = Swift
