"""The command line of ssh: words arrive as they were given, whatever they hold, and nothing else runs."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from launch.cli import app
from launch.executors.child import end, spawn
from launch.executors.ssh import ssh_command
from launch.executors.starters import AGENT, ENVIRONMENT, LocalStarter, agent_command
from launch.hosts import Host

REPORT = "import json, os, sys; print(json.dumps([sys.argv[1:], os.environ.get('PYTHONPATH')]))"
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
TRICKS = st.sampled_from(
    [
        "",
        "-oProxyCommand=touch x",
        "$(touch x)",
        "`touch x`",
        "'; touch x; '",
        '"; touch x; "',
        "a b",
        "~",
        "*",
        "\\",
        "!!",
        "\n",
        "#",
        "&& touch x",
        "| touch x",
        "> x",
        "$HOME",
        "${IFS}touch",
        "=x",
        "\\'; touch x #",
    ]
)
WORDS = TEXT | TRICKS


def ssh(monkeypatch: pytest.MonkeyPatch, text: str = "ssh") -> None:
    monkeypatch.setenv("DECENTRAL_SSH", text)


def as_sshd_does(command: list[str], shell: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the remote half of an ssh command: its words joined by spaces, given to the login shell."""
    position = command.index("--")
    remote = " ".join(command[position + 2 :])
    return subprocess.run([shell, "-c", remote], cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
def test_arguments_arrive_as_they_are(shell: str, tmp_path: Path) -> None:
    @settings(max_examples=40)
    @given(words=st.lists(WORDS, max_size=5))
    def check(words: list[str]) -> None:
        remote = [sys.executable, "-I", "-S", "-c", REPORT, *words]
        done = as_sshd_does(ssh_command(Host(name="h"), remote), shell, tmp_path)
        assert json.loads(done.stdout)[0] == words
        assert os.listdir(tmp_path) == []

    check()


def test_an_agent_is_started_in_whatever_folder(tmp_path: Path) -> None:
    """Paths of Python, code and data that hold what a shell or env would take for something else."""

    @settings(max_examples=25)
    @given(
        name=WORDS.filter(lambda word: word not in ("", "~") and "/" not in word and len(word.encode()) < 200)
    )
    def check(name: str) -> None:
        folder = tmp_path / "hosts" / f"a={name}"
        folder.mkdir(parents=True, exist_ok=True)
        python = folder / "python"
        if not python.exists():
            python.write_text(
                f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -I -S -c {shlex.quote(REPORT)} "$@"\n'
            )
            python.chmod(0o755)
        ran = tmp_path / "ran"
        ran.mkdir(exist_ok=True)
        remote = agent_command(str(python), {"PYTHONPATH": str(folder), "DECENTRAL_DATA": name})
        done = as_sshd_does(ssh_command(Host(name="h"), remote), "/bin/sh", ran)
        assert json.loads(done.stdout) == [list(AGENT), str(folder)], done.stderr
        assert os.listdir(ran) == []

    check()


def test_the_host_stands_behind_a_double_dash(monkeypatch: pytest.MonkeyPatch) -> None:
    ssh(monkeypatch)
    host = Host(name="h1", address="lab-1", user="me", port=2222, ssh_options=("-F", "my config"))
    command = ssh_command(host, ["true"], extra=["-v"])
    assert command[0] == "ssh"
    assert command[-3:] == ["--", "lab-1", "true"]
    assert command[1:4] == ["-F", "my config", "-v"]
    assert command[command.index("-p") + 1] == "2222"
    assert command[command.index("-l") + 1] == "me"
    assert ssh_command(Host(name="h1"), ["true"])[-2] == "h1"


def test_what_the_user_sets_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """ssh takes the first value of an option."""
    ssh(monkeypatch)
    command = ssh_command(Host(name="h", ssh_options=("-o", "ConnectTimeout=99")), ["true"])
    timeouts = [word for word in command if word.startswith("ConnectTimeout")]
    assert timeouts[0] == "ConnectTimeout=99"


def test_openssh_understands_every_option(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if subprocess.run(["sh", "-c", "command -v ssh"], capture_output=True, check=False).returncode != 0:
        pytest.skip("there is no ssh here")
    (tmp_path / "config").write_text(
        "Host *\n  ControlMaster auto\n  ControlPath ~/.cm\n  ConnectTimeout 3\n"
    )
    ssh(monkeypatch, f"ssh -F {shlex.quote(str(tmp_path / 'config'))} -G")
    host = Host(name="h1", address="10.0.0.1", user="me", port=2222)
    done = subprocess.run(ssh_command(host, ["true"]), capture_output=True, text=True, check=True)
    settings_ = dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)
    assert settings_["hostname"] == "10.0.0.1"
    assert settings_["user"] == "me"
    assert settings_["port"] == "2222"
    assert settings_["batchmode"] == "yes"
    assert settings_["controlmaster"] == "auto"
    assert settings_["requesttty"] == "false"
    noticed_s = int(settings_["serveraliveinterval"]) * (int(settings_["serveralivecountmax"]) + 1)
    assert 4 <= noticed_s <= 6


def test_the_ssh_to_use_may_be_given_with_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    ssh(monkeypatch, "my-ssh -F 'a file'")
    assert ssh_command(Host(name="h"), ["true"])[:3] == ["my-ssh", "-F", "a file"]


@pytest.mark.parametrize("text", ["", "  "])
def test_an_ssh_of_no_name_is_the_usual_one(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ssh(monkeypatch, text)
    assert ssh_command(Host(name="h"), ["true"])[0] == "ssh"


@pytest.mark.parametrize("command", [["run"], ["doctor"]])
def test_quotes_that_do_not_match_are_refused(
    command: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ssh(monkeypatch, "ssh -F 'my config")
    (tmp_path / "hosts").write_text("h1\n")
    done = CliRunner().invoke(app, [*command, "--hosts", str(tmp_path / "hosts")])
    assert done.exit_code == 3, done.output
    assert "DECENTRAL_SSH=ssh -F 'my config: expected a program and its arguments" in done.output
    assert "(no closing quotation); correct or unset it" in done.output


def test_every_setting_of_an_agent_is_in_its_command() -> None:
    command = agent_command("/opt/python", {"PYTHONPATH": "/code"})
    assert command[0] == "env"
    assert {f"{name}={value}" for name, value in ENVIRONMENT.items()} <= set(command)
    assert command[-len(AGENT) - 1 :] == ["/opt/python", *AGENT]


@pytest.mark.parametrize("folder", [None, "/scratch/me"])
def test_a_local_agent_too_has_its_arrays_in_its_folder(
    folder: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environments: list[dict[str, str]] = []
    monkeypatch.delenv("DECENTRAL_CACHE", raising=False)
    monkeypatch.setattr(
        "launch.executors.starters.spawn", lambda command, *, stderr, env: environments.append(env)
    )
    with (tmp_path / "log").open("wb") as log:
        LocalStarter().start(Host(name="me", local=True, folder=folder), log)
    cache = environments[0].get("DECENTRAL_CACHE")
    assert cache == (None if folder is None else "/scratch/me/cache")


class TestChild:
    def test_it_is_a_session_of_its_own_and_its_streams_are_clean(self, tmp_path: Path) -> None:
        everything = bytes(range(256)) * 512
        with (tmp_path / "log").open("ab") as log:
            child = spawn(["sh", "-c", "ps -o sid= -p $$ >&2; exec cat"], stderr=log)
        out, _ = child.communicate(everything, timeout=60)
        assert out == everything
        assert int((tmp_path / "log").read_text()) == child.pid

    def test_a_program_that_is_not_there_is_named(self, tmp_path: Path) -> None:
        with (tmp_path / "log").open("ab") as log:
            child = spawn(["/nowhere/ssh", "x"], stderr=log)
        child.communicate(timeout=60)
        assert child.returncode == 127
        assert (tmp_path / "log").read_text() == "/nowhere/ssh: No such file or directory\n"

    def test_it_dies_with_its_parent(self, tmp_path: Path) -> None:
        """Killed, not closed: the parent's death must reach it without its input being read."""
        parent = subprocess.Popen(
            [sys.executable, "-P", "-c", PARENT],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
            text=True,
        )
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        pidfd = os.pidfd_open(pid)
        try:
            parent.kill()
            parent.wait()
            parent.stdout.close()
            wait_for_end(pidfd)
        finally:
            os.close(pidfd)

    @pytest.mark.parametrize("program", ["exec sleep 600", "trap '' TERM; exec sleep 600"])
    def test_end_is_sure_and_quick(self, program: str, tmp_path: Path) -> None:
        with (tmp_path / "log").open("ab") as log:
            child = spawn(["sh", "-c", f"echo ready; {program}"], stderr=log)
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        began = time.monotonic()
        end(child)
        assert time.monotonic() - began < 20
        assert child.returncode in (-signal.SIGTERM, -signal.SIGKILL)
        end(child)  # once more does nothing
        child.stdin.close()
        child.stdout.close()


PARENT = """
import subprocess, sys
from launch.executors.child import spawn
child = spawn(["sh", "-c", "trap '' TERM; echo; exec sleep 600"], stderr=sys.stderr.buffer)
child.stdout.readline()
print(child.pid, flush=True)
sys.stdin = None
child.wait()
"""


def wait_for_end(pidfd: int) -> None:
    import select

    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    assert poll.poll(30_000), "still there after 30 s"
