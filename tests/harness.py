"""Runs one arm for a test, with the real executors, and gives back what it left behind."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from decentral.arrays import FloatArray
from decentral.config import Arm
from launch.compose import Composition, compose
from launch.display import Display
from launch.executors.base import Executor, Interruption, Job, Outcome
from launch.executors.inline import InlineExecutor
from launch.paths import JobFolder

QUADRATIC: dict[str, Any] = {
    "name": "test",
    "nodes": 8,
    "algorithm": {"name": "mosaic"},
    "topology": {"name": "regular", "settings": {"degree": 3}},
    "fragments": {"count": 4, "map": "global"},
    "data": {"name": "quadratic", "partition": {"name": "iid"}},
    "train": {"lr": 0.05, "batch": 2, "local_steps": 2},
    "run": {"max_rounds": 5, "test_after": 2},
}
"""Eight nodes, sixteen parameters, no torch: a run takes milliseconds."""


def arm(**tables: Any) -> Arm:
    """``QUADRATIC`` with whole keys replaced, or tables merged where both sides are tables."""
    merged = dict(QUADRATIC)
    for key, value in tables.items():
        base = merged.get(key)
        replace = not (isinstance(base, Mapping) and isinstance(value, Mapping)) or "name" in value
        merged[key] = value if replace else {**base, **value}  # type: ignore[dict-item]
    return Arm.model_validate_json(json.dumps(merged))


class SilentDisplay(Display):
    """Shows nothing and remembers what it was told."""

    def __init__(self) -> None:
        self.rounds: dict[int, int] = {}

    def progress(self, node: int, round: int, train_loss: float | None) -> None:
        self.rounds[node] = round

    def evaluated(self, node: int, round: int, metric: str, score: float, loss: float) -> None:
        pass


@dataclass(frozen=True)
class Result:
    """What one job left behind: final models, shape (n, d), and all events."""

    outcome: Outcome
    models: FloatArray
    nodes: list[list[dict[str, Any]]]
    metrics: list[dict[str, Any]]

    def column(self, event: str, key: str) -> list[list[Any]]:
        """``key`` of every ``event``, per node."""
        return [[line[key] for line in lines if line["event"] == event] for lines in self.nodes]


def events(path: Path) -> list[dict[str, Any]]:
    """All lines of one log."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def header(path: Path) -> dict[str, Any]:
    """The first line of a log that may still grow; its writer is at the start barrier or past it."""
    with path.open(encoding="utf-8") as file:
        line = file.readline()
    assert line.endswith("\n"), f"{path} has no header yet"
    content: dict[str, Any] = json.loads(line)
    return content


def run(
    settings: Arm,
    folder: Path,
    *,
    seed: int = 1,
    executor: Executor | None = None,
    display: Display | None = None,
) -> Result:
    """Run ``settings`` to its end, inline unless another executor is given (which stays open)."""
    job = Job(settings, seed, JobFolder(folder))
    used = executor or InlineExecutor()
    with Interruption().installed() as interruption:
        outcome = used.run(job, display or SilentDisplay(), interruption)
    if executor is None:
        used.close()
    assert outcome.state == "done", outcome.cause
    n = settings.nodes
    return Result(
        outcome,
        np.stack([np.load(job.folder.model(i)) for i in range(n)]),
        [events(job.folder.node_log(i)) for i in range(n)],
        events(job.folder.metrics),
    )


def mixing_matrix(composition: Composition, t: int, k: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Uniform W^(k) of round t, row i = weights of node i; a repeated source counts repeatedly."""
    n = composition.arm.nodes
    matrix = np.eye(n)
    for i in range(n):
        for j in composition.topology.sources(i, t, k):
            matrix[i, j] += 1
    return matrix / matrix.sum(axis=1, keepdims=True)


def composed(settings: Arm, seed: int = 1) -> Composition:
    """The parts of ``settings``."""
    return compose(settings, seed)
