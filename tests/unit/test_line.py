"""A line never blocks the launcher, and who is busy is not taken for lost."""

from __future__ import annotations

import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import pytest

from launch.executors import line as line_module
from launch.executors.line import Line, Pulse
from launch.hosts import Host

HELLO = """
import os, struct, sys, time, msgpack
def tell(**event):
    body = msgpack.packb(event)
    os.write(1, struct.pack("<I", len(body)) + body + b"\\n")
os.write(1, b"noise of a login shell\\n" + b"\\x00decentral agent\\n")
tell(**{"is": "hello", "pid": os.getpid()})
"""
DEAF = HELLO + "time.sleep(600)"
BEATING = HELLO + "while True:\n    tell(**{'is': 'beat'}); time.sleep(0.05)"


class Agent:
    """Starts a program instead of an agent."""

    def __init__(self, program: str) -> None:
        self._program = program

    def prepare(self, hosts: Sequence[Host], tell: Callable[[str], None]) -> None:
        pass

    def start(self, host: Host, log: BinaryIO) -> subprocess.Popen[bytes]:
        pipe = subprocess.PIPE
        return subprocess.Popen([sys.executable, "-c", self._program], stdin=pipe, stdout=pipe, stderr=log)

    def abandon(self, process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.wait()


@pytest.fixture
def lines() -> Iterator[Callable[[str], Line]]:
    made: list[Line] = []

    def make(program: str) -> Line:
        line = Line(Host(name="h"), Agent(program))
        made.append(line)
        while not line.facts:
            line.meet({})
        return line

    yield make
    for line in made:
        line.break_off()
        line.close()


def test_orders_to_an_agent_that_does_not_listen_wait_here(lines: Callable[[str], Line]) -> None:
    line = lines(DEAF)
    for _ in range(8):
        line.order("put", data=bytes(1 << 20))
    assert line.pending
    pulse = Pulse([line])
    line.flush()
    pulse.stop()
    line.break_off()
    assert line.ended


def test_nothing_is_said_once_the_line_is_cut(lines: Callable[[str], Line], tmp_path: Path) -> None:
    """Its descriptor's number may be that of a log by then, and somebody would wait for it to be flushed."""
    line = lines(DEAF)
    line.order("put", data=bytes(1 << 20))
    assert line.pending
    line.break_off()
    files = [(tmp_path / str(i)).open("wb") for i in range(64)]
    line.order("beat")
    line.flush()
    for file in files:
        file.close()
    assert not line.pending
    assert all((tmp_path / str(i)).stat().st_size == 0 for i in range(64))


def test_an_agent_that_is_heard_of_is_not_silent_whatever_the_launcher_did_meanwhile(
    lines: Callable[[str], Line], monkeypatch: pytest.MonkeyPatch
) -> None:
    beating, deaf = lines(BEATING), lines(DEAF)
    assert select.select([beating], [], [], 60)[0], "it goes on beating"
    later_s = time.monotonic() + 100
    monkeypatch.setattr(line_module.time, "monotonic", lambda: later_s)
    assert not beating.silent  # what it said while this process was busy is unread
    assert deaf.silent
