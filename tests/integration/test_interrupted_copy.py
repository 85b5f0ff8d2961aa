"""Ended while code and packages are on their way to hosts: in order, and nothing goes on anywhere."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from launch.deploy import line
from launch.executors.child import spawn
from tests.lab.experiments import short

ROOT = Path(__file__).resolve().parents[2]
END_S = 60.0
SLOW_SSH = """#!/bin/sh
sleep 600 &
echo $$ $! > {started}
wait
"""
"""Its child stands for a ProxyCommand."""


@contextmanager
def ended(pids: list[int]) -> Iterator[None]:
    """Fails unless all of these processes, which are there before it, end soon after the block."""
    pidfds = [os.pidfd_open(pid) for pid in pids]
    try:
        yield
        for pidfd in pidfds:
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            assert poll.poll(1000 * END_S), f"still there after {END_S} s"
    finally:
        for pidfd in pidfds:
            os.close(pidfd)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_launcher_ends_in_order(number: signal.Signals, tmp_path: Path) -> None:
    """Both hosts are being looked at when the signal comes."""
    (tmp_path / "experiment.toml").write_text(short())
    (tmp_path / "hosts").write_text("h1\nh2\n")
    started = tmp_path / "started"
    os.mkfifo(started)
    ssh = tmp_path / "ssh"
    ssh.write_text(SLOW_SSH.format(started=started))
    ssh.chmod(0o755)
    words = ["run", str(tmp_path / "experiment.toml"), "--hosts", str(tmp_path / "hosts")]
    launcher = subprocess.Popen(
        [sys.executable, "-P", "-m", "launch", *words, "--out", str(tmp_path / "out")],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "DECENTRAL_SSH": str(ssh)},
    )
    with launcher:
        reader = os.open(started, os.O_RDONLY)  # opened once, so that no line is lost between two
        with os.fdopen(reader) as lines, open(started, "wb"):
            pids = [int(pid) for _ in range(2) for pid in lines.readline().split()]
        assert len(pids) == 4
        with ended(pids):
            launcher.send_signal(number)
            output, _ = launcher.communicate(timeout=END_S)
    assert launcher.returncode == 5, output
    assert output == "decentral: interrupted by the user\n"
    assert not list(tmp_path.glob("out/*"))


FAKE_VENV = """
import os, subprocess, sys
sys.argv[1:] == ["-I", "-m", "venv", sys.argv[-1]] or sys.exit("something else is asked")
child = subprocess.Popen(["sleep", "600"])
with open(os.environ["STARTED"], "w") as file:
    print(os.getppid(), os.getpid(), child.pid, sys.argv[-1], file=file)
child.wait()
"""


@pytest.mark.parametrize("how", ["parent", "reader"])
def test_a_host_where_packages_are_installed_removes_what_it_has(how: str, tmp_path: Path) -> None:
    """The line is cut: its parent there ends, or, where ssh sessions share a connection, nobody reads."""
    started, folder = tmp_path / "started", tmp_path / "folder"
    os.mkfifo(started)
    folder.mkdir()
    tool = tmp_path / "python"
    (tmp_path / "venv.py").write_text(FAKE_VENV)
    tool.write_text(f'#!/bin/sh\nexec {sys.executable} {tmp_path}/venv.py "$@"\n')
    tool.chmod(0o755)
    # As onhost does, but for the program that makes environments, which is the one of this test.
    start = line._START.replace("runpy.run_path(", f"sys.executable = {str(tool)!r}; runpy.run_path(")
    request = {"do": "environment", "folder": str(folder), "pins": "", "by": "pip", "bytes": 1}
    archive = line._onhost()
    remote = [sys.executable, "-I", "-c", start, str(len(archive))]
    command = remote if how == "reader" else ["sh", "-c", 'exec 3<&0; "$0" "$@" <&3 & wait', *remote]
    with (tmp_path / "log").open("ab") as log:
        child = spawn(command, stderr=log, env={**os.environ, "STARTED": str(started)})
    assert child.stdin is not None
    assert child.stdout is not None
    with child.stdin, child.stdout:
        child.stdin.write(archive + json.dumps(request).encode() + b"\n")
        child.stdin.flush()
        *pids, making = started.read_text().split()
        assert making.startswith(f"{folder}/.making-env-")
        assert os.path.isdir(making)
        with ended([int(pid) for pid in pids]):
            if how == "parent":
                os.kill(child.pid, signal.SIGKILL)
            else:
                child.stdout.close()
        if how == "reader":
            child.wait(END_S)
        assert os.listdir(folder) == [], (tmp_path / "log").read_text()
    child.wait()
