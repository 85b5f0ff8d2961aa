"""Reading a run folder into data frames, whatever state its run left it in."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from decentral.errors import ConfigError
from results.fidelity import Fidelity, read_fidelity
from results.jobs import Job, Problem, arms_of, count_of, planned_jobs, read_json
from results.logs import KINDS, Columns, Event, columns, read_log
from results.network import Network, read_network

# Those of the second line came later: NaN in older logs.
COUNTERS = (
    *("total_bytes", "total_meta", "made", "sent", "received", "replaced", "dropped"),
    *("made_bytes", "dropped_bytes", "aggregated"),
)
_TIMES = ("round", "time_s", "wall_s")
FIELDS: Mapping[str, tuple[str, ...]] = {
    "round": (*_TIMES, "train_s", "wait_s", "train_loss", *COUNTERS, "staleness"),
    "evaluation": (*_TIMES, "split", "samples", "final", "total_bytes", "test_loss", "score"),
    "end": (*_TIMES, "reason", "model_sha256", *COUNTERS),
    "average": ("round", "time_s", "split", "samples", "final", "models", "consensus", "test_loss", "score"),
}


@dataclass(frozen=True)
class Metric:
    """The score of a run.

    Attributes:
        name: as the headers give it; several names where arms disagree; ``"score"`` where none says.
        higher_is_better: direction; None where unknown or arms disagree, and then nothing is called best.
    """

    name: str
    higher_is_better: bool | None

    @property
    def percent(self) -> bool:
        """Whether it is a share of 1 that people read in percent."""
        return self.name in ("acc", "accuracy")

    @property
    def range(self) -> tuple[float, float]:
        """Lowest and highest value that the score can have; infinite where unbounded or unknown."""
        lowest = 0.0 if self.percent or self.name in ("rmse", "mse", "mae", "distance") else -math.inf
        return lowest, 1.0 if self.percent else math.inf

    @property
    def title(self) -> str:
        """The name as readers know it."""
        return {"acc": "accuracy", "rmse": "RMSE", "mse": "MSE"}.get(self.name, self.name)


@dataclass(frozen=True, eq=False)
class Run:
    """A run folder in memory.

    ``arm`` is a categorical column in the order of the experiment, so frames sort as the reader expects.
    Numbers are float64 and NaN where a log has null or nothing; ``seed``, ``node`` and ``round`` are int64.

    Attributes:
        manifest: manifest.json; empty if absent or damaged.
        resolved: resolved.json; empty if absent or damaged.
        jobs: one per (arm, seed), asked for or found.
        rounds: node level: arm, seed, node and ``FIELDS["round"]``.
        evaluations: node level: arm, seed, node and ``FIELDS["evaluation"]``; ``score`` is ``test_<metric>``.
        averages: observer level: arm, seed and ``FIELDS["average"]``.
        ends: node level: arm, seed, node and ``FIELDS["end"]``.
        network: link level: what the emulated networks did; without rows where there was none.
        fidelity: of every job that says how well it kept its promises, which those under a wall clock do.
        problems: everything that was not as promised.
    """

    folder: Path
    manifest: Mapping[str, Any]
    resolved: Mapping[str, Any]
    metric: Metric
    jobs: tuple[Job, ...]
    rounds: pd.DataFrame
    evaluations: pd.DataFrame
    averages: pd.DataFrame
    ends: pd.DataFrame
    network: Network
    fidelity: tuple[Fidelity, ...]
    problems: tuple[Problem, ...]

    @property
    def name(self) -> str:
        """The experiment's name, or the folder's."""
        return str(self.manifest.get("name") or self.resolved.get("name") or self.folder.name)

    @property
    def state(self) -> str:
        """As the manifest says; ``"unknown"`` without one."""
        return str(self.manifest.get("state", "unknown"))

    @property
    def complete(self) -> bool:
        """The manifest says done, and every job that was asked for is there to its end."""
        return self.state == "done" and bool(self.jobs) and all(job.complete for job in self.jobs)

    @property
    def arms(self) -> tuple[str, ...]:
        """Names in the order of the experiment."""
        return tuple(dict.fromkeys(job.arm for job in self.jobs))

    @property
    def target(self) -> float | None:
        """The score that the experiment names as its target (``target`` in resolved.json), None without."""
        asked = self.resolved.get("target")
        if isinstance(asked, int | float) and not isinstance(asked, bool) and abs(asked) < 1e300:
            return float(asked)
        return None

    @property
    def settings(self) -> Mapping[str, Mapping[str, Any]]:
        """Every key of every arm, from resolved.json."""
        return arms_of(self.resolved)


def read_run(folder: Path) -> Run:
    """Read everything in a run folder.

    Damage is tolerated and reported in ``problems``: a last line cut off by a kill, missing nodes, missing
    end events, unknown schema versions, an absent manifest. Lines before the damage stay valid.

    Raises:
        ConfigError: ``folder`` is no run folder at all.
    """
    folder = Path(folder)
    names = ("manifest.json", "resolved.json")
    if not any((folder / name).is_file() for name in names) and not any(folder.glob("*/seed-*/")):
        raise ConfigError(
            f"{folder}: no run folder: expected manifest.json or <arm>/seed-<s>/ in it; "
            "give one of the folders under results/runs"
        )
    problems: list[Problem] = []
    manifest, resolved = (read_json(folder / name, problems) for name in names)
    jobs = planned_jobs(folder, manifest, resolved, problems)
    arms = pd.CategoricalDtype(list(dict.fromkeys(job.arm for job in jobs)), ordered=True)
    tables = _Tables(problems)
    arm_settings = arms_of(resolved)
    read_jobs = tuple(tables.read_job(folder, job, arm_settings.get(job.arm, {})) for job in jobs)
    return Run(
        folder=folder,
        manifest=manifest,
        resolved=resolved,
        metric=tables.metric(),
        jobs=read_jobs,
        rounds=tables.frame("round", arms),
        evaluations=tables.frame("evaluation", arms),
        averages=tables.frame("average", arms),
        ends=tables.frame("end", arms),
        network=read_network(folder, read_jobs, arms, problems),
        fidelity=read_fidelity(folder, read_jobs, problems),
        problems=tuple(problems),
    )


class _Tables:
    """Columns collected over files, and what their headers say of the metric."""

    def __init__(self, problems: list[Problem]) -> None:
        self._problems = problems
        self._chunks: dict[str, list[Columns]] = {kind: [] for kind in FIELDS}
        self._metrics: dict[tuple[str, bool | None], None] = {}

    def read_job(self, folder: Path, job: Job, settings: Mapping[str, Any]) -> Job:
        """Read the logs of one job; return it with its progress filled in."""
        limit = settings.get("run", {}).get("max_rounds") if isinstance(settings.get("run"), dict) else None
        asked = settings.get("nodes")
        job = replace(job, asked_rounds=limit if isinstance(limit, int) else None)
        job = replace(job, nodes=asked if isinstance(asked, int) else 0)
        if job.folder is None:
            return job
        reached: dict[int, int] = {}
        ended: set[int] = set()
        lost, whole = set(job.lost), set[int]()
        sizes: set[int] = set()
        for path in sorted((folder / job.folder / "nodes").glob("*.jsonl")):
            log = read_log(path)
            where = path.relative_to(folder).as_posix()
            self._problems += [Problem(where, what) for what in log.problems]
            node = log.header.get("node", int(path.stem) if path.stem.isdecimal() else None)
            if not isinstance(node, int) or node in reached:
                self._problems.append(Problem(where, f"node {node!r} is no new node of this job: left out"))
                continue
            self._check_origin(log.header, job, where)
            reached[node] = max((int(event["round"]) for event in log.events["round"]), default=0)
            ended |= {node} if log.events["end"] else set()
            lost |= {event["peer"] for event in log.events["lost"] if isinstance(event.get("peer"), int)}
            whole |= {node} if any(event.get("reason") == "done" for event in log.events["end"]) else set()
            if isinstance(log.header.get("nodes"), int):
                sizes.add(log.header["nodes"])
            for kind in FIELDS.keys() & set(KINDS):
                self._add(kind, log.events[kind], log.header, {"job": job, "node": node}, where)
        self._read_observer(folder, job)
        nodes = job.nodes or max(sizes, default=len(reached))
        lost -= whole  # one whose process ended after all it had to do counts
        self._leave_out(job, lost)
        job = replace(job, nodes=nodes, found=len(reached), ended=len(ended - lost))
        job = replace(job, lost=tuple(sorted(lost)))
        where = job.folder or ""
        if missing := sorted(set(range(nodes)) - set(reached) - lost):
            self._problems.append(Problem(where, f"no log of {count_of(missing, nodes)}"))
        if unfinished := sorted(set(reached) - ended - lost):
            self._problems.append(Problem(where, f"no end event of {count_of(unfinished, nodes)}"))
        rounds = [reached[node] for node in reached if node not in lost]
        return replace(job, rounds=(min(rounds), max(rounds))) if rounds else job

    def _leave_out(self, job: Job, lost: set[int]) -> None:
        """Scores are taken over the nodes that are not lost, from the beginning."""
        gone, chunks = {(job.arm, job.seed, node) for node in lost}, self._chunks["evaluation"]
        chunks[:] = [c for c in chunks if (c["arm"][0], c["seed"][0], c["node"][0]) not in gone]

    def _read_observer(self, folder: Path, job: Job) -> None:
        path = folder / (job.folder or "") / "metrics.jsonl"
        where = path.relative_to(folder).as_posix()
        if not path.is_file():
            self._problems.append(Problem(where, "is missing: no avg_model and no consensus distance"))
            return
        log = read_log(path)
        self._problems += [Problem(where, what) for what in log.problems]
        self._check_origin(log.header, job, where)
        self._add("average", log.events["evaluation"], log.header, {"job": job}, where)

    def _check_origin(self, header: Event, job: Job, where: str) -> None:
        said = (header.get("arm", job.arm), header.get("seed", job.seed))
        if said != (job.arm, job.seed):
            self._problems.append(Problem(where, f"its header says {said}, read as {(job.arm, job.seed)}"))
        if isinstance(header.get("metric"), str):
            better = header.get("higher_is_better")
            self._metrics[header["metric"], better if isinstance(better, bool) else None] = None

    def _add(
        self, kind: str, events: Sequence[Event], header: Event, owner: Mapping[str, Any], where: str
    ) -> None:
        if not events:
            return
        table, problems = columns(events, [name for name in FIELDS[kind] if name != "score"])
        self._problems += [Problem(where, what) for what in problems]
        if "score" in FIELDS[kind]:
            name = f"test_{header.get('metric')}"
            if not header.get("metric"):
                # A log without header can still be used where it has one score besides the loss.
                scores = [key for key in table if key.startswith("test_") and key != "test_loss"]
                name = scores[0] if len(scores) == 1 else name
            table["score"] = table.get(name, np.full(len(events), np.nan))
        job: Job = owner["job"]
        table["arm"] = np.full(len(events), job.arm, dtype=object)
        table["seed"] = np.full(len(events), job.seed, dtype=np.int64)
        if "node" in owner:
            table["node"] = np.full(len(events), owner["node"], dtype=np.int64)
        self._chunks[kind].append(table)

    def metric(self) -> Metric:
        """The one metric of all headers, or what can be said without one."""
        if not self._metrics:
            return Metric("score", None)
        names = list(dict.fromkeys(name for name, _ in self._metrics))
        directions = {better for _, better in self._metrics}
        if len(self._metrics) > 1:
            said = ", ".join(f"{name} (higher_is_better = {better})" for name, better in self._metrics)
            what = f"headers name several metrics, {said}: scores are not comparable"
            self._problems.append(Problem("nodes/*.jsonl", what))
        return Metric(
            " / ".join(names), directions.pop() if len(directions) == 1 and len(names) == 1 else None
        )

    def frame(self, kind: str, arms: pd.CategoricalDtype) -> pd.DataFrame:
        """All columns of one kind as one frame, sorted by arm, seed, node and round."""
        keys = ["arm", "seed"] if kind == "average" else ["arm", "seed", "node"]
        chunks = self._chunks[kind]
        names = dict.fromkeys([*keys, *FIELDS[kind], *(name for chunk in chunks for name in chunk)])
        stacked = {name: _stack(chunks, name) for name in names}
        frame = pd.DataFrame(stacked)
        frame["arm"] = frame["arm"].astype(arms)
        for name in keys[1:]:
            frame[name] = frame[name].astype(np.int64)
        if kind != "end":
            frame["round"] = frame["round"].astype(np.int64)
        return frame.sort_values([*keys, "round"], kind="stable", ignore_index=True)


def _stack(chunks: Iterable[Columns], name: str) -> Any:
    parts = [chunk.get(name, np.full(len(chunk["seed"]), np.nan)) for chunk in chunks]
    if parts:
        return np.concatenate(parts)
    kind = {"arm": object, "split": object, "reason": object, "model_sha256": object, "final": bool}
    return np.array([], dtype=kind.get(name, np.float64))
