"""Training speed of whole runs over the best plain loop: ``python tests/bench/training.py --nodes 16``.

The hand-tuned loop (tests/bench/handtuned.py, one process per core) is measured before and after the run, in
the same invocation, and the ratio divides by the mean of both. ``ratio`` covers everything from the start
barrier to the last node's last round; ``steady`` leaves the first two rounds out (first-touch page faults,
connections).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from launch.executors.local import LocalExecutor
from tests.bench.workload import Stopwatch, gn_lenet_arm, round_events, run_job, write_synthetic_cifar

WARM_ROUNDS = 2


def baseline_steps_per_s(seconds: float) -> float:
    """Total steps per second of one hand-tuned loop per core."""
    script = Path(__file__).with_name("handtuned.py")
    cores = len(os.sched_getaffinity(0))
    command = [sys.executable, str(script), "--seconds", str(seconds), "--processes", str(cores)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return float(json.loads(out.splitlines()[-1])["total_steps_per_s"])


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=16)
    parser.add_argument("--fragments", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--local-steps", type=int, default=8)
    parser.add_argument("--baseline-s", type=float, default=6.0)
    options = parser.parse_args()
    n, rounds, steps = options.nodes, options.rounds, options.local_steps
    with tempfile.TemporaryDirectory() as scratch:
        data, folder = Path(scratch) / "data", Path(scratch) / "run"
        write_synthetic_cifar(data)
        arm = gn_lenet_arm(data, nodes=n, fragments=options.fragments, rounds=rounds, local_steps=steps)
        before = baseline_steps_per_s(options.baseline_s)
        executor = LocalExecutor()
        run_job(arm, folder, Stopwatch(n), executor)
        executor.close()
        after = baseline_steps_per_s(options.baseline_s)
        logs = [round_events(folder, i) for i in range(n)]
    end = max(log[-1]["wall_s"] for log in logs)
    warm = sum(log[WARM_ROUNDS - 1]["wall_s"] for log in logs) / n
    all_steps = n * rounds * steps
    whole_rate = all_steps / end
    steady_rate = n * (rounds - WARM_ROUNDS) * steps / (end - warm)
    base = (before + after) / 2
    result = {
        "nodes": n,
        "fragments": options.fragments,
        "local_steps": steps,
        "rounds": rounds,
        "handtuned_before": round(before, 1),
        "handtuned_after": round(after, 1),
        "steps_per_s": round(whole_rate, 1),
        "ratio": round(whole_rate / base, 3),
        "steady": round(steady_rate / base, 3),
        "step_inside_node_ms": round(
            1e3 * sum(e["train_s"] for log in logs for e in log) / (n * rounds * steps), 2
        ),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
