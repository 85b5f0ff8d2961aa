"""The run folder: names, whole files or none, refusals that name the path."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, tzinfo
from pathlib import Path

import pytest

import launch.paths
from decentral.errors import PreflightError
from launch.paths import JobFolder, RunFolder, create_run_folder


class FixedTime(datetime):
    @classmethod
    def now(cls, tz: tzinfo | None = None) -> FixedTime:
        assert tz is UTC
        return cls(2026, 2, 3, 4, 5, 6, tzinfo=UTC)


@pytest.fixture
def _fixed_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch.paths, "datetime", FixedTime)


def test_job_files_have_the_names_of_the_documentation() -> None:
    job = RunFolder(Path("/runs/x")).job("mosaic-k8", 3)
    assert job == JobFolder(Path("/runs/x/mosaic-k8/seed-3"))
    assert job.node_log(7) == Path("/runs/x/mosaic-k8/seed-3/nodes/007.jsonl")
    assert job.node_log(1234).name == "1234.jsonl"
    assert job.metrics == Path("/runs/x/mosaic-k8/seed-3/metrics.jsonl")
    assert job.model(0) == Path("/runs/x/mosaic-k8/seed-3/models/000.npy")
    assert job.log("host-a") == Path("/runs/x/mosaic-k8/seed-3/logs/host-a.log")


@pytest.mark.usefixtures("_fixed_time")
def test_runs_of_the_same_second_get_folders_of_their_own(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "runs"
    names = [create_run_folder(out, "demo").path.name for _ in range(3)]
    assert names == ["demo-20260203-040506", "demo-20260203-040506-2", "demo-20260203-040506-3"]
    assert sorted(path.name for path in out.iterdir()) == sorted(names)


@pytest.mark.usefixtures("_fixed_time")
def test_the_thousandth_run_of_a_second_is_refused(tmp_path: Path) -> None:
    (tmp_path / "demo-20260203-040506").mkdir()
    for number in range(2, 1000):
        (tmp_path / f"demo-20260203-040506-{number}").mkdir()
    with pytest.raises(PreflightError, match="already holds 999 runs named demo-20260203-040506"):
        create_run_folder(tmp_path, "demo")


def test_the_run_folder_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert create_run_folder(Path("runs"), "demo").path.is_absolute()


def test_an_impossible_out_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PreflightError, match="--out") as refusal:
        create_run_folder(tmp_path / "file", "demo")
    assert str(tmp_path / "file") in str(refusal.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to read-only folders")
def test_a_read_only_out_folder_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(PreflightError, match="Permission denied") as refusal:
        create_run_folder(tmp_path, "demo")
    tmp_path.chmod(0o700)
    assert str(tmp_path) in str(refusal.value)


def test_json_replaces_the_whole_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_json("manifest.json", {"state": "running", "list": [1, 2]})
    folder.write_json("manifest.json", {"state": "done"})
    text = (tmp_path / "manifest.json").read_text()
    assert json.loads(text) == {"state": "done"}
    assert text.endswith("\n")
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


def test_a_failed_write_keeps_the_old_file_and_leaves_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(tmp_path)
    folder.write_text("manifest.json", "old")

    def fail(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", fail)
        with pytest.raises(PreflightError, match="No space left on device") as refusal:
            folder.write_text("manifest.json", "new")
    assert str(tmp_path / "manifest.json") in str(refusal.value)
    assert (tmp_path / "manifest.json").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


@pytest.mark.parametrize("kind", ["missing", "a file"])
def test_a_run_folder_that_is_gone_is_a_refusal(tmp_path: Path, kind: str) -> None:
    gone = tmp_path / "gone"
    if kind == "a file":
        gone.write_text("")
    with pytest.raises(PreflightError) as refusal:
        RunFolder(gone).write_text("manifest.json", "x")
    assert str(gone / "manifest.json") in str(refusal.value)
