"""How long 60 GN-LeNet nodes take to start: ``python tests/bench/startup.py``.

From the launcher's ``exec`` until all nodes are at work (the start barrier has fallen and the first of them
has reported its initial score), and until the last of them has finished a whole first round of one step:
training, exchange with four neighbors, aggregation.
"""

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
    result = {
        "nodes": options.nodes,
        "exec_to_all_nodes_ready_s": round(watch.evaluated_s - began, 2),
        "exec_to_last_first_round_s": round(max(watch.first_s.values()) - began, 2),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
