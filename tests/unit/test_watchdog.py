"""Who does not feed its watchdog is killed by it, and nobody else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

STOPS = """
PATIENCE = 60
import os, signal
from launch.watchdog import Watchdog
file = open("/dev/zero")
watchdog = Watchdog(PATIENCE)
print(watchdog.pid, flush=True)
watchdog.feed()
input()
os.kill(os.getpid(), signal.SIGSTOP)
"""
FEEDS = """
import time
from launch.watchdog import Watchdog
watchdog = Watchdog(5.0)
print(watchdog.pid, flush=True)
end_s = time.monotonic() + 7.0
while time.monotonic() < end_s:
    time.sleep(0.1)
    watchdog.feed()
"""
FEEDS_A_DEAD_ONE = """
import os, signal
from launch.watchdog import Watchdog
watchdog = Watchdog()
print(watchdog.pid, flush=True)
os.kill(watchdog.pid, signal.SIGKILL)
os.waitpid(watchdog.pid, 0)
for _ in range(100_000):  # more than a pipe holds
    watchdog.feed()
"""


@contextmanager
def started(program: str) -> Iterator[tuple[subprocess.Popen[str], psutil.Process | None]]:
    """The process that runs ``program`` and its watchdog, if that still lives."""
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    try:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        yield process, psutil.Process(pid) if psutil.pid_exists(pid) else None
    finally:
        process.kill()
        process.communicate()


def ends(process: psutil.Process | None) -> bool:
    """Within seconds."""
    deadline = time.monotonic() + 20
    while process is not None and process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def descriptors(pid: int) -> list[str]:
    """What kinds of files a process holds."""
    held = []
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            held.append(os.readlink(fd).partition(":")[0])
    return sorted(held)


def test_who_is_stopped_is_killed() -> None:
    with started(STOPS.replace("60", "1")) as (process, watchdog):
        assert watchdog is not None
        process.communicate("\n", timeout=30)
        assert process.returncode == -signal.SIGKILL
        assert ends(watchdog)


def test_it_holds_nothing_of_whom_it_watches() -> None:
    """Else a line would seem open, and a lock held, that are not."""
    with started(STOPS) as (_, watchdog):
        assert watchdog is not None
        deadline = time.monotonic() + 30
        held: list[str] = []
        while len(held) != 5 and time.monotonic() < deadline:  # it may not have come so far
            held = descriptors(watchdog.pid)
        assert held == ["/dev/null"] * 3 + ["anon_inode", "pipe"]


def test_who_feeds_it_lives_and_it_ends_with_them() -> None:
    with started(FEEDS) as (process, watchdog):
        assert process.wait(60) == 0
        assert ends(watchdog)


def test_it_may_die_first() -> None:
    with started(FEEDS_A_DEAD_ONE) as (process, _):
        assert process.wait(30) == 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_ends_with_a_killed_one(number: signal.Signals) -> None:
    with started(STOPS) as (process, watchdog):
        process.send_signal(number)
        assert process.wait(30) == -number
        assert ends(watchdog)
