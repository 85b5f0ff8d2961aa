"""The launcher as a program of its own: killed, interrupted, out of disk; nothing it started survives it."""

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

from tests.harness import events, header
from tests.load import OVERLOADED
from tests.waiting import wait_for

ROOT = Path(__file__).parents[2]
START_S = 120.0
"""For what is a matter of seconds on a machine that is not busy."""
GONE_S = 10.0
"""What is promised of every process once the launcher has ended, in whatever way."""
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

    wait_for(
        lambda: len(logs()) == 8 and all('"round"' in log.read_text() for log in logs()),
        START_S,
        "rounds of all nodes",
    )
    return psutil.Process(process.pid).children(recursive=True)


def manifest(folder: Path) -> dict[str, Any]:
    """The run's manifest."""
    (path,) = folder.glob("out/*/manifest.json")
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def test_nothing_survives_a_killed_launcher(launcher: subprocess.Popen[str], tmp_path: Path) -> None:
    descendants = running(launcher, tmp_path)
    assert len(descendants) == 11  # agent, eight nodes, observer, timekeeper
    launcher.kill()
    launcher.wait()
    wait_for(lambda: all(is_gone(p) for p in descendants), GONE_S, "all are gone")
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
    output, _ = launcher.communicate(timeout=START_S)
    assert launcher.returncode == 5, output
    assert "Traceback" not in output
    assert not [p for p in descendants if p.is_running()]
    assert manifest(tmp_path)["state"] == "interrupted"
    (report,) = tmp_path.glob("out/*/report.html")
    assert "interrupted" in report.read_text(encoding="utf-8").lower()
    for log in tmp_path.glob("out/*/*/seed-1/nodes/*.jsonl"):
        last = events(log)[-1]
        assert (last["event"], last["reason"]) == ("end", "interrupted")


def test_killed_node_ends_the_run_at_once(launcher: subprocess.Popen[str], tmp_path: Path) -> None:
    descendants = running(launcher, tmp_path)
    headers = [header(log) for log in tmp_path.glob("out/*/*/seed-1/nodes/*.jsonl")]
    logs = {line["pid"]: line["node"] for line in headers}
    victim = next(p for p in descendants if logs.get(p.pid) == 5)
    victim.kill()
    # Two seconds are promised on a machine that is not overloaded (test_kills.py).
    nodes = [p for p in descendants if p.pid in logs]
    wait_for(lambda: all(is_gone(p) for p in nodes), 2 * OVERLOADED, "all nodes are gone")
    output, _ = launcher.communicate(timeout=START_S)
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
    """Nodes wait in round 3 until it is full."""
    toml, brake = tmp_path / "long.toml", tmp_path / "brake"
    braked = f'name = "tests.integration.leisurely:Leisurely"\nhold_at = 3\nbrake = {json.dumps(str(brake))}'
    few = ENDLESS.replace("1000000", "5000")
    toml.write_text(few.replace('name = "quadratic"', braked), encoding="utf-8")
    process = subprocess.Popen(
        command(toml, small_disk),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    wait_for(lambda: len(list(small_disk.glob("*/*/seed-1/nodes/*.jsonl"))) == 8, START_S, "logs")
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file:
        while _accepts(file):
            pass
    brake.touch()
    output, _ = process.communicate(timeout=START_S)
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
    wait_for(lambda: list(tmp_path.glob("out/*/manifest.json")), START_S, "a manifest")
    time.sleep(delay_s)  # the moment itself
    descendants = psutil.Process(launcher.pid).children(recursive=True)
    launcher.send_signal(signal.SIGINT)
    wait_for(
        lambda: manifest(tmp_path)["state"] != "running" or launcher.poll() is not None,
        START_S,
        "the run ends",
    )
    if launcher.poll() is None:
        launcher.send_signal(signal.SIGINT)  # impatient, while the report is being written
    output, _ = launcher.communicate(timeout=START_S)
    assert launcher.returncode == 5, output
    assert "Traceback" not in output
    assert manifest(tmp_path)["state"] == "interrupted"
    assert list(tmp_path.glob("out/*/report.html"))
    wait_for(lambda: all(is_gone(process) for process in descendants), GONE_S, "all are gone")
