"""What the speed scripts share: CIFAR-shaped synthetic data, an arm on it, a display that keeps time.

Speed does not depend on what is in the pictures, so the scripts need no data set. The test split is tiny,
so that a run is nearly all training and messages.
"""

from __future__ import annotations

import json
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from decentral.config import Arm
from launch.display import Display
from launch.executors.base import Interruption, Job, Outcome
from launch.executors.local import LocalExecutor
from launch.paths import JobFolder

TRAIN_ROWS_PER_FILE = 2_000
TEST_ROWS = 16


def write_synthetic_cifar(folder: Path) -> None:
    """CIFAR-10's files with random pictures: five training batches and a small test batch."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        rows = TEST_ROWS if name == "test_batch" else TRAIN_ROWS_PER_FILE
        batch = {
            b"data": rng.integers(0, 256, size=(rows, 3072), dtype=np.uint8),
            b"labels": rng.integers(0, 10, size=rows).tolist(),
        }
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))


def gn_lenet_arm(folder: Path, *, nodes: int, fragments: int, rounds: int, local_steps: int = 8) -> Arm:
    """GN-LeNet, b = 8, regular degree 4 redrawn every round; evaluation on 16 rows at start and end only."""
    table: dict[str, Any] = {
        "name": f"n={nodes} K={fragments}",
        "nodes": nodes,
        "algorithm": {"name": "mosaic"},
        "topology": {"name": "regular", "settings": {"degree": 4}},
        "fragments": {"count": fragments},
        "data": {"name": "cifar10", "settings": {"folder": str(folder), "verify": False}},
        "train": {"lr": 0.01, "batch": 8, "local_steps": local_steps},
        "run": {"max_rounds": rounds, "test_after": rounds, "save_models": False},
    }
    return Arm.model_validate_json(json.dumps(table))


def divshare_arm(folder: Path, *, nodes: int, rounds: int, local_steps: int, task: str = "cifar10") -> Arm:
    """DivShare's own experiment (algorithms.md 10.1): Omega = 0.1, half the nodes 5 times slower.

    Args:
        folder: synthetic CIFAR-10; MovieLens is found where DECENTRAL_DATA says.
        nodes: n.
        rounds: local rounds.
        local_steps: H; the paper's are 128 (CIFAR-10) and 400 (MovieLens).
        task: ``cifar10`` or ``movielens``.
    """
    images = task == "cifar10"
    partition = {"name": "shards", "settings": {"shards": 5}} if images else {"name": "by_group"}
    settings: dict[str, Any] = {"folder": str(folder), "verify": False} if images else {}
    recipients = 6 if nodes > 16 else 4
    fast = {"fast_mbps": 60.0 if images else 200.0, "stragglers": nodes // 2, "straggler_factor": 5.0}
    table: dict[str, Any] = {
        "name": f"divshare n={nodes}",
        "nodes": nodes,
        "algorithm": {"name": "divshare", "settings": {"recipients": recipients}},
        "fragments": {"count": 10},
        "data": {"name": task, "settings": settings, "partition": partition},
        "train": {"lr": 0.01, "batch": 8 if images else 2, "local_steps": local_steps},
        "network": {"name": "star", "settings": fast},
        "compute": {"time_per_round": "match_comm", "recipients": recipients},
        "run": {"max_rounds": rounds, "test_after": rounds, "save_models": False},
        "evaluate": {"samples": 16},
    }
    return Arm.model_validate_json(json.dumps(table))


def timekeeper_cpu_s(folder: Path) -> float:
    """CPU seconds of a job's timekeeper."""
    last = JobFolder(folder).network.read_text(encoding="utf-8").splitlines()[-1]
    return float(json.loads(last)["cpu_s"])


class Stopwatch(Display):
    """Notes when each node reached which round.

    Args:
        on_round: called at every progress message with the smallest round over all nodes.
    """

    def __init__(self, nodes: int, on_round: Callable[[int], None] | None = None) -> None:
        self.rounds = dict.fromkeys(range(nodes), 0)
        self.first_s: dict[int, float] = {}
        self.evaluated_s = 0.0
        self._on_round = on_round

    def progress(self, node: int, round: int, train_loss: float | None) -> None:
        """Note the time of a node's first finished round."""
        self.rounds[node] = round
        self.first_s.setdefault(node, time.time())
        if self._on_round is not None:
            self._on_round(min(self.rounds.values()))

    def evaluated(self, node: int, round: int, metric: str, score: float, loss: float) -> None:
        """Note the time of the first evaluation, which follows the start barrier at once."""
        self.evaluated_s = self.evaluated_s or time.time()


def run_job(arm: Arm, folder: Path, display: Display, executor: LocalExecutor) -> Outcome:
    """Run ``arm`` on processes; raises if it does not end well."""
    with Interruption().installed() as interruption:
        outcome = executor.run(Job(arm, 1, JobFolder(folder)), display, interruption)
    if outcome.state != "done":
        raise RuntimeError(outcome.cause)
    return outcome


def round_events(folder: Path, node: int) -> list[dict[str, Any]]:
    """A node's ``round`` events."""
    lines = JobFolder(folder).node_log(node).read_text(encoding="utf-8").splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == "round"]
