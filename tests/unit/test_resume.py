"""A run that was cut off goes on in its own folder: what is run again, from where, and what is refused."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from decentral.config import load
from decentral.errors import ConfigError, Interrupted, PreflightError
from launch import checkpoints
from launch.cli import app
from launch.executors import inline
from launch.executors.base import Interruption, Job, Outcome
from launch.executors.inline_checkpoints import InlineCheckpoints
from launch.holding import Hold
from launch.launcher import Launcher
from launch.live import LIVE
from launch.paths import JobFolder
from launch.resume import ResumeOptions, resume_run
from launch.session import RunOptions, run_experiment
from tests.harness import SilentDisplay
from tests.resumed import Killed, logged

EXPERIMENT = """
name = "cut"
nodes = 4
seeds = [1, 2]
network = { name = "star", fast_mbps = 60.0, latency_ms = 0.0, stragglers = 1 }
[data]
name = "quadratic"
[train]
lr = 0.05
batch = 2
local_steps = 2
momentum = 0.9
[compute]
time_per_round = 5e-5
[run]
max_rounds = 8
test_after = 2
[checkpoint]
every = 2
[[arm]]
name = "EL"
algorithm = "epidemic"
topology = { name = "regular", degree = 2 }
[[arm]]
name = "overlap"
algorithm = { name = "adpsgd", overlap = true }
"""
NOBODY = {"host": "elsewhere", "boot": "x", "namespace": "y", "pid": 1, "started": 1}
RESUME = ResumeOptions(command=("decentral", "resume"))


@pytest.fixture(autouse=True)
def reports(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Of which run folders reports were asked for; drawing them takes seconds."""
    asked: list[Path] = []
    monkeypatch.setattr("launch.session.write_report", asked.append)
    monkeypatch.setattr("launch.resume.write_report", asked.append)
    return asked


class Notes(SilentDisplay):
    """Remembers what was said, and which jobs ran."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []
        self.ran: list[tuple[str, int]] = []

    def note(self, text: str) -> None:
        self.said.append(text)

    def job_started(self, arm: str, seed: int, nodes: int, max_rounds: int) -> None:
        self.ran.append((arm, seed))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that came to its end, without a report; not to be written to."""
    folder = tmp_path_factory.mktemp("runs")
    toml = folder / "cut.toml"
    toml.write_text(EXPERIMENT, encoding="utf-8")
    options = RunOptions(out=folder, executor="inline", command=("decentral", "run"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("launch.session.write_report", lambda _: None)
        return run_experiment(load(toml), options, SilentDisplay())


@pytest.fixture
def cut_off(finished: Path, tmp_path: Path) -> Path:
    """The same, as if its launcher had been killed in its third job, the first of its second arm."""
    run = tmp_path / "run"
    copy(finished, run)
    change(run, lambda manifest: manifest["jobs"][2].update(state="waiting", cause=None, wall_s=None))
    change(run, lambda manifest: manifest["jobs"][3].update(state="waiting", cause=None, wall_s=None))
    change(run, lambda manifest: manifest.update(state="running", launcher=NOBODY))
    last = run / "overlap" / "seed-2"
    for path in sorted(last.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    last.rmdir()
    for path in (run / "overlap" / "seed-1" / "models").iterdir():
        path.unlink()
    return run


def copy(source: Path, target: Path) -> None:
    """All files, with times of their own."""
    for path in source.rglob("*"):
        if path.is_file():
            to = target / path.relative_to(source)
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_bytes(path.read_bytes())


def change(run: Path, act: Callable[[dict[str, Any]], None]) -> None:
    """Change the manifest."""
    path = run / "manifest.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    act(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def check_as_finished(run: Path, finished: Path) -> None:
    """Models and logs of all jobs are those of the run that was not cut off."""
    for job in ("EL/seed-1", "EL/seed-2", "overlap/seed-1", "overlap/seed-2"):
        for node in range(4):
            mine, theirs = (np.load(JobFolder(each / job).model(node)) for each in (run, finished))
            assert mine.tobytes() == theirs.tobytes(), (job, node)
        assert logged(JobFolder(run / job)) == logged(JobFolder(finished / job)), job


def test_only_what_is_left_is_run(cut_off: Path, finished: Path, reports: list[Path]) -> None:
    before = {path: path.stat().st_mtime_ns for path in (cut_off / "EL").rglob("*")}
    notes = Notes()
    assert resume_run(cut_off, RESUME, notes) == cut_off
    assert notes.ran == [("overlap", 1), ("overlap", 2)]
    assert {path: path.stat().st_mtime_ns for path in (cut_off / "EL").rglob("*")} == before
    check_as_finished(cut_off, finished)
    manifest = json.loads((cut_off / "manifest.json").read_text(encoding="utf-8"))
    assert (manifest["state"], [job["state"] for job in manifest["jobs"]]) == ("done", ["done"] * 4)
    (session,) = manifest["resumed"]
    first, second = session["jobs"]
    assert (first["arm"], first["seed"]) == ("overlap", 1)
    assert first["checkpoint"]["rounds"] >= 2
    assert second["checkpoint"] is None
    assert any("goes on from checkpoint" in said for said in notes.said)
    assert reports[-1] == cut_off


def test_a_complete_run_says_so_and_writes_the_report_anew(
    cut_off: Path, finished: Path, reports: list[Path]
) -> None:
    for job in ("overlap/seed-1", "overlap/seed-2"):
        copy(finished / job, cut_off / job)
    change(cut_off, lambda manifest: [job.update(state="done") for job in manifest["jobs"]])
    reports.clear()
    notes = Notes()
    resume_run(cut_off, RESUME, notes)
    assert notes.ran == []
    assert "is complete: nothing is left to run" in notes.said[0]
    assert reports == [cut_off]


@pytest.mark.parametrize("damage", ["flip", "truncate", "half-written"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_used(
    damage: str, cut_off: Path, finished: Path
) -> None:
    folder = JobFolder(cut_off / "overlap" / "seed-1")
    older, newer = checkpoints.numbers(folder)
    path = checkpoints.folder_of(folder, newer) / "node-002.ckpt"
    content = path.read_bytes()
    if damage == "flip":
        path.write_bytes(content[:50] + bytes([content[50] ^ 1]) + content[51:])
    elif damage == "truncate":
        path.write_bytes(content[: len(content) // 2])
    else:  # the run was killed before the list was there
        (checkpoints.folder_of(folder, newer) / checkpoints.LIST).unlink()
    notes = Notes()
    resume_run(cut_off, RESUME, notes)
    named = [said for said in notes.said if str(path) in said]
    assert len(named) == (damage != "half-written")
    assert any(f"goes on from checkpoint {older}," in said for said in notes.said)
    check_as_finished(cut_off, finished)


def test_without_a_whole_checkpoint_it_begins_anew_and_nothing_is_deleted(
    cut_off: Path, finished: Path
) -> None:
    folder = JobFolder(cut_off / "overlap" / "seed-1")
    for number in checkpoints.numbers(folder):
        (checkpoints.folder_of(folder, number) / "observer.ckpt").write_bytes(b"!")
    measured = folder.metrics.read_bytes()
    notes = Notes()
    resume_run(cut_off, RESUME, notes)
    assert sum("damaged checkpoint passed over" in said for said in notes.said) == 2
    assert any("begins anew, what there was is in" in said for said in notes.said)
    (aside,) = folder.path.glob("before-*")
    assert (aside / "metrics.jsonl").read_bytes() == measured
    check_as_finished(cut_off, finished)


def test_a_log_that_lost_its_end_begins_anew(cut_off: Path, finished: Path) -> None:
    """Resuming from a checkpoint that is younger than the log would leave a hole in it."""
    folder = JobFolder(cut_off / "overlap" / "seed-1")
    with folder.node_log(1).open("r+b") as log:
        log.truncate(30)
    notes = Notes()
    resume_run(cut_off, RESUME, notes)
    assert any("a part of the log is lost" in said for said in notes.said)
    check_as_finished(cut_off, finished)


def test_a_checkpoint_that_was_passed_over_never_counts_again(
    cut_off: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused for a short log; the run goes on until the log is longer than that, and is killed."""
    folder = JobFolder(cut_off / "overlap" / "seed-1")
    older, newer = checkpoints.numbers(folder)
    before, after = (checkpoints.load(checkpoints.folder_of(folder, number)) for number in (older, newer))
    assert before is not None
    assert after is not None
    log, least = before.entries[1].log, before.entries[1].log_bytes
    assert least < after.entries[1].log_bytes
    os.truncate(folder.path / log, least)

    keep = inline._keep

    def keep_and_kill(made: inline.InlineRun, job: Job) -> None:
        keep(made, job)
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(InlineCheckpoints, "wanted", lambda _: False)  # not as far as the next one
        patched.setattr(inline, "_keep", keep_and_kill)
        with pytest.raises(Killed):
            resume_run(cut_off, RESUME, SilentDisplay())
    assert (folder.path / log).stat().st_size > after.entries[1].log_bytes
    (aside,) = folder.path.glob("before-*")
    assert (aside / "checkpoints" / str(newer) / checkpoints.LIST).exists(), "it was deleted"
    change(cut_off, lambda manifest: manifest.update(launcher=NOBODY))
    notes = Notes()
    resume_run(cut_off, RESUME, notes)
    assert any(f"goes on from checkpoint {older}," in said for said in notes.said), notes.said
    check_as_finished(cut_off, finished)


def test_a_run_that_still_lives_is_refused(cut_off: Path) -> None:
    change(cut_off, lambda manifest: manifest.update(launcher=Launcher.this().to_manifest()))
    with pytest.raises(ConfigError, match=f"pid {os.getpid()} on host .* still runs"):
        resume_run(cut_off, RESUME, SilentDisplay())


def test_processes_that_still_write_are_waited_for(cut_off: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = cut_off / "overlap" / "seed-1"
    writing = Hold(job, alone=False)
    monkeypatch.setattr("launch.holding.PATIENCE_S", 0.1)
    before = {path: path.read_bytes() for path in job.rglob("*") if path.is_file()}
    with pytest.raises(PreflightError, match="still write into"):
        resume_run(cut_off, RESUME, SilentDisplay())
    writing.let_go()
    assert {path: path.read_bytes() for path in job.rglob("*") if path.is_file()} == before


def test_only_one_session_at_a_time(cut_off: Path) -> None:
    other = Hold(cut_off, alone=True)
    with pytest.raises(PreflightError, match="another session"):
        resume_run(cut_off, RESUME, SilentDisplay())
    other.let_go()


def test_what_another_machine_runs_is_held(tmp_path: Path) -> None:
    """Whether a launcher lives can be told on its own machine only: its folder is locked."""
    toml = tmp_path / "cut.toml"
    toml.write_text(EXPERIMENT, encoding="utf-8")
    refused: list[str] = []

    class Elsewhere(SilentDisplay):
        def job_started(self, arm: str, seed: int, nodes: int, max_rounds: int) -> None:
            if not refused:
                (run,) = tmp_path.glob("cut-*")
                change(run, lambda manifest: manifest.update(launcher=NOBODY))
                (run / LIVE).unlink()  # as where it has been stopped for a while, or its disk is full
                with pytest.raises(PreflightError, match="processes of another session") as refusal:
                    resume_run(run, RESUME, SilentDisplay())
                refused.append(str(refusal.value))

    options = RunOptions(out=tmp_path, executor="inline", command=("decentral", "run"))
    run = run_experiment(load(toml), options, Elsewhere())
    assert refused
    Hold(run, alone=True, patience_s=0.0).let_go()


def test_what_is_not_to_be_trusted_is_told_also_after_an_interruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first job has run and is distrusted, before the second somebody presses Ctrl-C."""
    toml = tmp_path / "cut.toml"
    toml.write_text(EXPERIMENT, encoding="utf-8")

    def run(self: Any, job: Job, display: Any, interruption: Interruption) -> Outcome:
        os.kill(os.getpid(), signal.SIGINT)
        return Outcome("done", distrust=("links were late",))

    monkeypatch.setattr(inline.InlineExecutor, "run", run)
    options = RunOptions(out=tmp_path, executor="inline", command=("decentral", "run"))
    with pytest.raises(Interrupted):
        run_experiment(load(toml), options, SilentDisplay())
    (path,) = tmp_path.glob("cut-*/manifest.json")
    manifest = json.loads(path.read_text(encoding="utf-8"))
    assert manifest["distrust"] == ["EL seed 1: links were late"]
    assert [job["state"] for job in manifest["jobs"]] == ["done", *["waiting"] * 3]


def test_jobs_that_are_run_again_wait_meanwhile(cut_off: Path) -> None:
    """Else ``status`` would show the failures of the session before beside a run that is well."""
    gone = {"node": 3, "host": "h", "cause": "x", "round": 1, "time_s": 1.0}
    failed = {"state": "failed", "cause": "node 3 died", "wall_s": 3.0, "stalls": [{}], "lost": [gone]}
    change(cut_off, lambda manifest: manifest["jobs"][2].update(failed))
    seen: list[list[dict[str, Any]]] = []

    class Looking(SilentDisplay):
        def job_started(self, arm: str, seed: int, nodes: int, max_rounds: int) -> None:
            seen.append(json.loads((cut_off / "manifest.json").read_text(encoding="utf-8"))["jobs"])

    resume_run(cut_off, RESUME, Looking())
    first = seen[0]
    assert [job["state"] for job in first] == ["done", "done", "waiting", "waiting"]
    assert [first[2][key] for key in ("cause", "wall_s", "stalls", "lost")] == [None, None, [], []]
    assert first[2]["folder"] == "overlap/seed-1"


def test_other_code_is_a_warning(cut_off: Path) -> None:
    change(cut_off, lambda manifest: manifest["versions"].update(numpy="0.1"))
    change(cut_off, lambda manifest: manifest.update(git={"commit": "abc", "dirty": False}))
    notes = Notes()
    resume_run(cut_off, RESUME, notes)
    warned = [said for said in notes.said if said.startswith("WARNING")]
    assert any("the run was begun with 0.1" in said for said in warned)
    assert any("the run was begun with abc" in said for said in warned)
    manifest = json.loads((cut_off / "manifest.json").read_text(encoding="utf-8"))
    assert [f"WARNING: {text}" for text in manifest["resumed"][0]["warnings"]] == warned


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("resolved.json", "{", "is damaged"),
        ("resolved.json", '{"name": "cut"}', "is damaged"),
        ("resolved.json", None, "cannot be read"),
        ("manifest.json", "[]", "is no run folder"),
        ("manifest.json", None, "is no run folder"),
    ],
)
def test_a_damaged_run_folder_is_named(name: str, content: str | None, says: str, cut_off: Path) -> None:
    (cut_off / name).unlink()
    if content is not None:
        (cut_off / name).write_text(content)
    with pytest.raises(ConfigError, match=says) as refusal:
        resume_run(cut_off, RESUME, SilentDisplay())
    assert name in str(refusal.value)


def test_a_manifest_of_other_jobs_is_refused(cut_off: Path) -> None:
    change(cut_off, lambda manifest: manifest["jobs"].reverse())
    with pytest.raises(ConfigError, match="lists other jobs"):
        resume_run(cut_off, RESUME, SilentDisplay())


class TestCommandLine:
    def test_both_spellings(self, cut_off: Path, finished: Path) -> None:
        done = CliRunner().invoke(app, ["resume", cut_off.name, "--out", str(cut_off.parent)])
        assert done.exit_code == 0, done.output
        assert "overlap" in done.stdout
        change(cut_off, lambda manifest: manifest.update(launcher=NOBODY))
        again = CliRunner().invoke(app, ["run", "--resume", str(cut_off)])
        assert again.exit_code == 0, again.output
        assert "nothing is left to run" in again.stderr
        check_as_finished(cut_off, finished)

    @pytest.mark.parametrize(
        "more",
        [["default"], ["--set", "nodes=8"], ["--seeds", "3"], ["--dry-run"], ["--predict-rounds", "5"]],
    )
    def test_what_a_run_was_asked_for_stays(self, more: list[str], cut_off: Path) -> None:
        done = CliRunner().invoke(app, ["run", *more, "--resume", str(cut_off)])
        expected = 0 if more == ["default"] else 2
        assert done.exit_code == expected
        assert expected == 0 or "goes on as it was begun" in done.stderr

    def test_no_such_run(self, tmp_path: Path) -> None:
        done = CliRunner().invoke(app, ["resume", str(tmp_path / "nothing")])
        assert done.exit_code == ConfigError.exit_code
        assert "is no run folder" in done.stderr


def test_checkpoints_in_real_time_are_refused(tmp_path: Path) -> None:
    toml = tmp_path / "cut.toml"
    toml.write_text(EXPERIMENT.replace("max_rounds = 8", 'max_rounds = 8\nclock = "wall"'), encoding="utf-8")
    done = CliRunner().invoke(app, ["validate", str(toml)])
    assert done.exit_code == ConfigError.exit_code
    assert "real time cannot be resumed, only emulated time can" in done.stderr
