"""Builds run folders as the launcher writes them, with curves known in closed form."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from decentral.records import FileRecorder


@dataclass(frozen=True, kw_only=True)
class SyntheticArm:
    """One arm whose node i of seed s scores ``level - decay(round) + offset(i) + offset(s)``.

    Attributes:
        level: score that an average node approaches.
        spread: half-range of the nodes' offsets, which are evenly spaced and sum to zero.
        seed_shift: added per seed number above 1.
        period_s: seconds per local round.
        diverged: nodes whose scores are null.
        settings: overrides of the arm's tables in resolved.json.
    """

    name: str
    level: float = 0.7
    spread: float = 0.05
    seed_shift: float = 0.01
    period_s: float = 0.25
    bytes_per_round: int = 2_000_000
    rounds: int = 20
    diverged: tuple[int, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)

    def score(self, node: int, nodes: int, round_: int, seed: int) -> float | None:
        if node in self.diverged:
            return None
        offset = self.spread * (2 * node / (nodes - 1) - 1) if nodes > 1 else 0.0
        return self.level * (1 - math.exp(-3 * round_ / self.rounds)) + offset + self.seed_shift * (seed - 1)


@dataclass(frozen=True, kw_only=True)
class SyntheticRun:
    """A run folder to be written.

    Attributes:
        stop: last round of some jobs, by (arm, seed); they end without final evaluation and end event.
        absent: jobs that never started.
    """

    arms: tuple[SyntheticArm, ...] = (SyntheticArm(name="mosaic"), SyntheticArm(name="el", level=0.65))
    seeds: tuple[int, ...] = (1, 2, 3)
    nodes: int = 4
    every: int = 5
    metric: str = "acc"
    higher_is_better: bool = True
    evaluations: bool = True
    state: str = "done"
    cause: str | None = None
    stop: dict[tuple[str, int], int] = field(default_factory=dict)
    absent: tuple[tuple[str, int], ...] = ()

    def write(self, folder: Path) -> Path:
        """Write the folder and return it."""
        folder.mkdir(parents=True)
        jobs = []
        for number, arm in enumerate(self.arms):
            for seed in self.seeds:
                relative = f"arm-{number}/seed-{seed}"
                stopped = (arm.name, seed) in self.stop
                state = self.state if stopped else "done"
                entry = {"arm": arm.name, "seed": seed, "folder": relative, "state": state}
                if (arm.name, seed) in self.absent:
                    entry["state"] = "pending"
                else:
                    self._write_job(folder / relative, arm, seed)
                jobs.append({**entry, "cause": self.cause if stopped else None, "wall_s": 12.5})
        (folder / "manifest.json").write_text(json.dumps(self._manifest(jobs)), encoding="utf-8")
        (folder / "resolved.json").write_text(json.dumps(self._resolved()), encoding="utf-8")
        (folder / "experiment.toml").write_text('name = "synthetic"\n', encoding="utf-8")
        return folder

    def _manifest(self, jobs: list[dict[str, Any]]) -> dict[str, Any]:
        host = {
            "name": "host-a",
            "cores": 2,
            "cpu": "Example CPU",
            "memory_bytes": 24 << 30,
            "kernel": "6.12",
        }
        return {
            "v": 1,
            "name": "synthetic",
            "command": ["decentral", "run", "synthetic.toml", "--seeds", "1,2,3"],
            "started_utc": "2026-01-02T03:04:05Z",
            "ended_utc": "2026-01-02T03:05:25Z",
            "state": self.state,
            "cause": self.cause,
            "exit_code": 0 if self.state == "done" else 4,
            "versions": {"python": "3.11.9", "torch": "2.13.0", "numpy": "2.4.6", "decentral": "0.1.0"},
            "git": {"commit": "0123456789abcdef0123456789abcdef01234567", "dirty": False},
            "hosts": [host],
            "placement": {"host-a": list(range(self.nodes))},
            "jobs": jobs,
        }

    def _resolved(self) -> dict[str, Any]:
        arms = [
            {
                "name": arm.name,
                "nodes": self.nodes,
                "algorithm": {"name": arm.name, "local_steps": 8},
                "topology": {"name": "regular", "degree": 2},
                "fragments": {"count": 8 if number == 0 else 1, "map": "per_tensor"},
                "data": {"name": "digits", "partition": "dirichlet", "alpha": 0.1},
                "train": {"lr": 0.05, "batch": 8},
                "run": {"clock": "virtual", "max_rounds": arm.rounds, "time_limit_s": None},
                "evaluate": {"every": self.every, "samples": 500},
                "compute": {"seconds_per_round": arm.period_s},
                **arm.settings,
            }
            for number, arm in enumerate(self.arms)
        ]
        description = "Synthetic curves."
        return {"name": "synthetic", "description": description, "seeds": list(self.seeds), "arms": arms}

    def _write_job(self, folder: Path, arm: SyntheticArm, seed: int) -> None:
        last = self.stop.get((arm.name, seed), arm.rounds)
        for node in range(self.nodes):
            self._write_node(folder / "nodes" / f"{node:03d}.jsonl", arm, seed, node, last)
        recorder = FileRecorder(folder / "metrics.jsonl")
        recorder.write(
            "header", run="r", arm=arm.name, seed=seed, algorithm="a", d=100, **self._shared_header()
        )
        for round_ in self._evaluated(last):
            scores = [arm.score(node, self.nodes, round_, seed) for node in range(self.nodes)]
            mean = None if None in scores else float(np.mean([s for s in scores if s is not None])) + 0.02
            fields: dict[str, Any] = {
                "models": self.nodes,
                "consensus": 3.0 * math.exp(-round_ / 10) + 0.1 * seed,
            }
            fields |= {"test_loss": 1.0 - (mean or 0.0), f"test_{self.metric}": mean}
            time_s = round_ * arm.period_s
            recorder.write(
                "evaluation", round=round_, time_s=time_s, split="test", samples=500, final=False, **fields
            )
            if round_ == arm.rounds:
                recorder.write(
                    "evaluation",
                    round=round_,
                    time_s=time_s,
                    split="test",
                    samples=10000,
                    final=True,
                    **fields,
                )
        if last == arm.rounds:
            recorder.write("end", reason="max_rounds")
        recorder.close()

    def _shared_header(self) -> dict[str, Any]:
        return {"nodes": self.nodes, "metric": self.metric, "higher_is_better": self.higher_is_better}

    def _evaluated(self, last: int) -> list[int]:
        return list(range(0, last + 1, self.every)) if self.evaluations else []

    def _write_node(self, path: Path, arm: SyntheticArm, seed: int, node: int, last: int) -> None:
        recorder = FileRecorder(path)
        header: dict[str, Any] = {
            "run": "r",
            "arm": arm.name,
            "seed": seed,
            "node": node,
            "host": "host-a",
            "pid": 100 + node,
        }
        recorder.write(
            "header", algorithm="a", d=100, shard=50, start_unix_s=1.0, **header, **self._shared_header()
        )
        evaluated = set(self._evaluated(last))
        for round_ in range(last + 1):
            clock: dict[str, Any] = {"node": node, "round": round_, "time_s": round_ * arm.period_s}
            clock["wall_s"] = round_ * 0.1
            counters = self._counters(arm, round_)
            if round_:
                loss = 2.3 * math.exp(-round_ / arm.rounds) if node not in arm.diverged else math.nan
                recorder.write(
                    "round", **clock, train_s=0.2, wait_s=0.05, train_loss=loss, **counters, staleness=0.0
                )
            if round_ in evaluated:
                score = arm.score(node, self.nodes, round_, seed)
                scores: dict[str, Any] = {
                    "test_loss": 1 - score if score is not None else None,
                    f"test_{self.metric}": score,
                }
                sent = counters["total_bytes"]
                subset: dict[str, Any] = {
                    "split": "test",
                    "samples": 500,
                    "final": False,
                    "total_bytes": sent,
                }
                recorder.write("evaluation", **clock, **subset, **scores)
                if round_ == arm.rounds:
                    recorder.write(
                        "evaluation", **clock, **{**subset, "samples": 10000, "final": True}, **scores
                    )
        if last == arm.rounds:
            recorder.write(
                "end", **clock, reason="max_rounds", model_sha256="00" * 32, **self._counters(arm, last)
            )
        recorder.close()

    def _counters(self, arm: SyntheticArm, round_: int) -> dict[str, int]:
        made = 6 * round_
        return {
            "total_bytes": arm.bytes_per_round * round_,
            "total_meta": 40 * made,
            "made": made,
            "sent": made - round_,
            "received": made - round_,
            "replaced": 0,
            "dropped": round_,
        }
