"""Private memory per GN-LeNet node once all have talked to all: ``python tests/bench/memory.py``.

Counts ``Private_Dirty`` of ``/proc/PID/smaps_rollup``: USS would count file pages of the data set that only
one node has touched so far.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path

import psutil

from launch.executors.local import LocalExecutor
from tests.bench.workload import Stopwatch, gn_lenet_arm, run_job, write_synthetic_cifar


def private_dirty_mb(pid: int) -> float:
    """Private dirty megabytes (1e6 bytes) of a process."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines():
        if line.startswith("Private_Dirty:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError(f"no Private_Dirty for process {pid}")


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=16)
    parser.add_argument("--fragments", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--local-steps", type=int, default=8)
    options = parser.parse_args()
    n = options.nodes
    found: list[float] = []
    connections: list[int] = []

    def measure(slowest: int) -> None:
        if found or slowest < options.rounds - 3:
            return
        members = [p for p in psutil.Process().children(recursive=True) if p.ppid() != psutil.Process().pid]
        # The observer has the largest footprint (it holds all models); nodes are what is asked for.
        sizes = sorted(private_dirty_mb(p.pid) for p in members)
        found.extend(sizes[:n])
        connections.extend(sorted(p.num_fds() for p in members)[:n])

    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "data"
        write_synthetic_cifar(data)
        arm = gn_lenet_arm(data, nodes=n, fragments=options.fragments, rounds=options.rounds, local_steps=8)
        executor = LocalExecutor()
        run_job(arm, Path(scratch) / "run", Stopwatch(n, measure), executor)
        executor.close()
    result = {
        "nodes": n,
        "fragments": options.fragments,
        "rounds": options.rounds,
        "private_dirty_mb_mean": round(statistics.mean(found), 1),
        "private_dirty_mb_max": round(max(found), 1),
        "descriptors_mean": round(statistics.mean(connections), 1),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
