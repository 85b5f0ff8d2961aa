"""Ending exactly the run that is meant, from another terminal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from launch.cli import app
from launch.runs import look
from launch.stop import stop
from tests.fake_launcher import launcher

__all__ = ["launcher"]


@pytest.mark.parametrize(("launcher", "now"), [(0.2, False), (60.0, True)], indirect=["launcher"])
def test_it_is_told_and_waited_for(now: bool, launcher: subprocess.Popen[str], tmp_path: Path) -> None:
    seen = stop(look(tmp_path / "run"), now=now)
    assert launcher.wait() == 0
    assert (seen.life, seen.manifest["cause"]) == ("ended", str(now))


def test_one_that_is_stopped_goes_on_to_its_end(launcher: subprocess.Popen[str], tmp_path: Path) -> None:
    launcher.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, launcher.pid, os.WSTOPPED | os.WNOWAIT)
    assert stop(look(tmp_path / "run"), now=False).life == "ended"


def test_a_recycled_pid_is_left_alone(launcher: subprocess.Popen[str], tmp_path: Path) -> None:
    path = tmp_path / "run" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["launcher"]["started"] -= 1
    path.write_text(json.dumps(manifest))
    done = CliRunner().invoke(app, ["stop", "--out", str(tmp_path)])
    assert done.exit_code == 4
    assert "run does not run, so there is nothing to stop" in done.stderr
    assert launcher.poll() is None
