"""Asking a host: time limits, cancelling, and what happens there when the line is cut."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from launch.deploy import line
from launch.deploy.line import HostFailure, Lines, Route
from launch.executors.child import spawn
from launch.hosts import Host

HOST = Host(name="h1")


def lines(program: str) -> Lines:
    """To a host where everything that is started is ``program``."""
    return Lines(Route("ssh", lambda host, remote: ["sh", "-c", program, *remote]))


def test_what_takes_too_long_is_ended_and_named() -> None:
    with pytest.raises(HostFailure, match=r"host h1: looking was not over after 3 s: slow disk"):
        lines("echo slow disk >&2; exec sleep 600").ask(HOST, "looking", {"do": "look"}, 3)


def test_an_answer_that_is_none_is_shown() -> None:
    with pytest.raises(HostFailure, match=r"host h1: looking failed: it answered b'hello\\n'"):
        lines("echo hello").ask(HOST, "looking", {"do": "look"}, 60)


def test_silence_is_named_too() -> None:
    with pytest.raises(HostFailure, match=r"host h1: looking failed: ssh ended with code 9"):
        lines("exit 9").ask(HOST, "looking", {"do": "look"}, 60)


def test_only_the_last_lines_are_shown() -> None:
    with pytest.raises(HostFailure) as caught:
        lines("for i in 1 2 3 4 5 6 7 8 9; do echo line $i >&2; done; exit 1").ask(HOST, "looking", {}, 60)
    assert str(caught.value) == "\n  ".join(
        ["host h1: looking failed", *(f"line {i}" for i in (4, 5, 6, 7, 8, 9))]
    )


HEAD = r"'\000decentral answer\n'"
MARKED = r"printf '\000decentral answer\n%s\n'"


def test_noise_after_the_answer_is_dropped_and_much_before_it_not_kept() -> None:
    program = (
        f"head -c 300000 /dev/zero; echo; {MARKED} '{{\"a\": 1}}'; echo goodbye; head -c 300000 /dev/zero"
    )
    assert lines(program).ask(HOST, "looking", {"do": "look"}, 60) == {"a": 1}


def test_an_answer_that_is_cut_short_is_the_hosts_failure() -> None:
    with pytest.raises(HostFailure, match=r"host h1: looking failed: it answered b'\{\"a\"'"):
        lines(f"{MARKED} '{{\"a\"'").ask(HOST, "looking", {"do": "look"}, 60)


def test_an_answer_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "_MOST_BYTES", 1 << 20)
    with pytest.raises(HostFailure, match="host h1: looking failed: its answer is longer than 1 MiB"):
        lines(f"printf {HEAD}; exec cat /dev/zero").ask(HOST, "looking", {"do": "look"}, 60)


def test_what_hosts_say_does_not_command_the_terminal() -> None:
    with pytest.raises(HostFailure, match=r"looking failed: \ufffd\[2Jgone$"):
        lines(r"printf '\033[2Jgone\n' >&2; exit 1").ask(HOST, "looking", {}, 60)


def test_cancelling_ends_what_is_under_way() -> None:
    asked = lines("echo started >&2; exec sleep 600")
    failures: list[HostFailure] = []

    def ask() -> None:
        try:
            asked.ask(HOST, "looking", {"do": "look"}, 600)
        except HostFailure as failure:
            failures.append(failure)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    asked.cancel()  # before or after the children are there
    for thread in threads:
        thread.join()
    assert len(failures) == 2


def test_a_cut_line_ends_what_runs_there(tmp_path: Path) -> None:
    """As its parent, which stands for sshd's process of the session, goes when the launcher does."""
    started = tmp_path / "started"
    os.mkfifo(started)
    tool = tmp_path / "tool"
    tool.write_text(f"#!/bin/sh\necho $PPID $$ > {started}\nexec sleep 600\n")
    tool.chmod(0o755)
    request = {"do": "look", "folder": str(tmp_path / "folder"), "code": "code-x", "hash": "x", "pins": ""}
    request |= {
        "run": "now",
        "checkout": "/",
        "packages": [],
        "own": None,
        "given": str(tool),
        "data": [],
    }
    archive = line._onhost()
    remote = ["sh", "-c", line._FIND, "sh", line._TEST, line._START, str(len(archive)), sys.executable]
    with (tmp_path / "log").open("ab") as log:
        child = spawn(["sh", "-c", 'exec 3<&0; "$0" "$@" <&3 & wait', *remote], stderr=log)
    assert child.stdin is not None
    assert child.stdout is not None
    with child.stdin, child.stdout:
        child.stdin.write(archive + json.dumps(request).encode() + b"\n")
        child.stdin.flush()
        pidfds = [os.pidfd_open(int(pid)) for pid in started.read_text().split()]
        try:
            os.kill(child.pid, signal.SIGKILL)
            child.wait()
            for pidfd in pidfds:
                poll = select.poll()
                poll.register(pidfd, select.POLLIN)
                assert poll.poll(30_000), "still there after 30 s"
        finally:
            for pidfd in pidfds:
                os.close(pidfd)


@pytest.mark.parametrize("found", [True, False])
def test_a_python_that_is_too_old_is_passed_over(found: bool, tmp_path: Path) -> None:
    old, new = tmp_path / "python3.9", tmp_path / "a python"
    old.write_text("#!/bin/sh\nexit 1\n")
    new.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    old.chmod(0o755)
    new.chmod(0o755)
    tried = [str(tmp_path / "none"), str(old), *([str(new)] if found else [])]
    done = subprocess.run(
        ["sh", "-c", line._FIND, "sh", line._TEST, "import sys; print(sys.argv[1:])", "17", *tried],
        capture_output=True,
        text=True,
        check=False,
    )
    if found:
        assert done.stdout == "['17']\n"
    else:
        assert done.returncode == 127
        assert done.stderr == f"there is no Python 3.11 or newer; tried: {' '.join(tried)}\n"


def test_a_python_of_the_launcher_that_is_not_there_is_told_by_its_path() -> None:
    words = [line._TEST, "pass", "17", "=/nowhere/python3.11", "/nowhere/python3"]
    done = subprocess.run(["sh", "-c", line._FIND, "sh", *words], capture_output=True, text=True, check=False)
    assert done.stderr == (
        "there is no Python 3.11 or newer; tried: /nowhere/python3.11 (not there, or not safe) "
        "/nowhere/python3\n"
    )
