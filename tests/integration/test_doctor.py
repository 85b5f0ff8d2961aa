"""The doctor end to end: real probes in real processes, reached through an ssh that does what hosts do."""

from __future__ import annotations

import os
import re
import socket
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from launch.cli import app
from launch.doctor import examine

SSH = """#!/bin/bash
# Takes the arguments of ssh and runs the command here, as the login shell of the host would.
while [ $# -gt 0 ]; do
    case $1 in
        -o | -p | -l | -F) shift 2 ;;
        --) shift; break ;;
        -*) shift ;;
        *) break ;;
    esac
done
host=$1 command=$2
[ $# = 2 ] || { echo "ssh got $# arguments in place of host and command" >&2; exit 255; }
unset SSH_CONNECTION
case $host in
    hangs) echo $$ >"$FAKE_SSH/hangs.pid"; exec sleep 1000 ;;
    noisy) echo "Welcome to $host"; printf 'a line left open' ;;
    refuses) echo "ssh: connect to host refuses port 22: Connection refused" >&2; exit 255 ;;
    unknown) echo "Host key verification failed." >&2; exit 255 ;;
    silent) exit 255 ;;
    ends) echo bye; exit 0 ;;
    old) cd "$FAKE_SSH"; PATH=$FAKE_SSH/old:/usr/bin:/bin ;;
    floods) exec yes ;;
esac
exec /bin/sh -c "$command"
"""
OLD_PYTHON = """#!/bin/sh
[ "$1" = -V ] && { echo Python 3.9.2; exit 0; }
exit 1
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the fake ssh, which is the first on PATH."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "old").mkdir()
    for path, text in {"bin/ssh": SSH, "old/python-of-old": OLD_PYTHON}.items():
        (tmp_path / path).write_text(text)
        (tmp_path / path).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_SSH", str(tmp_path))
    monkeypatch.delenv("DECENTRAL_SSH", raising=False)
    monkeypatch.delenv("SSH_CONNECTION", raising=False)
    return tmp_path


def doctor(folder: Path, hosts: str, *arguments: str) -> Result:
    (folder / "hosts.toml").write_text(hosts)
    return CliRunner().invoke(
        app, ["doctor", "--hosts", str(folder / "hosts.toml"), *arguments], env={"COLUMNS": "300"}
    )


def host(name: str, *lines: str) -> str:
    return "\n".join(["[[host]]", f'name = "{name}"', 'bind = "127.0.0.1"', *lines, ""])


def answers(text: str) -> dict[str, str]:
    """What the first table says of every host."""
    return dict(re.findall(r"^ (\w+) +(yes|no) ", text, re.MULTILINE))


def test_hosts_that_have_everything(folder: Path) -> None:
    odd = folder / "a 'folder' \"with\" $(touch hacked); #"
    odd.mkdir()
    quoted = str(odd).replace("\\", "\\\\").replace('"', '\\"')
    hosts = host("a", f'folder = "{quoted}"', 'ports = "20000-20999"') + host("noisy") + host("localhost")
    result = doctor(folder, hosts, "--set", "nodes=8", "--seeds", "1")
    assert result.exit_code == 0, result.output
    assert "all is well: default-comparison can run on these 3 hosts" in result.stdout
    assert "the login shell of noisy prints 'Welcome to noisy a line left open': tolerated" in result.stdout
    assert "placement of all arms" in result.stdout
    ways = re.findall(r"^ (\w+) +(\w+) +[\d.]+ ms +[\de.+]+ Mbit/s", result.stdout, re.MULTILINE)
    assert set(ways) == {("a", "noisy"), ("noisy", "localhost"), ("localhost", "a"), ("noisy", "a")}
    assert list(odd.iterdir()) == []
    assert not (folder / "hacked").exists()


def test_every_ailment_is_named_and_stops_nobody_else(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examine, "CONNECT_S", 30.0)
    sick = ("hangs", "refuses", "unknown", "silent", "ends", "floods")
    hosts = host("a") + host("b") + "".join(map(host, sick)) + host("old", 'python = "python-of-old"')
    began_s = time.monotonic()
    result = doctor(folder, hosts)
    assert time.monotonic() - began_s < 120, "limits hold for all hosts at once"
    assert (result.exit_code, "Traceback" in result.output) == (3, False), result.output
    expected = {"a": "yes", "b": "yes", **dict.fromkeys((*sick, "old"), "no")}
    assert answers(result.stdout) == expected
    assert re.search(r"^ b +a +[\d.]+ ms", result.stdout, re.MULTILINE)
    told = dict(re.findall(r"^host (\w+): (.*)$", result.stderr, re.MULTILINE))
    assert sorted(told) == sorted([*sick, "old"])
    for name, words in {
        "hangs": "no answer within 30 s",
        "refuses": "Connection refused; no ssh server listens there",
        "unknown": "Host key verification failed; its host key is unknown",
        "silent": "ssh exited with code 255 and said nothing",
        "ends": "ssh exited with code 0 after printing 'bye'",
        "floods": "it prints without end: 'y y y",
        "old": "no Python 3.11 or newer; python-of-old is Python 3.9.2",
    }.items():
        assert words in told[name], told[name]
    pid = int((folder / "hangs.pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_ports_that_are_taken(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ports = f'ports = "{port}-{port}"'
        result = doctor(folder, host("a", ports, "cores = 1") + host("b", "cores = 100"))
    assert result.exit_code == 3, result.output
    assert f"host a: no port of {port}-{port} can be listened on: Address already in use" in result.stderr
    assert "b does not reach host a: no port of" in result.stderr


def test_an_address_of_another(folder: Path) -> None:
    result = doctor(folder, host("a") + '[[host]]\nname = "b"\nbind = "192.0.2.7"\n')
    assert result.exit_code == 3
    assert "host b: cannot listen on bind = 192.0.2.7: Cannot assign requested address" in result.stderr


def test_ports_that_are_too_few_once_cores_are_known(folder: Path) -> None:
    # As many cores as that are not here, so more nodes go to the first host than the file made expect.
    hosts = host("a", 'ports = "20000-20003"', "cores = 1") + host("b", "cores = 100")
    result = doctor(folder, hosts, "--seeds", "1")
    assert result.exit_code == 3, result.output
    assert re.search(
        r"host a: \d+ processes need a port each and ports = 20000-20003 are fewer", result.stderr
    )


def test_the_experiment_is_checked_before_hosts_are_asked(folder: Path) -> None:
    result = doctor(folder, host("hangs") + host("b"), "--set", "train.lr=-1")
    assert (result.exit_code, result.stdout) == (2, "")
    assert not (folder / "hangs.pid").exists()


def test_no_ssh_at_all(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DECENTRAL_SSH", "no-such-ssh")
    result = doctor(folder, host("a") + host("localhost"))
    assert result.exit_code == 3
    assert "host a: no-such-ssh: No such file or directory; " in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [((), "name the hosts"), (("--hosts", "absent"), "No such file"), (("--slurm",), "inside salloc")],
)
def test_refusals(arguments: tuple[str, ...], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_NODELIST", raising=False)
    result = CliRunner().invoke(app, ["doctor", *arguments])
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr
