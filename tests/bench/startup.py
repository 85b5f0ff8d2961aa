"""From the launcher's ``exec`` to the last node's first finished step: ``python tests/bench/startup.py``."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import psutil

from launch.executors.local import LocalExecutor
from tests.bench.workload import Stopwatch, gn_lenet_arm, run_job, write_synthetic_cifar


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=60)
    parser.add_argument("--data", type=Path, help="synthetic CIFAR files; made (and timed) where absent")
    options = parser.parse_args()
    began = psutil.Process().create_time()
    with tempfile.TemporaryDirectory() as scratch:
        data = options.data or Path(scratch) / "data"
        if not (data / "test_batch").exists():
            write_synthetic_cifar(data)
        arm = gn_lenet_arm(data, nodes=options.nodes, fragments=1, rounds=1, local_steps=1)
        watch = Stopwatch(options.nodes)
        executor = LocalExecutor()
        run_job(arm, Path(scratch) / "run", watch, executor)
        executor.close()
    took = max(watch.first_s.values()) - began
    print(json.dumps({"nodes": options.nodes, "exec_to_last_first_step_s": round(took, 2)}))


if __name__ == "__main__":
    main()
