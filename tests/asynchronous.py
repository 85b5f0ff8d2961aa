"""Arms of asynchronous algorithms for tests: tiny models, links that are as slow as computing is short."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from decentral.arrays import FloatArray
from decentral.config import Arm
from launch.build import load_workload
from tests.harness import Result, arm, events

ROUND_S = 5e-5
"""Sixteen float32, the model of the tests, take 8.5 us at the 60 Mbit/s of a star's fast links."""

FATES = (
    "delivered",
    "replaced",
    "dropped_flush",
    "dropped_abort",
    "dropped_loss",
    "dropped_end",
    "dropped_lost_node",
    "in_flight",
)


def star(**settings: Any) -> dict[str, Any]:
    """A star of 60 Mbit/s without latency, unless ``settings`` say otherwise."""
    return {"name": "star", "settings": {"fast_mbps": 60.0, "latency_ms": 0.0, **settings}}


def contender(name: str, settings: dict[str, Any] | None = None, *, rounds: int = 8, **tables: Any) -> Arm:
    """An arm of algorithm ``name`` on a fast star, with what else it needs."""
    run: dict[str, Any] = {"max_rounds": rounds, "test_after": rounds, **tables.pop("run", {})}
    settings = dict(settings or {})
    if name == "gossip":
        settings.setdefault("period_s", ROUND_S)
        run |= {"max_rounds": None, "time_limit_s": run.get("time_limit_s", rounds * ROUND_S)}
    base: dict[str, Any] = {
        "algorithm": {"name": name, "settings": settings},
        "topology": {"name": "regular", "settings": {"degree": 3, "dynamic": False}}
        if name == "swift"
        else None,
        "fragments": {"count": 4 if name == "divshare" else 1, "map": "global"},
        "network": star(),
        "compute": {"time_per_round": ROUND_S},
    }
    return arm(**{**base, **tables, "run": run})


def accounts(folder: Path) -> dict[int, dict[str, Any]]:
    """Per sender, what became of its messages, summed over destinations; every link's account is checked."""
    sums: dict[int, dict[str, Any]] = {}
    for line in events(folder / "network.jsonl"):
        if line["event"] != "links":
            continue
        for unit in ("", "_bytes"):
            assert np.sum([line[fate + unit] for fate in FATES], axis=0).tolist() == line["made" + unit]
            assert np.min([line[fate + unit] for fate in FATES], initial=0) >= 0
        sums[line["node"]] = {
            key: sum(value) for key, value in line.items() if isinstance(value, list) and key != "to"
        }
    return sums


def transfers(folder: Path) -> list[dict[str, Any]]:
    """Transfers that began in the first nominal rounds, in order of their ends."""
    return [line for line in events(folder / "network.jsonl") if line["event"] == "transfer"]


def initial_models(made: Arm, seed: int = 1) -> FloatArray:
    """Every node's model before round 0, shape (n, d)."""
    workload = load_workload(made, seed, {})
    return np.stack([workload.initial(i) for i in range(made.nodes)])


def waits(result: Result, node: int) -> list[float]:
    """How long ``node`` waited in each of its rounds, in seconds."""
    return [line["wait_s"] for line in result.nodes[node] if line["event"] == "round"]


def rounds(result: Result, node: int) -> int:
    """Local rounds of ``node``."""
    return len(waits(result, node))
