"""Whatever a node does, the run ends at once, says the first cause, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import psutil
import pytest

from launch.executors.base import Interruption, Job, Outcome
from launch.executors.local import LocalExecutor
from launch.paths import JobFolder
from tests.harness import SilentDisplay, arm, events

LONG = {"max_rounds": 100_000, "test_after": 100_000}
ROOT = Path(__file__).parents[2]
ENDLESS = """
name = "endless"
nodes = 8
algorithm = "mosaic"
topology = { name = "regular", degree = 3 }
fragments = { count = 4, map = "global" }
[data]
name = "quadratic"
[train]
lr = 0.05
batch = 2
local_steps = 2
[run]
max_rounds = 1000000
test_after = 100
save_models = false
"""


def faulty(how: str, **tables: Any) -> Any:
    """Eight nodes on the quadratic; node 3 fails in round 5."""
    algorithm = {"name": "tests.integration.faulty:Faulty", "settings": {"how": how}}
    return arm(**{"algorithm": algorithm, "fragments": {"count": 1}, "run": LONG, **tables})


def outcome_of(settings: Any, folder: Path) -> Outcome:
    """How ``settings`` end on processes; the agent is gone afterwards."""
    executor = LocalExecutor()
    try:
        with Interruption().installed() as interruption:
            return executor.run(Job(settings, 1, JobFolder(folder)), SilentDisplay(), interruption)
    finally:
        executor.close()


@pytest.mark.parametrize(
    ("how", "cause"),
    [
        ("raise", "failed after round 4 of 100000: ValueError: the learning rate is purple\n"),
        ("exit", "exited early with code 0 after round 4 of"),
        ("return", "failed after round 4 of 100000: algorithm Faulty returned before round 100000"),
        ("kill", "was killed by SIGKILL"),
        ("segfault", "was killed by SIGSEGV"),
    ],
)
def test_first_cause_is_named(how: str, cause: str, tmp_path: Path) -> None:
    outcome = outcome_of(faulty(how), tmp_path)
    assert (outcome.state, outcome.exit_code) == ("failed", 4)
    assert outcome.cause is not None
    assert outcome.cause.startswith("node 3 on host localhost ")
    assert cause in outcome.cause
    for log in (tmp_path / "nodes").iterdir():
        lines = events(log)  # every line is valid JSON
        assert lines[0]["event"] == "header"
        assert sum(line["event"] == "round" for line in lines) >= 1


def test_silent_node_ends_in_a_stall_that_names_it(tmp_path: Path) -> None:
    outcome = outcome_of(faulty("never_send", run={**LONG, "liveness_timeout_s": 0.5}), tmp_path)
    assert outcome.exit_code == 4
    assert outcome.cause is not None
    assert "heard nothing for 0.5 s while it waited for" in outcome.cause
    assert "run.liveness_timeout_s" in outcome.cause


def test_silent_node_inline_is_a_deadlock_that_names_it(tmp_path: Path) -> None:
    from launch.executors.inline import InlineExecutor

    with Interruption().installed() as interruption:
        job = Job(faulty("never_send"), 1, JobFolder(tmp_path))
        executor = InlineExecutor()
        outcome = executor.run(job, SilentDisplay(), interruption)
        executor.close()
    assert outcome.exit_code == 4
    assert outcome.cause is not None
    assert outcome.cause.startswith("deadlock at ")
    assert "messages of round 4 from nodes 3" in outcome.cause


def test_agent_killed(tmp_path: Path) -> None:
    class Killer(SilentDisplay):
        def progress(self, node: int, round: int, train_loss: float | None) -> None:
            executor_agent = psutil.Process().children()
            for agent in executor_agent:
                agent.kill()

    executor = LocalExecutor()
    with Interruption().installed() as interruption:
        job = Job(arm(run=LONG), 1, JobFolder(tmp_path))
        outcome = executor.run(job, Killer(), interruption)
    executor.close()
    assert outcome.exit_code == 4
    assert outcome.cause == "agent on host localhost was killed by signal 9"


def test_job_that_cannot_be_loaded_is_refused(tmp_path: Path) -> None:
    partition = {"name": "file", "settings": {"path": str(tmp_path / "absent.json")}}
    outcome = outcome_of(arm(data={"name": "quadratic", "partition": partition}), tmp_path / "run")
    assert outcome.state == "failed"
    assert outcome.cause is not None
    assert "absent.json" in outcome.cause
    assert outcome.exit_code == 2
    assert "Traceback" not in outcome.cause


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A launcher of its own, running an endless experiment with eight nodes."""
    toml = tmp_path / "endless.toml"
    toml.write_text(ENDLESS, encoding="utf-8")
    process = subprocess.Popen(
        command(toml, tmp_path / "out"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )
    yield process
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def wait_for(condition: Any, timeout_s: float) -> None:
    """Poll ``condition`` (of other processes, so there is nothing to wait on) until it holds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the awaited state was not reached in time"
        time.sleep(0.02)


def is_gone(process: psutil.Process) -> bool:
    """Ended, whether or not its adoptive parent has reaped it."""
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def running(process: subprocess.Popen[str], folder: Path) -> list[psutil.Process]:
    """All processes of the launcher once every node has written its first round."""

    def logs() -> list[Path]:
        return sorted(folder.glob("out/*/*/seed-1/nodes/*.jsonl"))

    wait_for(lambda: len(logs()) == 8 and all('"round"' in log.read_text() for log in logs()), 60)
    return psutil.Process(process.pid).children(recursive=True)


def manifest(folder: Path) -> dict[str, Any]:
    """The run's manifest."""
    (path,) = folder.glob("out/*/manifest.json")
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def test_nothing_survives_a_killed_launcher(launcher: subprocess.Popen[str], tmp_path: Path) -> None:
    descendants = running(launcher, tmp_path)
    assert len(descendants) == 10  # agent, eight nodes, observer
    launcher.kill()
    launcher.wait()
    wait_for(lambda: all(is_gone(p) for p in descendants), 2)
    for log in tmp_path.glob("out/*/*/seed-1/nodes/*.jsonl"):
        text = log.read_text(encoding="utf-8")
        for line in text[: text.rindex("\n")].splitlines():
            json.loads(line)
    assert (
        manifest(tmp_path)["state"] == "running"
    )  # nobody was left to say otherwise; reports call it incomplete


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_keeps_what_was_measured(
    number: signal.Signals, launcher: subprocess.Popen[str], tmp_path: Path
) -> None:
    descendants = running(launcher, tmp_path)
    launcher.send_signal(number)
    output, _ = launcher.communicate(timeout=60)
    assert launcher.returncode == 5, output
    assert "Traceback" not in output
    assert not [p for p in descendants if p.is_running()]
    assert manifest(tmp_path)["state"] == "interrupted"
    (report,) = tmp_path.glob("out/*/report.html")
    assert "interrupted" in report.read_text(encoding="utf-8").lower()
    for log in tmp_path.glob("out/*/*/seed-1/nodes/*.jsonl"):
        last = events(log)[-1]
        assert (last["event"], last["reason"]) == ("end", "interrupted")


def test_killed_node_ends_the_run_within_two_seconds(launcher: subprocess.Popen[str], tmp_path: Path) -> None:
    descendants = running(launcher, tmp_path)
    logs = {
        events(log)[0]["pid"]: events(log)[0]["node"] for log in tmp_path.glob("out/*/*/seed-1/nodes/*.jsonl")
    }
    victim = next(p for p in descendants if logs.get(p.pid) == 5)
    victim.kill()
    wait_for(lambda: all(is_gone(p) for p in descendants if p.pid in logs), 2)
    output, _ = launcher.communicate(timeout=60)
    assert launcher.returncode == 4, output
    assert "node 5 on host localhost was killed by SIGKILL" in output
    assert manifest(tmp_path)["state"] == "failed"
    (report,) = tmp_path.glob("out/*/report.html")
    assert "node 5" in report.read_text(encoding="utf-8")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 40 MB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if made.returncode != 0:
        pytest.skip(f"cannot mount a tmpfs here: {made.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def command(toml: Path, out: Path, *more: str) -> list[str]:
    """``decentral run`` of this checkout."""
    return [sys.executable, "-P", "-m", "launch", "run", str(toml), "--out", str(out), *more]


def _accepts(file: IO[bytes]) -> bool:
    try:
        return file.write(bytes(4096)) == 4096
    except OSError:
        return False


def test_full_disk_in_the_middle_is_named(small_disk: Path, tmp_path: Path) -> None:
    toml = tmp_path / "long.toml"
    toml.write_text(ENDLESS.replace("1000000", "5000"), encoding="utf-8")
    process = subprocess.Popen(
        command(toml, small_disk),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    wait_for(lambda: len(list(small_disk.glob("*/*/seed-1/nodes/*.jsonl"))) == 8, 60)
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file:
        while _accepts(file):
            pass
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 4, output
    assert "No space left on device; free space or choose another folder with --out" in output
    assert "Traceback" not in output


def test_full_disk_and_impossible_folder_are_refused_at_the_start(small_disk: Path, tmp_path: Path) -> None:
    toml = tmp_path / "long.toml"
    toml.write_text(ENDLESS, encoding="utf-8")
    for out, expected in (
        (small_disk, "this run writes about"),
        (Path("/proc/decentral"), "cannot write /proc/decentral"),
    ):
        done = subprocess.run(
            command(toml, out),
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            check=False,
        )
        assert done.returncode == 3, done.stderr
        assert expected in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("delay_s", [0.0, 0.3, 1.0, 2.0, 3.0])
def test_interrupts_at_any_moment_of_the_start(
    delay_s: float, launcher: subprocess.Popen[str], tmp_path: Path
) -> None:
    """While the launcher, the agent or the nodes import, load, fork or bind: code 5, report, nothing left."""
    wait_for(lambda: bool(list(tmp_path.glob("out/*/manifest.json"))), 60)
    deadline = time.monotonic() + delay_s
    wait_for(lambda: time.monotonic() >= deadline, delay_s + 1)
    descendants = psutil.Process(launcher.pid).children(recursive=True)
    launcher.send_signal(signal.SIGINT)
    wait_for(lambda: manifest(tmp_path)["state"] != "running" or launcher.poll() is not None, 60)
    if launcher.poll() is None:
        launcher.send_signal(signal.SIGINT)  # impatient, while the report is being written
    output, _ = launcher.communicate(timeout=60)
    assert launcher.returncode == 5, output
    assert "Traceback" not in output
    assert manifest(tmp_path)["state"] == "interrupted"
    assert list(tmp_path.glob("out/*/report.html"))
    wait_for(lambda: all(is_gone(process) for process in descendants), 5)


def test_inline_run_heeds_an_interrupt_that_came_before_it(tmp_path: Path) -> None:
    from launch.executors.inline import InlineExecutor

    executor = InlineExecutor()
    with Interruption().installed() as interruption:
        os.kill(os.getpid(), signal.SIGINT)
        outcome = executor.run(Job(arm(run=LONG), 1, JobFolder(tmp_path)), SilentDisplay(), interruption)
    executor.close()
    assert (outcome.state, outcome.exit_code) == ("interrupted", 5)
    assert all(events(log)[-1]["reason"] == "interrupted" for log in (tmp_path / "nodes").iterdir())
