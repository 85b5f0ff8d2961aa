"""Killed processes: what goes on from a checkpoint ends to the bit as if nothing had happened."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from decentral.config import Arm
from launch import checkpoints
from launch.executors import fleet
from launch.executors.base import Interruption, Job
from launch.executors.local import LocalExecutor
from launch.executors.resuming import Checkpoints
from launch.executors.starters import LocalStarter
from launch.holding import Hold
from launch.keeping import last_whole
from launch.paths import JobFolder
from tests.asynchronous import ROUND_S, contender, star
from tests.fleets import Elsewhere, loopback, tidy_up_after_a_killed_agent
from tests.harness import SilentDisplay, run
from tests.integration.leisurely import braked
from tests.integration.test_launcher import ROOT, is_gone, wait_for
from tests.resumed import REAL, logged

pytestmark = pytest.mark.timeout(600)  # agents import torch again after every kill
EVERY = 1
NETWORK = star(stragglers=4, sd_mbps=0.0, latency_ms=0.005)
TABLES: dict[str, Any] = {
    "network": NETWORK,
    "compute": {"time_per_round": ROUND_S, "jitter": 0.4, "slow_nodes": 2, "slow_factor": 3.0},
    "train": {"lr": 0.01, "batch": 2, "local_steps": 2, "momentum": 0.9},
}
GRAPH = {"topology": {"name": "regular", "settings": {"degree": 3}}}
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "mosaic": ("mosaic", {}),
    "epidemic": ("epidemic", {}),
    "divshare": ("divshare", {"recipients": 3}),
    "adpsgd": ("adpsgd", {}),
    "adpsgd, overlap": ("adpsgd", {"overlap": True}),
    "adpsgd_pingpong": ("adpsgd_pingpong", {"pings": 2}),
    "swift": ("swift", {}),
    "swarm": ("swarm", {}),
    "gossip": ("gossip", {"period_s": 6e-5}),
    "swift_push": ("swift_push", {"recipients": 3}),
    "swift_push, flush": ("swift_push", {"recipients": 3, "flush": True}),
}


@pytest.fixture(scope="module")
def executor() -> Iterator[LocalExecutor]:
    """One agent for all tests of this file."""
    made = LocalExecutor()
    made.start()
    yield made
    made.close()


HOLD_AT = 50
"""The round that no run comes to as long as it is to be killed: it cannot be over before that."""


@pytest.fixture
def brake(tmp_path: Path) -> Path:
    """As long as it is not there, runs take their time, and stop in the middle."""
    return tmp_path / "brake"


def arm_of(name: str, brake: Path) -> tuple[Arm, bool]:
    """An arm of about two hundred rounds, and whether its algorithm is synchronous."""
    algorithm, settings = ARMS[name]
    synchronous = algorithm in ("mosaic", "epidemic")
    tables = {**TABLES, **GRAPH} if synchronous else TABLES
    limits = {"max_rounds": None, "time_limit_s": 200 * ROUND_S} if not synchronous else {}
    if algorithm == "mosaic":
        tables = {**tables, "fragments": {"count": 4, "map": "global"}}
    tables = {**tables, "data": braked(brake, HOLD_AT)}
    arm = contender(algorithm, settings, rounds=200, run={"test_after": 8, **limits}, **tables)
    asked = arm.checkpoint.model_copy(update={"every": EVERY})
    return arm.model_copy(update={"checkpoint": asked}), synchronous


def without_checkpoints(arm: Arm) -> Arm:
    """The same run, which saves nothing."""
    return arm.model_copy(update={"checkpoint": Arm.model_fields["checkpoint"].default})


def kill_after(
    number: int, job: Job, executor: LocalExecutor, chance: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run ``job`` and kill one of its processes, any, once the launcher hears of checkpoint ``number``."""
    saved = Checkpoints.saved

    def kill(made: Checkpoints, heard: int) -> None:
        saved(made, heard)
        if heard == number:
            agents = psutil.Process().children()
            members = sorted(each.pid for agent in agents for each in agent.children())
            os.kill(chance.choice(members), signal.SIGKILL)

    with monkeypatch.context() as patched, Interruption().installed() as interruption:
        patched.setattr(Checkpoints, "saved", kill)
        outcome = executor.run(job, SilentDisplay(), interruption)
    assert outcome.state == "failed"
    assert "was killed by SIGKILL" in (outcome.cause or "")


def resumed(arm: Arm, folder: JobFolder) -> Job:
    """The job as it goes on."""
    found, problems = checkpoints.newest(folder)
    assert found is not None
    assert problems == []
    checkpoints.cut_logs(folder, found)
    return Job(arm, 1, folder, found)


@pytest.mark.parametrize("name", ARMS)
def test_a_killed_member(
    name: str, executor: LocalExecutor, tmp_path: Path, brake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice, the second time in the run that was resumed; compared with the undisturbed run inline."""
    arm, synchronous = arm_of(name, brake)
    whole, cut = JobFolder(tmp_path / "whole"), JobFolder(tmp_path / "cut")
    chance = random.Random(name)
    kill_after(1, Job(arm, 1, cut), executor, chance, monkeypatch)
    job = resumed(arm, cut)
    assert job.resumed is not None
    kill_after(job.resumed.number + 1, job, executor, chance, monkeypatch)
    brake.touch()
    with Interruption().installed() as interruption:
        outcome = executor.run(resumed(arm, cut), SilentDisplay(), interruption)
    assert outcome.state == "done", outcome.cause
    expected = run(without_checkpoints(arm), whole.path)
    models = np.stack([np.load(cut.model(i)) for i in range(arm.nodes)])
    assert models.tobytes() == expected.models.tobytes()
    ignored = REAL if synchronous else (*REAL, "total_meta")
    assert logged(cut, ignored) == logged(whole, ignored)


class Killing(SilentDisplay):
    """Kills an agent as soon as a whole checkpoint is here."""

    def __init__(self, pid: int, folder: JobFolder) -> None:
        super().__init__()
        self._pid = pid
        self._folder = folder
        self._killed = False

    def tick(self) -> None:
        if not self._killed and last_whole(self._folder):
            self._killed = True
            os.kill(self._pid, signal.SIGKILL)


@pytest.mark.parametrize("folder", ["shared", "apart"])
@pytest.mark.parametrize("name", ["mosaic", "adpsgd, overlap"])
def test_from_three_hosts_to_two(
    name: str, folder: str, tmp_path: Path, brake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent is killed; the run goes on with other nodes on other hosts, where nothing of it was."""
    if folder == "apart":
        monkeypatch.setattr(fleet, "Line", Elsewhere)
    arm, synchronous = arm_of(name, brake)
    whole, cut = JobFolder(tmp_path / "whole"), JobFolder(tmp_path / "cut")
    three = fleet.Fleet(loopback(3, folder=str(tmp_path / "first")), LocalStarter())
    with closing(three), Interruption().installed() as interruption:
        killing = Killing(three.meet()["h2"]["pid"], cut)
        outcome = three.run(Job(arm, 1, cut), killing, interruption)
    assert "agent on host h2 was killed by signal 9" in (outcome.cause or "")
    tidy_up_after_a_killed_agent()
    Hold(cut.path, alone=True).let_go()  # as resuming waits for the killed agent's nodes
    found, problems = checkpoints.newest(cut)
    assert found is not None
    # What the killed host had not sent of a later one is missing.
    assert all("cannot be read: No such file" in problem for problem in problems)
    assert folder == "apart" or problems == []
    checkpoints.cut_logs(cut, found)
    cut.log("h1").parent.mkdir(exist_ok=True)
    with cut.log("h1").open("a") as log:
        log.write("said before\n")
    said = cut.log("h1").read_text()
    brake.touch()
    two = fleet.Fleet(loopback(2, folder=str(tmp_path / "second")), LocalStarter())
    with closing(two), Interruption().installed() as interruption:
        outcome = two.run(Job(arm, 1, cut, found), SilentDisplay(), interruption)
    assert outcome.state == "done", outcome.cause
    assert cut.log("h1").read_text().startswith(said)
    expected = run(without_checkpoints(arm), whole.path)
    models = np.stack([np.load(cut.model(i)) for i in range(arm.nodes)])
    assert models.tobytes() == expected.models.tobytes()
    ignored = (*REAL, "host") if synchronous else (*REAL, "host", "total_meta")
    assert logged(cut, ignored) == logged(whole, ignored)


EXPERIMENT = """
name = "cut"
nodes = 8
network = { name = "star", fast_mbps = 60.0, latency_ms = 0.005, stragglers = 4, sd_mbps = 0.0 }
[data]
name = "tests.integration.leisurely:Leisurely"
brake = "BRAKE"
hold_at = 60
[train]
lr = 0.01
batch = 2
local_steps = 2
momentum = 0.9
[compute]
time_per_round = ROUND_S
jitter = 0.3
[run]
max_rounds = 120
test_after = 20
[checkpoint]
every = 5
[[arm]]
name = "short"
algorithm = "swarm"
run = { max_rounds = 10 }
[[arm]]
name = "mosaic"
algorithm = "mosaic"
topology = { name = "regular", degree = 3 }
fragments = { count = 4, map = "global" }
"""


def launched(*words: str, folder: Path) -> subprocess.Popen[str]:
    """A launcher of its own."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "launch", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )


def end(process: subprocess.Popen[str]) -> str:
    """Kill a launcher, if it runs, and wait for the end of all that it started; what it said."""
    descendants = [] if process.poll() is not None else psutil.Process(process.pid).children(recursive=True)
    if process.poll() is None:
        process.kill()
    output, _ = process.communicate()
    wait_for(lambda: all(is_gone(each) for each in descendants), 10)
    return output


def test_a_killed_launcher_and_a_damaged_checkpoint(tmp_path: Path, brake: Path) -> None:
    """SIGKILL in the second job; a run that lives is refused; the done job stays; damage is named."""
    text = EXPERIMENT.replace("BRAKE", str(brake)).replace("ROUND_S", str(ROUND_S))
    (tmp_path / "cut.toml").write_text(text, encoding="utf-8")
    first = launched("run", "cut.toml", "--out", "out", folder=tmp_path)
    try:
        job = tmp_path / "out" / "none"

        def third_checkpoint() -> bool:
            nonlocal job
            job = next(iter(tmp_path.glob("out/*/mosaic/seed-1")), job)
            assert first.poll() is None, "it ended before it could be killed"
            whole = last_whole(JobFolder(job))
            return bool(whole) and whole[-1].number >= 3

        wait_for(third_checkpoint, 200)
        first.send_signal(signal.SIGSTOP)  # it lives, and does not come to its end
        folder = job.parents[1]
        refused = launched("resume", folder.name, "--out", "out", folder=tmp_path)
        said, _ = refused.communicate(timeout=100)
        assert refused.returncode == 2, said
        assert "still runs; wait for its end, or end it with decentral stop" in said
    finally:
        said = end(first)
    done = {path: path.stat().st_mtime_ns for path in (folder / "short").rglob("*")}
    assert (folder / "short" / "seed-1" / "models" / "007.npy") in done
    found, _ = checkpoints.newest(JobFolder(job))
    assert found is not None, said
    path = found.folder / "timekeeper.ckpt"
    path.write_bytes(path.read_bytes()[:-1])
    before, _ = checkpoints.newest(JobFolder(job))
    assert before is not None
    assert before.number < found.number
    brake.touch()
    second = launched("run", "--resume", folder.name, "--out", "out", folder=tmp_path)
    said, _ = second.communicate(timeout=200)
    assert second.returncode == 0, said
    assert f"damaged checkpoint passed over: {path}" in said
    assert f"goes on from checkpoint {before.number}," in said
    assert {path: path.stat().st_mtime_ns for path in (folder / "short").rglob("*")} == done
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["state"] == "done"
    assert [each["arm"] for each in manifest["resumed"][0]["jobs"]] == ["mosaic"]
    content = json.loads((folder / "resolved.json").read_text(encoding="utf-8"))
    arm = Arm.model_validate_json(json.dumps({**content["arms"][1], "checkpoint": {}}))
    expected = run(arm, tmp_path / "whole")
    models = np.stack([np.load(JobFolder(job).model(i)) for i in range(8)])
    assert models.tobytes() == expected.models.tobytes()
    assert logged(JobFolder(job)) == logged(JobFolder(tmp_path / "whole"))
