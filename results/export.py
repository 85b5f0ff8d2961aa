"""Runs in the layout of DecentralizePy (github.com/sacs-epfl/decentralizepy), for its plot scripts."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from results.atomic import write_atomic
from results.jobs import Job
from results.metrics import curve_rows
from results.read import Run, read_run

_SERIES = ("train_loss", "test_loss", "test_acc", "total_bytes", "total_meta", "total_data_per_n")


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        files: number of ``{rank}_results.json`` files.
        notes: one sentence for everything that could not be carried over.
    """

    files: int
    notes: tuple[str, ...]


def export_decentralizepy(folder: Path, out: Path) -> Exported:
    """Write ``<out>/<arm>/seed-<s>/machine0/{rank}_results.json`` for every node of a run.

    DecentralizePy's ``eval/plot.py`` takes ``<out>/<arm>`` and draws one curve per seed. As it reads them:

    * every file holds one dictionary per series, keyed by the iteration as a string;
    * an iteration that any node of a job lacks is left out, since the script looks up the first node's
      iterations in all files; asynchronous nodes finish different numbers of rounds;
    * ``test_acc`` is in percent; a score that is no accuracy is written unchanged;
    * ``total_bytes`` counts whole messages there: payload plus headers. Ours is the payload, which they call
      ``total_data_per_n``; ``total_meta`` is the headers in both;
    * ``train_loss`` is the mean loss of the local steps; DecentralizePy evaluates the training shard anew.

    Raises:
        ConfigError: ``folder`` is no run folder.
        PreflightError: a file cannot be written; names the path.
    """
    run = read_run(Path(folder))
    notes: list[str] = []
    files = 0
    for job in run.jobs:
        if job.folder is None or not job.found:
            notes.append(f"{job.arm}, seed {job.seed}: nothing to export, it has no logs")
            continue
        machine = Path(out) / job.folder / "machine0"
        for node, series in _series_of(run, job, notes).items():
            write_atomic(machine / f"{node}_results.json", json.dumps(series).encode())
            files += 1
    return Exported(files, tuple(notes))


def _series_of(run: Run, job: Job, notes: list[str]) -> dict[int, dict[str, dict[str, float | None]]]:
    rounds = _of(run.rounds, job)
    evaluated = _of(curve_rows(run.evaluations), job)
    sent = rounds.assign(whole=rounds["total_bytes"] + rounds["total_meta"])
    scale = 100.0 if run.metric.percent else 1.0
    sources = {
        "train_loss": (rounds, "train_loss", 1.0),
        "test_loss": (evaluated, "test_loss", 1.0),
        "test_acc": (evaluated, "score", scale),
        "total_bytes": (sent, "whole", 1.0),
        "total_meta": (rounds, "total_meta", 1.0),
        "total_data_per_n": (rounds, "total_bytes", 1.0),
    }
    nodes = sorted({*rounds["node"], *evaluated["node"]})
    exported: dict[int, dict[str, dict[str, float | None]]] = {node: {} for node in nodes}
    for name in _SERIES:
        frame, column, scale = sources[name]
        table = frame.pivot_table(index="round", columns="node", values=column, aggfunc="last", dropna=False)
        table = table.reindex(columns=nodes)
        # JSON has no NaN, and one null would break the script's mean: an iteration is whole or left out.
        whole = table.dropna()
        if lost := len(table) - len(whole):
            notes.append(f"{job.arm}, seed {job.seed}: {lost} iteration(s) of {name} that not all nodes have")
        for node in nodes:
            exported[node][name] = _keyed(whole.index, whole[node] * scale)
    return exported


def _of(frame: pd.DataFrame, job: Job) -> pd.DataFrame:
    return frame[(frame["arm"] == job.arm) & (frame["seed"] == job.seed)]


def _keyed(rounds: Iterable[int], values: Iterable[float]) -> dict[str, float | None]:
    # Byte counts are whole numbers there.
    return {
        str(round_): int(value) if math.isfinite(value) and float(value).is_integer() else float(value)
        for round_, value in zip(rounds, values, strict=True)
    }
