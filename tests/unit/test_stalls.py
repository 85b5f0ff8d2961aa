"""Who is stalled, from looks that a test makes up; and what real processes look like."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from launch.stalls import BLOCKED_AFTER_S, STOPPED_AFTER_S, Change, Look, Stalls, look_at


def seen(looks: list[tuple[float, Look, int]]) -> list[tuple[float, Change]]:
    """When which change is told of member 3."""
    stalls = Stalls()
    return [
        (now_s, change)
        for now_s, look, round_ in looks
        if (change := stalls.see(3, look, round_, now_s)) is not None
    ]


def steadily(look: Look, *, until_s: int, since_s: int = 0, round_: int = 5) -> list[tuple[float, Look, int]]:
    return [(float(now_s), look, round_) for now_s in range(since_s, until_s)]


def test_stopped_and_going_on_again() -> None:
    told = seen(
        [
            (0.0, Look("R", 10, ""), 4),
            *steadily(Look("T", 11, ""), since_s=1, until_s=31),
            *steadily(Look("S", 11, "do_poll"), since_s=31, until_s=40),
        ]
    )
    assert told == [
        (1.0 + STOPPED_AFTER_S, Change("is stopped (SIGSTOP)", STOPPED_AFTER_S)),
        (31.0, Change(None, 0.0)),
    ]


def test_stopped_for_a_moment_is_not_told() -> None:
    assert seen([(0.0, Look("T", 1, ""), 1), (1.0, Look("R", 1, ""), 1), (2.0, Look("T", 1, ""), 1)]) == []


def test_a_disk_that_hangs() -> None:
    told = seen(steadily(Look("D", 7, ""), until_s=60))
    assert told == [
        (BLOCKED_AFTER_S, Change("is blocked (waits for a disk or a file system)", BLOCKED_AFTER_S))
    ]


def test_a_slow_disk_under_which_work_goes_on() -> None:
    assert seen([(float(t), Look("D", t, ""), 1) for t in range(60)]) == []
    assert seen([(float(t), Look("D", 1, ""), t) for t in range(60)]) == []


@pytest.mark.parametrize("function", ["do_poll", "futex_do_wait", "__skb_wait_for_more_packets", "0", ""])
def test_waiting_for_the_run_is_no_stall(function: str) -> None:
    assert seen(steadily(Look("S", 7, function), until_s=600)) == []


@pytest.mark.parametrize("function", ["anon_pipe_read", "fuse_dev_do_read", "nfs_wait_bit_killable"])
def test_waiting_for_something_else_is(function: str) -> None:
    ((when_s, change),) = seen(steadily(Look("S", 7, function), until_s=60))
    assert when_s == BLOCKED_AFTER_S
    assert change.what == f"is blocked (sleeps in the kernel's {function})"


def test_long_training_is_no_stall() -> None:
    assert seen(steadily(Look("R", 7, ""), until_s=600)) == []


def test_a_real_process_that_is_stopped(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        os.kill(process.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        stopped = look_at(process.pid)
        assert stopped is not None
        assert stopped.state == "T"
    finally:
        process.kill()
        process.communicate()
    assert look_at(process.pid) is None
