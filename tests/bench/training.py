"""Training speed of whole runs over the best plain loop: ``python tests/bench/training.py --nodes 16``.

The hand-tuned loop (tests/bench/handtuned.py, one process per core) is measured before and after every run,
in the same invocation, and each ratio divides by the mean of both; the median over ``--repeats`` is what
counts, because on a shared machine single ones scatter by tens of percent.

``ratio``   steps per second from the start barrier to the last node's last round, over the loop's
``steady``  the same without the first two rounds (first-touch page faults, connections)
``cpu``     CPU time of one step of the loop, over all CPU time of the nodes (training, messages, ZeroMQ's
            threads, aggregation, logs) per step: what is left of a core; insensitive to what else runs
``timekeeper``  its share of the CPU time of all members, set-up left out

``--algorithm divshare`` trains DivShare's experiment (half the nodes 5 times slower) instead of Mosaic on an
ideal network; ``--task movielens`` does so with matrix factorization, for which ``DECENTRAL_DATA`` must name
the folder of the data sets and there is no hand-tuned loop: only ``timekeeper`` is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil

from decentral.config import Arm
from launch.executors.local import LocalExecutor
from tests.bench.workload import (
    Stopwatch,
    divshare_arm,
    gn_lenet_arm,
    round_events,
    run_job,
    timekeeper_cpu_s,
    write_synthetic_cifar,
)

WARM_ROUNDS = 2


def handtuned(seconds: float) -> tuple[float, float]:
    """Total steps per second of one hand-tuned loop per core, and its CPU milliseconds per step."""
    script = Path(__file__).with_name("handtuned.py")
    cores = len(os.sched_getaffinity(0))
    command = [sys.executable, str(script), "--seconds", str(seconds), "--processes", str(cores)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    result = json.loads(out.splitlines()[-1])
    return float(result["total_steps_per_s"]), float(result["cpu_ms_per_step"])


def members_cpu_s() -> float:
    """CPU seconds of all members that the agent has waited for."""
    (agent,) = psutil.Process().children()
    times = agent.cpu_times()
    return float(times.children_user + times.children_system)


class Bench:
    """Runs of one size under one agent.

    Args:
        options: the command line.
        scratch: an empty folder.
    """

    def __init__(self, options: argparse.Namespace, scratch: Path) -> None:
        self._options = options
        self._scratch = scratch
        self._runs = 0
        self._executor = LocalExecutor()
        if options.task == "cifar10":
            self._data = scratch / "data"
            write_synthetic_cifar(self._data)
        else:
            self._data = scratch

    def run(self, rounds: int) -> tuple[list[list[dict[str, float]]], float, float]:
        """One run: the nodes' round events, the CPU seconds of all members, and of the timekeeper."""
        self._runs += 1
        n = self._options.nodes
        arm = self._arm(n, rounds, self._options.local_steps)
        folder = self._scratch / str(self._runs)
        self._executor.start()
        before = members_cpu_s()
        run_job(arm, folder, Stopwatch(n), self._executor)
        logs = [round_events(folder, i) for i in range(n)]
        return logs, members_cpu_s() - before, timekeeper_cpu_s(folder)

    def _arm(self, n: int, rounds: int, steps: int) -> Arm:
        if self._options.algorithm == "divshare":
            return divshare_arm(
                self._data, nodes=n, rounds=rounds, local_steps=steps, task=self._options.task
            )
        return gn_lenet_arm(
            self._data, nodes=n, fragments=self._options.fragments, rounds=rounds, local_steps=steps
        )

    def close(self) -> None:
        """End the agent."""
        self._executor.close()


def main() -> None:
    """Print one JSON line per repeat and one with the medians."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=16)
    parser.add_argument("--fragments", type=int, default=1)
    parser.add_argument("--algorithm", choices=("mosaic", "divshare"), default="mosaic")
    parser.add_argument("--task", choices=("cifar10", "movielens"), default="cifar10")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--local-steps", type=int, default=8)
    parser.add_argument("--baseline-s", type=float, default=4.0)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    n, rounds, steps = options.nodes, options.rounds, options.local_steps
    found: dict[str, list[float]] = {"ratio": [], "steady": [], "cpu": [], "timekeeper": []}
    if options.task == "movielens":
        found = {"timekeeper": []}
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(options, Path(scratch))
        try:
            _, fixed_cpu_s, fixed_keeper_s = bench.run(WARM_ROUNDS)  # fork, set-up, evaluations, first touch
            before, before_cpu_ms = handtuned(options.baseline_s)
            for _ in range(options.repeats):
                logs, cpu_s, keeper_s = bench.run(rounds)
                found["timekeeper"].append((keeper_s - fixed_keeper_s) / (cpu_s - fixed_cpu_s))
                if options.task == "movielens":
                    print(json.dumps({"timekeeper": round(found["timekeeper"][-1], 4)}), flush=True)
                    continue
                after, after_cpu_ms = handtuned(options.baseline_s)
                base, base_cpu_ms = (before + after) / 2, (before_cpu_ms + after_cpu_ms) / 2
                end = max(log[-1]["wall_s"] for log in logs)
                warm = sum(log[WARM_ROUNDS - 1]["wall_s"] for log in logs) / n
                steady_steps = n * (rounds - WARM_ROUNDS) * steps
                found["ratio"].append(n * rounds * steps / end / base)
                found["steady"].append(steady_steps / (end - warm) / base)
                found["cpu"].append(base_cpu_ms / (1e3 * (cpu_s - fixed_cpu_s) / steady_steps))
                line = {name: round(values[-1], 4) for name, values in found.items()}
                print(json.dumps({**line, "handtuned": [round(before, 1), round(after, 1)]}), flush=True)
                before, before_cpu_ms = after, after_cpu_ms
        finally:
            bench.close()
    medians = {name: round(statistics.median(values), 4) for name, values in found.items()}
    print(json.dumps({"nodes": n, "fragments": options.fragments, "local_steps": steps, "median": medians}))


if __name__ == "__main__":
    main()
