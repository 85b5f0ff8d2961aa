"""Files that an experiment names: a run keeps its own copies, and computes with nothing else."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decentral.config import Experiment, load
from decentral.errors import ConfigError, DataError
from launch import files
from launch.compose import check
from launch.host_plan import check_hosts
from launch.hosts import Host, Hosts
from launch.resume import ResumeOptions, resume_run
from launch.session import RunOptions, run_experiment
from tests.harness import SilentDisplay, arm

EXPERIMENT = """
name = "named"
nodes = 4
algorithm = "epidemic"
topology = { name = "edges", path = "ring.edges" }
network = { name = "file", path = "rates.json" }
[data]
name = "quadratic"
partition = { name = "file", path = "rows.npz" }
[train]
lr = 0.05
batch = 2
local_steps = 2
[run]
max_rounds = 3
test_after = 1
"""
NAMES = ("ring.edges", "rates.json", "rows.npz")


@pytest.fixture(autouse=True)
def no_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("launch.session.write_report", lambda _: None)
    monkeypatch.setattr("launch.resume.write_report", lambda _: None)


@pytest.fixture
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Experiment:
    """One whose paths are relative to the current directory."""
    folder = tmp_path / "files of mine"
    folder.mkdir()
    (folder / "ring.edges").write_text("4\n0 1\n1 2\n2 3\n3 0\n")
    (folder / "rates.json").write_text(json.dumps({"uplink_mbps": [1.0, 2.0, 3.0, 4.0], "latency_ms": 1.0}))
    np.savez(folder / "rows.npz", *[np.arange(10 * node, 10 * node + 10) for node in range(4)])
    (folder / "named.toml").write_text(EXPERIMENT)
    monkeypatch.chdir(folder)
    return load(Path("named.toml"))


def run_inline(experiment: Experiment, out: Path) -> Path:
    options = RunOptions(out=out, executor="inline", command=("decentral", "run"))
    return run_experiment(experiment, options, SilentDisplay())


def manifest_of(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / "manifest.json").read_text())
    return content


def cut_off(run: Path) -> None:
    """As if its launcher had been killed in its job."""
    manifest = manifest_of(run)
    manifest["jobs"][0]["state"] = "waiting"
    nobody = {"host": "elsewhere", "boot": "x", "namespace": "y", "pid": 1, "started": 1}
    (run / "manifest.json").write_text(json.dumps({**manifest, "state": "running", "launcher": nobody}))


def models(run: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(run.rglob("models/*.npy"))]


def test_copies_and_their_hashes_are_in_the_run_folder(experiment: Experiment, tmp_path: Path) -> None:
    run = run_inline(experiment, tmp_path / "out")
    kept = manifest_of(run)["files"]
    assert sorted(kept) == sorted(NAMES)
    for name, entry in kept.items():
        content = Path(name).read_bytes()
        assert (run / entry["copy"]).read_bytes() == content
        assert entry["sha256"] == hashlib.sha256(content).hexdigest()
        assert entry["copy"] == f"files/{entry['sha256'][:16]}-{name}"
    (settled,) = json.loads((run / "resolved.json").read_text())["arms"]
    assert settled["network"]["settings"]["path"] == "rates.json"


def test_a_run_goes_on_with_its_copies_from_another_folder(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_inline(experiment, tmp_path / "out")
    before = models(run)
    assert len(before) == 4
    cut_off(run)
    for name in NAMES:
        Path(name).unlink()
    moved = run.rename(tmp_path / "moved")
    monkeypatch.chdir("/")
    assert resume_run(moved, ResumeOptions(command=("decentral", "resume")), SilentDisplay()) == moved
    assert manifest_of(moved)["state"] == "done"
    again = [path.read_bytes() for path in sorted(moved.glob("*/seed-1/models/*.npy"))]
    assert again == before


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda copy: copy.write_text("{}"), "is not what the run was begun with"),
        (lambda copy: copy.unlink(), "cannot be read"),
    ],
)
def test_a_copy_that_is_not_what_it_was_is_refused(
    harm: Any, said: str, experiment: Experiment, tmp_path: Path
) -> None:
    run = run_inline(experiment, tmp_path / "out")
    cut_off(run)
    harm(run / manifest_of(run)["files"]["rates.json"]["copy"])
    with pytest.raises(ConfigError, match=said) as caught:
        resume_run(run, ResumeOptions(command=("decentral", "resume")), SilentDisplay())
    assert "rates.json" in str(caught.value)


def test_a_file_that_is_absent_is_refused_when_the_experiment_is_checked(experiment: Experiment) -> None:
    check(experiment)
    Path("rows.npz").unlink()
    with pytest.raises(ConfigError, match=r"data\.partition\.path = .*cannot be read"):
        check(experiment)


def test_files_that_one_message_cannot_hold_are_for_this_machine_alone(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = Hosts(hosts=(Host(name="a"), Host(name="b")), source="the test", kind="ssh")
    check_hosts(experiment, hosts)
    monkeypatch.setattr(files, "MOST_BYTES", 1000)
    check(experiment)
    with pytest.raises(ConfigError, match=r"data\.partition\.path = .*other hosts are sent at most"):
        check_hosts(experiment, hosts)


def test_a_host_gets_files_of_its_own_for_a_while(experiment: Experiment, tmp_path: Path) -> None:
    (sent,) = experiment.arms
    received = files.Received()
    there = received.take(sent, files.contents(sent), tmp_path / "host")
    paths = dict(files.named(there))
    assert sorted(paths) == ["data.partition.path", "network.path", "topology.path"]
    for key, path in paths.items():
        assert path.startswith(str(tmp_path / "host"))
        assert Path(path).read_bytes() == Path(dict(files.named(sent))[key]).read_bytes()
    received.remove()
    assert list((tmp_path / "host" / "scratch").iterdir()) == []
    with pytest.raises(DataError):
        files.contents(there)


def test_arms_that_name_no_file_stay_as_they_are(tmp_path: Path) -> None:
    received = files.Received()
    assert received.take(arm(), files.contents(arm()), tmp_path) == arm()
    assert list(tmp_path.iterdir()) == []
