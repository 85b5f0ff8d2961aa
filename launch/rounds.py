"""How many local rounds a run can have, as far as that is known before it starts."""

from __future__ import annotations

from math import ceil

from decentral.clock import NS_PER_S
from decentral.config import Arm
from launch.compose import compose


def most_rounds(arm: Arm, seed: int) -> int:
    """Most local rounds that a node of ``arm`` can reach; 0 where that depends on this machine's speed."""
    bounds = [] if arm.run.max_rounds is None else [arm.run.max_rounds]
    composition = compose(arm, seed)
    if arm.run.time_limit_s is not None and arm.run.clock == "virtual" and not composition.measured:
        fastest_ns = min(composition.compute.nominal_of_ns(node) for node in range(arm.nodes))
        bounds.append(ceil(arm.run.time_limit_s * NS_PER_S / fastest_ns))
    return min(bounds, default=0)
