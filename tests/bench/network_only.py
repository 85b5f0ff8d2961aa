"""How long the emulation of a network alone takes: DivShare among many nodes that do not train.

    python -m tests.bench.network_only [NODES [ROUNDS]]

Default: 1000 nodes, 10 rounds, F = 10 fragments to J = 6 recipients each (600 000 messages), GN-LeNet's
89 834 parameters, half the nodes with uplinks 5 times slower. All nodes run in this process; a transfer is a
message that left its uplink whole.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from typing import Any

from decentral.config import Arm
from launch.executors.base import Interruption
from launch.untrained import FATES, emulate, rows_of
from tests.bench.workload import Stopwatch


def network_only_arm(nodes: int, rounds: int) -> Arm:
    """DivShare (Omega = 0.1, J = 6) on CIFAR-10's model in a star with stragglers; no data is read."""
    table: dict[str, Any] = {
        "name": f"n={nodes}",
        "nodes": nodes,
        "algorithm": {"name": "divshare", "settings": {"recipients": 6}},
        "fragments": {"count": 10},
        "data": {"name": "cifar10"},
        "train": {"mode": "none", "lr": 0.05, "batch": 8, "local_steps": 8},
        "network": {"name": "star", "settings": {"stragglers": nodes // 2}},
        "compute": {"time_per_round": "match_comm"},
        "run": {"max_rounds": rounds, "test_after": rounds},
    }
    return Arm.model_validate_json(json.dumps(table))


def main() -> None:
    """Emulate once and print what it took."""
    given = [int(word) for word in sys.argv[1:]]
    nodes, rounds = [*given, *(1000, 10)[len(given) :]]
    arm = network_only_arm(nodes, rounds)
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    with Interruption().installed() as interruption:
        emulated = emulate(arm, seed=1, display=Stopwatch(nodes), interruption=interruption)
    wall_s, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
    made, delivered, replaced, dropped = (int(emulated.sums[rows_of(fate)][0].sum()) for fate in FATES)
    transfers = delivered + replaced
    print(f"{nodes} nodes, {rounds} rounds: {emulated.time_s:.1f} emulated seconds in {wall_s:.1f} s")
    print(f"{made} messages made, {transfers} transferred, {dropped} dropped")
    print(f"{transfers / wall_s:.0f} transfers/s, {1e6 * wall_s / transfers:.1f} us per transfer")
    print(f"{1e6 * wall_s / made:.1f} us per message, {1e6 * cpu_s / made:.1f} us of CPU time")
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"peak memory {peak_kib / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
