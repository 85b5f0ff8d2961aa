"""Started and stopped over and over, in every way a user or a batch system does: nothing stays behind.

Five cycles by default, a hundred with DECENTRAL_FULL=1; each is a launcher of its own, as from a shell.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Literal, TypeAlias

import pytest

from launch.holding import HELD

ROOT = Path(__file__).parents[2]
FULL = os.environ.get("DECENTRAL_FULL") == "1"
CYCLES = 100 if FULL else 5
GONE_S = 10.0
"""What is promised of every process once the launcher has ended, in whatever way."""
PATIENCE_S = 250.0
"""For a run to its end on a machine that other work keeps busy."""
MARK = "DECENTRAL_TEST_CYCLE"
TOML = """
name = "cycle"
nodes = 4
algorithm = "mosaic"
topology = {{ name = "regular", degree = 2 }}
fragments = {{ count = 4, map = "global" }}
[data]
name = "quadratic"
[train]
lr = 0.05
batch = 2
local_steps = 2
[run]
max_rounds = {rounds}
test_after = {rounds}
"""
Way: TypeAlias = Literal["to the end", "SIGINT", "SIGINT twice", "SIGTERM", "SIGKILL"]
WAYS: tuple[Way, ...] = ("to the end", "SIGINT", "SIGKILL", "SIGINT twice", "SIGTERM")
EXIT_CODES: dict[Way, set[int]] = {
    "to the end": {0},
    "SIGINT": {5},
    "SIGINT twice": {5},
    "SIGTERM": {5},
    "SIGKILL": {-9},
}


def carrying(mark: str) -> list[int]:
    """Processes that live and have ``mark`` in their environment: all that a cycle has started."""
    found = []
    wanted = f"{MARK}={mark}".encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except (OSError, ProcessLookupError):  # gone meanwhile, or somebody else's; a zombie's is empty
            continue
    return found


def shown(pids: list[int]) -> list[str]:
    """What processes are, for messages."""
    return [
        f"{pid}: {Path(f'/proc/{pid}/cmdline').read_bytes()!r}"
        for pid in pids
        if Path(f"/proc/{pid}").exists()
    ]


def sockets_below(folder: Path) -> list[str]:
    """Unix sockets bound to a path in ``folder``."""
    lines = Path("/proc/net/unix").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if str(folder) in line]


def shared_since(began_ns: int) -> list[str]:
    """Shared memory that this user has made since ``began_ns`` and no process that lives uses."""
    found = []
    for path in Path("/dev/shm").iterdir():
        with suppress(FileNotFoundError):
            status = path.stat()
            ours = status.st_uid == os.geteuid() and status.st_ctime_ns >= began_ns
            if ours and path.name.startswith(("decentral", "torch", "psm_")) and not _in_use(path):
                found.append(path.name)
    return found


def _in_use(path: Path) -> bool:
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with suppress(OSError):
            if str(path) in maps.read_text(encoding="utf-8"):
                return True
    return False


def cycle(number: int, way: Way, draw: random.Random, folder: Path) -> float:
    """One start and one stop; seconds from the launcher's end until everything was gone."""
    mark = uuid.uuid4().hex
    folder.mkdir()
    # Not below folder: a socket's path may have 107 bytes.
    temporary, out = Path(tempfile.mkdtemp(prefix="cycle-")), folder / "out"
    toml = folder / "cycle.toml"
    toml.write_text(TOML.format(rounds=20 if way == "to the end" else 1_000_000), encoding="utf-8")
    began_ns = toml.stat().st_ctime_ns  # by the clock of files, which is coarse
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "launch", "run", str(toml), "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(temporary), MARK: mark},
        start_new_session=True,
    )
    try:
        if way != "to the end":
            while not list(out.glob("*/manifest.json")) and process.poll() is None:
                time.sleep(0.01)
            time.sleep(draw.uniform(0.0, 6.0))  # while it loads, forks, binds or runs
            stop(process, way, out)
        output, _ = process.communicate(timeout=PATIENCE_S)
        ended_s = time.monotonic()
        while left := carrying(mark):
            assert time.monotonic() - ended_s < GONE_S, f"cycle {number}, {way}: {shown(left)} live on"
            time.sleep(0.02)
        gone_s = time.monotonic() - ended_s
    finally:
        for pid in carrying(mark):
            os.kill(pid, signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    case = f"cycle {number}, {way}"
    assert process.returncode in EXIT_CODES[way], f"{case}: {process.returncode}\n{output}"
    assert "Traceback" not in output, f"{case}:\n{output}"
    assert_clean(case, way, folder, temporary, began_ns)
    temporary.rmdir()
    return gone_s


def stop(process: subprocess.Popen[str], way: Way, out: Path) -> None:
    """End a launcher in one of the ways."""
    if way != "SIGINT twice":
        process.send_signal(getattr(signal, way))
        return
    (run,) = out.iterdir()
    command = [sys.executable, "-P", "-m", "launch", "stop", "--now", str(run)]
    told = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stderr
    assert "interrupted at " in told.stdout


def assert_clean(case: str, way: Way, folder: Path, temporary: Path, began_ns: int) -> None:
    """No file, socket or shared memory is left, and the run folder holds what a run folder is to hold."""
    assert sorted(path.name for path in temporary.iterdir()) == [], case
    assert sockets_below(temporary) == [], case
    assert shared_since(began_ns) == [], case
    (run,) = (folder / "out").iterdir()
    manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    expected = {"to the end": "done", "SIGKILL": "running"}.get(way, "interrupted")
    assert manifest["state"] == expected, case
    if way == "SIGKILL":
        return  # nobody was left to take live.json away or to write the report
    assert (run / "report.html").exists(), case
    hidden = [path for path in run.rglob(".*") if path.name != HELD]  # which is empty and stays for a resume
    assert [*hidden, *run.glob("live.json")] == [], case


@pytest.mark.slow
@pytest.mark.timeout(14_400 if FULL else 900)
def test_cycles_leave_nothing(tmp_path: Path) -> None:
    draw = random.Random(7)
    gone_s: list[tuple[float, Way]] = []
    for number in range(CYCLES):
        way = WAYS[number % len(WAYS)]
        gone_s.append((cycle(number, way, draw, tmp_path / str(number)), way))
    longest = {way: max(taken for taken, other in gone_s if other == way) for way in WAYS}
    print(
        f"{CYCLES} cycles, {dict(Counter(way for _, way in gone_s))}; everything gone after the launcher's "
        f"end, longest by way: {', '.join(f'{way} {taken:.2f} s' for way, taken in longest.items())}"
    )
