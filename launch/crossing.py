"""How much of what nodes send leaves its host: from an arm's graph, or as expected where there is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from decentral.topology import Topology
from launch.compose import compose
from launch.placement import Placement
from launch.preflight import FLOAT_BYTES, Demand

SAMPLED_FRAGMENTS = 4


@dataclass(frozen=True)
class Crossing:
    """Payload that one host sends to others, without control messages.

    Attributes:
        round_bytes: between nodes, per round of each; None where the algorithm does not tell what it sends.
        snapshot_bytes: to the observer, per evaluation of each node.
    """

    round_bytes: float | None
    snapshot_bytes: int

    def run_bytes(self, rounds: int, evaluations: int) -> float | None:
        """In a run of so many rounds and evaluations of each node; None where that is unknown."""
        if self.round_bytes is None or not rounds:
            return None
        return rounds * self.round_bytes + evaluations * self.snapshot_bytes


def crossings(demand: Demand, seed: int, placement: Placement) -> Mapping[str, Crossing]:
    """What every host of ``placement`` sends to others at most: what slow links drop is never sent.

    Of a graph it is that of round 0 (the first ``SAMPLED_FRAGMENTS`` fragments); without one, recipients are
    taken to be drawn uniformly from all other nodes.
    """
    composition = compose(demand.arm, seed)
    model_bytes, volume = FLOAT_BYTES * demand.d, composition.volume
    fragments = min(SAMPLED_FRAGMENTS, demand.arm.fragments.count)
    observer = placement.host_of[placement.n]
    found = {}
    for host in placement.cores:
        nodes = placement.nodes_on(host)
        if composition.topology is None:
            share = (placement.n - len(nodes)) / (placement.n - 1)
            models = None if volume is None else volume * len(nodes) * share
        else:
            sent, crossed = _edges(composition.topology, placement, host, fragments)
            tells = hasattr(composition.algorithm(local_steps=1), "volume")
            if tells and volume is not None:
                models = volume * len(nodes) * crossed / sent if sent else 0.0
            else:
                models = crossed / fragments
        bytes_ = None if models is None else models * model_bytes
        found[host] = Crossing(bytes_, 0 if host == observer else len(nodes) * model_bytes)
    return found


def _edges(topology: Topology, placement: Placement, host: str, fragments: int) -> tuple[int, int]:
    """Messages of round 0 that nodes on ``host`` send, and those of them that go to another host."""
    targets = [
        target
        for node in placement.nodes_on(host)
        for k in range(fragments)
        for target in topology.targets(node, 0, k)
    ]
    return len(targets), sum(placement.host_of[target] != host for target in targets)
