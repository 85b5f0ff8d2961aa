"""The export is what DecentralizePy's eval/plot.py can read: checked with its access pattern."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from results.export import export_decentralizepy
from tests.unit.synthetic_run import SyntheticArm, SyntheticRun

SERIES = {"train_loss", "test_loss", "test_acc", "total_bytes", "total_meta", "total_data_per_n"}


def machine(out: Path, arm: int, seed: int) -> list[dict[str, Any]]:
    files = sorted((out / f"arm-{arm}" / f"seed-{seed}" / "machine0").glob("*_results.json"))
    return [json.loads(file.read_text()) for file in files]


def means(results: list[dict[str, Any]], series: str) -> dict[int, float]:
    """As the script does it: the first node's iterations, looked up in all nodes."""
    return {int(key): float(np.mean([node[series][key] for node in results])) for key in results[0][series]}


def test_every_node_has_every_series(tmp_path: Path) -> None:
    folder = SyntheticRun(seeds=(1, 2)).write(tmp_path / "run")
    exported = export_decentralizepy(folder, tmp_path / "out")
    assert (exported.files, exported.notes) == (2 * 2 * 4, ())
    results = machine(tmp_path / "out", 0, 2)
    assert len(results) == 4
    assert all(set(node) == SERIES for node in results)
    assert list(means(results, "train_loss")) == list(range(1, 21))
    assert list(means(results, "test_acc")) == [0, 5, 10, 15, 20]
    assert means(results, "test_acc")[20] == pytest.approx(100 * (0.7 * (1 - np.exp(-3)) + 0.01))
    last = results[3]
    assert last["total_data_per_n"]["20"] == 40_000_000
    assert last["total_meta"]["20"] == 40 * 120
    assert last["total_bytes"]["20"] == 40_000_000 + 40 * 120


def test_scores_that_are_no_accuracy_stay_as_they_are(tmp_path: Path) -> None:
    folder = SyntheticRun(metric="rmse", higher_is_better=False, seeds=(1,)).write(tmp_path / "run")
    export_decentralizepy(folder, tmp_path / "out")
    assert means(machine(tmp_path / "out", 0, 1), "test_acc")[20] == pytest.approx(0.7 * (1 - np.exp(-3)))


def test_iterations_that_a_node_lacks_are_left_out_and_reported(tmp_path: Path) -> None:
    folder = SyntheticRun(seeds=(1,)).write(tmp_path / "run")
    log = folder / "arm-0" / "seed-1" / "nodes" / "001.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join(lines[: len(lines) // 2]))
    exported = export_decentralizepy(folder, tmp_path / "out")
    results = machine(tmp_path / "out", 0, 1)
    assert 0 < max(means(results, "total_bytes")) < 20
    for series in SERIES:
        assert len({tuple(node[series]) for node in results}) == 1
    assert any("total_bytes that not all nodes have" in note for note in exported.notes)


def test_diverged_nodes_leave_no_null_behind(tmp_path: Path) -> None:
    spec = SyntheticRun(arms=(SyntheticArm(name="a", diverged=(2,)),), seeds=(1,), absent=())
    exported = export_decentralizepy(spec.write(tmp_path / "run"), tmp_path / "out")
    results = machine(tmp_path / "out", 0, 1)
    assert results[0]["test_acc"] == {}
    assert "null" not in json.dumps(results)
    assert any("5 iteration(s) of test_acc" in note for note in exported.notes)


def test_jobs_without_logs_are_reported(tmp_path: Path) -> None:
    spec = SyntheticRun(seeds=(1,), absent=(("el", 1),), state="failed")
    exported = export_decentralizepy(spec.write(tmp_path / "run"), tmp_path / "out")
    assert exported.files == 4
    assert exported.notes == ("el, seed 1: nothing to export, it has no logs",)
