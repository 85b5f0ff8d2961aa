"""A node that is stopped for a while is stalled, not dead: the run waits, says so, and loses nothing."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from launch.executors.base import Interruption, Job, Outcome
from launch.executors.local import LocalExecutor
from launch.paths import JobFolder
from launch.stalls import STOPPED_AFTER_S, look_at
from tests.harness import SilentDisplay, arm, events, header
from tests.integration.test_faults import faulty, outcome_of
from tests.waiting import wait_for

ROOT = Path(__file__).parents[2]
FULL = os.environ.get("DECENTRAL_FULL") == "1"
STOPPED_S = 30.0 if FULL else 3.0
START_S = 120.0
"""For what is a matter of seconds on a machine that is not busy."""
TOML = """
name = "stopped"
nodes = 8
{parts}
fragments = {{ count = 4, map = "global" }}
[data]
{data}
[train]
lr = 0.05
batch = 2
local_steps = 2
[run]
max_rounds = 30
test_after = 30
"""
QUADRATIC = 'name = "quadratic"'
BRAKED = """name = "tests.integration.leisurely:Leisurely"
hold_at = 20
brake = {brake}"""
PARTS = {
    "mosaic": 'algorithm = "mosaic"\ntopology = { name = "regular", degree = 3 }',
    "divshare": """
algorithm = { name = "divshare", recipients = 3 }
network = { name = "star", fast_mbps = 60.0 }
compute = { time_per_round = 5e-5 }""",
}


def decentral(*words: str) -> subprocess.CompletedProcess[str]:
    """A command of this checkout, to its end."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "launch", *words],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )


def the_folder(out: Path) -> Path:
    (path,) = out.glob("*/manifest.json")
    return path.parent


@pytest.mark.timeout(600)
@pytest.mark.parametrize("algorithm", PARTS)
def test_stopped_for_a_while(algorithm: str, tmp_path: Path) -> None:
    """Flagged while it is stopped; same models to the bit as undisturbed; noted in the manifest."""
    toml, brake = tmp_path / "run.toml", tmp_path / "brake"
    undisturbed, out = tmp_path / "undisturbed", tmp_path / "out"
    toml.write_text(TOML.format(parts=PARTS[algorithm], data=QUADRATIC), encoding="utf-8")
    assert decentral("run", str(toml), "--out", str(undisturbed), "--executor", "inline").returncode == 0
    data = BRAKED.format(brake=json.dumps(str(brake)))
    toml.write_text(TOML.format(parts=PARTS[algorithm], data=data), encoding="utf-8")
    command = [sys.executable, "-P", "-m", "launch", "run", str(toml), "--out", str(out)]
    run = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        wait_for(lambda: list(out.glob("*/*/seed-1/nodes/003.jsonl")), START_S, "a log of node 3")
        (log,) = out.glob("*/*/seed-1/nodes/003.jsonl")
        wait_for(lambda: log.read_text().count('"event":"round"') >= 3, START_S, "rounds of node 3")
        pid = header(log)["pid"]
        os.kill(pid, signal.SIGSTOP)
        stopped_s = time.monotonic()

        def shown() -> str:
            told = decentral("status", "--out", str(out)).stdout
            return told if "stalled  node 3 on host localhost is stopped (SIGSTOP) since" in told else ""

        wait_for(shown, START_S, "the stall is shown")
        flagged_s = time.monotonic() - stopped_s
        status = json.loads(decentral("status", "--json", "--out", str(out)).stdout)
        assert status["life"] == "running"
        assert [stall["member"] for stall in status["live"]["job"]["stalls"]] == [3]
        # A stop of this length is what is tested.
        time.sleep(max(0.0, STOPPED_S - (time.monotonic() - stopped_s)))
        assert run.poll() is None
        os.kill(pid, signal.SIGCONT)

        def over() -> bool:
            seen = json.loads(decentral("status", "--json", "--out", str(out)).stdout)
            return seen["live"]["job"]["stalls"] == []

        wait_for(over, START_S, "the end of the stall")
        brake.touch()
        output, _ = run.communicate(timeout=300)
    finally:
        run.kill()
        run.wait()
    assert run.returncode == 0, output
    print(f"flagged {flagged_s:.1f} s after the SIGSTOP, stopped for {STOPPED_S} s")
    assert "node 3 on host localhost is stopped (SIGSTOP) since" in output
    assert "node 3 on host localhost goes on again" in output
    manifest = json.loads((the_folder(out) / "manifest.json").read_text())
    (stall,) = manifest["jobs"][0]["stalls"]
    assert (stall["member"], stall["what"]) == (3, "is stopped (SIGSTOP)")
    # It counts from when the agent looks, which is late on a busy machine, to when it sees the node go on.
    assert stall["for_s"] >= (STOPPED_S - 5.0 if FULL else STOPPED_AFTER_S)
    for model in sorted(the_folder(undisturbed).glob("*/seed-1/models/*.npy")):
        same = the_folder(out) / model.relative_to(the_folder(undisturbed))
        assert same.read_bytes() == model.read_bytes()


class Stopping(SilentDisplay):
    """Stops node 3 with SIGSTOP once it has finished some rounds; remembers what is told of stalls."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = JobFolder(folder)
        self.stopped = 0
        self.told: list[str | None] = []

    def progress(self, node: int, round: int, train_loss: float | None) -> None:
        super().progress(node, round, train_loss)
        if node == 3 and not self.stopped:
            self.stopped = header(self.folder.node_log(3))["pid"]
            os.kill(self.stopped, signal.SIGSTOP)

    def stalled(self, member: int, what: str | None, for_s: float) -> None:
        self.told.append(what)


def stop_node_3(folder: Path, display: Stopping, **run: Any) -> Outcome:
    """A long run of which node 3 is stopped and never goes on."""
    settings = arm(run={"max_rounds": 1_000_000, "test_after": 1_000_000, **run})
    executor = LocalExecutor()
    try:
        with Interruption().installed() as interruption:
            return executor.run(Job(settings, 1, JobFolder(folder)), display, interruption)
    finally:
        executor.close()


@pytest.mark.parametrize("clock", ["virtual", "wall"])
def test_who_is_stopped_for_too_long_is_the_cause(clock: str, tmp_path: Path) -> None:
    """Not the neighbor whose patience (run.liveness_timeout_s) ended."""
    display = Stopping(tmp_path)
    outcome = stop_node_3(tmp_path, display, clock=clock, liveness_timeout_s=6.0)
    assert (outcome.state, outcome.exit_code) == ("failed", 4)
    assert outcome.cause is not None
    assert outcome.cause.startswith("node 3 on host localhost is stopped (SIGSTOP) after round ")
    assert "others have waited for it in vain: " in outcome.cause
    assert display.told == ["is stopped (SIGSTOP)"]


def tells_where_processes_sleep() -> bool:
    """Whether the kernel does."""
    process = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    deadline = time.monotonic() + 10.0
    try:
        while (look := look_at(process.pid)) is not None and "pipe_" not in look.asleep_in:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return look is not None
    finally:
        process.communicate()


def test_a_node_that_waits_for_something_outside_of_its_run_is_the_cause(tmp_path: Path) -> None:
    if not tells_where_processes_sleep():
        pytest.skip("this kernel hides /proc/PID/wchan, where a process sleeps")
    settings = faulty("blocked", run={"max_rounds": 1000, "test_after": 1000, "liveness_timeout_s": 15.0})
    outcome = outcome_of(settings, tmp_path)
    assert outcome.exit_code == 4
    assert outcome.cause is not None
    where = r"sleeps in the kernel's \w*pipe_\w+"
    expected = rf"node 3 on host localhost is blocked \({where}\) after round 4 of 1000; others have waited"
    assert re.match(expected, outcome.cause), outcome.cause


def test_a_stopped_node_ends_in_order_when_the_run_is_interrupted(tmp_path: Path) -> None:
    class Interrupting(Stopping):
        def stalled(self, member: int, what: str | None, for_s: float) -> None:
            os.kill(os.getpid(), signal.SIGINT)

    outcome = stop_node_3(tmp_path, Interrupting(tmp_path))
    assert outcome.state == "interrupted"
    assert events(JobFolder(tmp_path).node_log(3))[-1]["reason"] == "interrupted"
