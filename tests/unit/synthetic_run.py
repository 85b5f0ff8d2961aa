"""Builds run folders as the launcher writes them, with curves known in closed form."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from decentral.records import FileRecorder
from tests.unit.synthetic_network import FAST_BPS, Uplink, network_lines, serve, write_lines

MESSAGES = 6
SLOWER = 5


@dataclass(frozen=True, kw_only=True)
class SyntheticArm:
    """One arm whose node i of seed s scores ``level - decay(round) + offset(i) + offset(s)``.

    Attributes:
        level: score that an average node approaches.
        spread: half-range of the nodes' offsets, which are evenly spaced and sum to zero.
        seed_shift: added per seed number above 1.
        period_s: seconds per local round.
        diverged: nodes whose scores are null.
        asynchronous: nodes refill their queues every round without waiting for anybody.
        stagger: relative slow-down of computing from one node to the next; asynchronous arms only.
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
    asynchronous: bool = False
    stagger: float = 0.0
    settings: dict[str, Any] = field(default_factory=dict)

    def period(self, node: int, spec: SyntheticRun) -> float:
        """Seconds of a round of ``node``; synchronous arms wait until the slowest uplink has sent all."""
        if self.asynchronous:
            return self.period_s * (1 + self.stagger * node)
        return self.period_s + (MESSAGES * spec.transfer_s(self, slow=spec.slow > 0) if spec.network else 0.0)

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
        network: whether there is an emulated network, with its log; without it, time is but compute time.
        slow: number of nodes, the first ones, whose uplinks are five times slower.
        clock: as the manifest names it.
        target: as resolved.json names it.
        fidelity: content of fidelity.json by (arm, seed).
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
    network: bool = False
    slow: int = 0
    clock: str = "virtual"
    target: float | None = None
    fidelity: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)

    def transfer_s(self, arm: SyntheticArm, *, slow: bool) -> float:
        """Seconds of one message: a fast uplink sends a round's six in three quarters of a round."""
        return arm.period_s / 8 * (SLOWER if slow else 1)

    def uplinks(self, arm: SyntheticArm, last: int) -> tuple[list[Uplink], float]:
        """What the nodes of ``arm`` sent in ``last`` rounds, and when the last of them ended."""
        end_s = max(arm.period(node, self) * last for node in range(self.nodes))
        served = []
        for node in range(self.nodes):
            # Computing comes first: in a synchronous round, messages leave at the end of the compute window.
            first = arm.period(node, self) if arm.asynchronous else arm.period_s
            refills = [first + arm.period(node, self) * k for k in range(last)]
            refills = [when for when in refills if when < end_s]
            each_s = self.transfer_s(arm, slow=node < self.slow)
            served.append(
                serve(
                    *(node, self.nodes), refills=refills, messages=MESSAGES, each_s=each_s, end_s=end_s + 1e-9
                )
            )
        return served, end_s

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
        host = {"name": "host-a", "cores": 2, "cpu": "Example CPU", "memory_bytes": 24 << 30}
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
            "hosts": [{**host, "kernel": "6.12"}],
            "placement": {"host-a": list(range(self.nodes))},
            "jobs": jobs,
            "clock": self.clock,
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
                "network": {"name": "star", "settings": {"latency_ms": 1.0, "contention": "uplink"}},
                "run": {"clock": "virtual", "max_rounds": arm.rounds, "time_limit_s": None},
                "evaluate": {"every": self.every, "samples": 500},
                "compute": {"time_per_round": arm.period_s},
                **arm.settings,
            }
            for number, arm in enumerate(self.arms)
        ]
        description = "Synthetic curves."
        head = {"name": "synthetic", "description": description, "seeds": list(self.seeds)}
        return {**head, "target": self.target, "arms": arms}

    def _write_job(self, folder: Path, arm: SyntheticArm, seed: int) -> None:
        last = self.stop.get((arm.name, seed), arm.rounds)
        uplinks, end_s = self.uplinks(arm, last) if self.network and last else ([], 0.0)
        if uplinks:
            self._write_network(folder / "network.jsonl", arm, seed, uplinks=uplinks, end_s=end_s)
        if (arm.name, seed) in self.fidelity:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "fidelity.json").write_text(json.dumps(self.fidelity[arm.name, seed]))
        for node in range(self.nodes):
            path = folder / "nodes" / f"{node:03d}.jsonl"
            self._write_node(path, arm, seed, node, last=last, uplink=uplinks[node] if uplinks else None)
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
            # Of an asynchronous arm, at multiples of the nominal compute time.
            time_s = round_ * (arm.period_s if arm.asynchronous else arm.period(0, self))
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

    def _write_network(
        self, path: Path, arm: SyntheticArm, seed: int, *, uplinks: list[Uplink], end_s: float
    ) -> None:
        header = {"run": "r", "arm": arm.name, "seed": seed, "contention": "uplink", "concurrency": 1}
        header |= {"abort_on_flush": False, "overhead_bytes": 0, "overhead_s": 0.0, "loss": 0.0}
        stagger = arm.stagger if arm.asynchronous else 0.0
        header |= {
            "jitter_s": 0.0,
            "compute_s": [arm.period_s * (1 + stagger * i) for i in range(self.nodes)],
        }
        lines = network_lines(
            uplinks,
            header=header,
            rates=[FAST_BPS / SLOWER if node < self.slow else FAST_BPS for node in range(self.nodes)],
            message_bytes=arm.bytes_per_round // MESSAGES,
            end_s=end_s,
            logged_s=5 * arm.period_s,
        )
        write_lines(path, lines)

    def _write_node(
        self, path: Path, arm: SyntheticArm, seed: int, node: int, *, last: int, uplink: Uplink | None
    ) -> None:
        recorder = FileRecorder(path)
        header: dict[str, Any] = {"run": "r", "arm": arm.name, "seed": seed, "node": node}
        header |= {"host": "host-a", "pid": 100 + node}
        recorder.write(
            "header", algorithm="a", d=100, shard=50, start_unix_s=1.0, **header, **self._shared_header()
        )
        evaluated = set(self._evaluated(last))
        for round_ in range(last + 1):
            time_s = round_ * arm.period(node, self)
            clock: dict[str, Any] = {"node": node, "round": round_, "time_s": time_s}
            clock["wall_s"] = round_ * 0.1
            counters = self._counters(arm, round_, uplink, time_s)
            computed = arm.period(node, self) if arm.asynchronous else arm.period_s
            spent = {"train_s": computed, "wait_s": arm.period(node, self) - computed}
            age = (1.0 + 0.5 * node) if arm.asynchronous else 0.0
            if round_:
                loss = 2.3 * math.exp(-round_ / arm.rounds) if node not in arm.diverged else math.nan
                recorder.write("round", **clock, **spent, train_loss=loss, **counters, staleness=age)
            if round_ in evaluated:
                score = arm.score(node, self.nodes, round_, seed)
                scores: dict[str, Any] = {
                    "test_loss": 1 - score if score is not None else None,
                    f"test_{self.metric}": score,
                }
                sent = counters["total_bytes"]
                subset: dict[str, Any] = {"split": "test", "samples": 500, "final": False}
                subset["total_bytes"] = sent
                recorder.write("evaluation", **clock, **subset, **scores)
                if round_ == arm.rounds:
                    recorder.write(
                        "evaluation", **clock, **{**subset, "samples": 10000, "final": True}, **scores
                    )
        if last == arm.rounds:
            recorder.write("end", **clock, reason="max_rounds", model_sha256="00" * 32, **counters)
        recorder.close()

    def _counters(
        self, arm: SyntheticArm, round_: int, uplink: Uplink | None, time_s: float
    ) -> dict[str, int]:
        made = MESSAGES * round_
        if uplink is not None:
            size = arm.bytes_per_round // MESSAGES
            made = MESSAGES * sum(when <= time_s for when in uplink.refills)
            sent, dropped = uplink.sent_by(time_s), sum(uplink.dropped_by[:round_])
            sizes = {"total_bytes": sent * size, "made_bytes": made * size, "dropped_bytes": dropped * size}
            counts = {"made": made, "sent": sent, "received": sent, "replaced": 0, "dropped": dropped}
            counts["aggregated"] = round_
            return {**sizes, "total_meta": 40 * sent, **counts}
        return {
            "total_bytes": arm.bytes_per_round * round_,
            "total_meta": 40 * made,
            "made": made,
            "sent": made - round_,
            "received": made - round_,
            "replaced": 0,
            "dropped": round_,
            "aggregated": round_,
        }
