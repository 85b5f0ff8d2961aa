"""The command line and environment of srun, and the batch script; Slurm itself is not needed."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decentral.errors import PreflightError
from launch.deploy.plan import Place
from launch.executors.slurm import SlurmStarter, srun_command, srun_environment
from launch.hosts import Host

ROOT = Path(__file__).resolve().parents[2]
BATCH = ROOT / "launch" / "cluster.sbatch"
PLACE = Place(python="/opt/python", code="/opt/code", folder="/opt", data=None)
WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)


@settings(max_examples=50)
@given(words=st.lists(WORDS, min_size=1, max_size=5))
def test_no_shell_stands_between(words: list[str]) -> None:
    command = srun_command(Host(name="n1"), words)
    assert command[command.index("--") + 1 :] == words
    assert "--nodelist=n1" in command[: command.index("--")]


def test_srun_gets_no_secrets_and_no_defaults_of_the_job() -> None:
    job = {"SLURM_JOB_ID": "7", "SLURM_CONF": "/etc/slurm.conf", "PATH": "/bin"}
    rest = {
        "API_TOKEN": "x",
        "SLURM_LABELIO": "1",
        "SLURM_NTASKS": "9",
        "SSH_AUTH_SOCK": "/s",
        "PYTHONPATH": "/",
    }
    assert srun_environment(job | rest) == job


def test_outside_of_an_allocation_it_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(PreflightError, match=r"salloc -N 3.*sbatch -N 3 launch/cluster\.sbatch"):
        SlurmStarter().prepare([Host(name="n1")], print)


def test_a_missing_srun_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PreflightError, match="srun"):
        SlurmStarter().prepare([Host(name="n1")], print)


class TestBatchScript:
    def test_it_passes_arguments_and_exit_code_on(self, tmp_path: Path) -> None:
        checkout = fake_checkout(tmp_path, 'printf "%s\\n" "$@"; exit 4')
        done = subprocess.run(
            ["bash", str(spooled(tmp_path)), "an experiment", "--set", "seed=$(touch x)"],
            env={**os.environ, "SLURM_SUBMIT_DIR": str(checkout)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout.splitlines() == ["an experiment", "--set", "seed=$(touch x)", "--slurm"]
        assert done.returncode == 4
        assert not (tmp_path / "x").exists()

    def test_the_signal_before_the_time_limit_reaches_the_run(self, tmp_path: Path) -> None:
        """Which then ends in order: the script waits for it and has its exit code."""
        checkout = fake_checkout(tmp_path, f"exec {shlex.quote(sys.executable)} -IS -c {shlex.quote(RUN)}")
        script = subprocess.Popen(
            ["bash", str(spooled(tmp_path))],
            env={**os.environ, "SLURM_SUBMIT_DIR": str(checkout)},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert script.stdout is not None
        assert script.stdout.readline() == "ready\n"
        script.send_signal(signal.SIGTERM)
        out, _ = script.communicate(timeout=60)
        assert out == "told\n"
        assert script.returncode == 5

    def test_it_says_where_to_call_it(self, tmp_path: Path) -> None:
        done = subprocess.run(
            ["bash", str(spooled(tmp_path))],
            env={**os.environ, "SLURM_SUBMIT_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2
        assert "call it in the checkout" in done.stderr

    def test_slurm_reads_its_settings(self) -> None:
        """They must stand before the first command, and be none of ours by accident."""
        lines = BATCH.read_text(encoding="utf-8").splitlines()
        first_command = next(n for n, line in enumerate(lines) if line and not line.startswith("#"))
        assert "#SBATCH --signal=B:TERM@60" in lines[:first_command]
        assert not any(line.startswith("#SBATCH") for line in lines[first_command:])
        assert os.access(BATCH, os.X_OK)


def fake_checkout(tmp_path: Path, body: str) -> Path:
    checkout = tmp_path / "a checkout"
    (checkout / "launch").mkdir(parents=True)
    script = checkout / "launch" / "run_cluster.sh"
    script.write_text(f"#!/usr/bin/env bash\n{body}\n")
    script.chmod(0o755)
    return checkout


def spooled(tmp_path: Path) -> Path:
    """Slurm runs a copy."""
    return Path(shutil.copy(BATCH, tmp_path / "slurm_script"))


def test_an_agent_through_a_stand_in_for_srun(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The child's streams are clean, its environment is the small one, and a deaf srun is ended in time."""
    srun = tmp_path / "srun"
    srun.write_text(f"#!{sys.executable} -IS\n{SRUN}")
    srun.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("API_TOKEN", "x")
    starter = SlurmStarter()
    starter._deployment._places = {"n1": PLACE}
    with (tmp_path / "log").open("ab") as log:
        child = starter.start(Host(name="n1"), log)
    assert child.stdin is not None
    assert child.stdout is not None
    with child.stdin, child.stdout:
        arguments, environment = json.loads(child.stdout.readline())
        assert arguments[-4:] == ["/opt/python", "-P", "-m", "launch.zygote"]
        assert "PYTHONPATH=/opt/code" in arguments
        assert "API_TOKEN" not in environment
        assert "DECENTRAL_TEST_SESSION" not in environment
        began = time.monotonic()
        starter.abandon(child)
        assert time.monotonic() - began < 20
        assert child.returncode == -signal.SIGKILL


SRUN = """
import json, os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(json.dumps([sys.argv[1:], sorted(os.environ)]), flush=True)
while True:
    signal.pause()
"""


RUN = """
import os, signal, sys
def end(number, frame):
    os.write(1, b"told\\n")
    sys.exit(5)
signal.signal(signal.SIGTERM, end)
os.write(1, b"ready\\n")
while True:
    signal.pause()
"""
