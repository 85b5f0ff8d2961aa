"""What the doctor makes of what it is told: causes in words, tables, problems, and which ways it measures."""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from decentral.config import load
from launch.deploy import line as deployment_line
from launch.deploy.deployment import CHECKOUT
from launch.deploy.onhost.look import environment_name, libc_version, this_python
from launch.deploy.onhost.look import look as look_of_a_run
from launch.deploy.onhost.tree import code_hash
from launch.deploy.packages import Packages
from launch.doctor import probe_host, verdict
from launch.doctor.diagnosis import Diagnosis, diagnose_end, diagnose_silence
from launch.doctor.examine import Clock, Examined, Way, pairs
from launch.doctor.line import _pythons
from launch.doctor.wanted import wanted
from launch.hosts import Host, Hosts

HOST = Host(name="gpu1", address="10.0.0.1", user="ann", port=2222)


class TestDiagnosis:
    @pytest.mark.parametrize(
        ("said", "cause", "step"),
        [
            (
                "Warning: Permanently added 'x'.\nssh: connect to host x port 22: Connection refused\n",
                "ssh: connect to host x port 22: Connection refused",
                "start sshd",
            ),
            ("ssh: connect to host x port 22: Connection timed out", "timed out", "is it switched on"),
            ("ssh: connect to host x port 22: No route to host", "No route to host", "network and firewall"),
            ("ssh: Could not resolve hostname x: Name or service not known", "resolve", "set address"),
            ("ann@x: Permission denied (publickey,password).", "Permission denied", "ssh-copy-id"),
            (
                "No ED25519 host key is known for x and you have requested strict checking.\n"
                "Host key verification failed.",
                "Host key verification failed|No ED25519 host key is known",
                "log in once with ssh -p 2222 -l ann 10.0.0.1",
            ),
            (
                "@@\n@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\n@@\nHost key verification failed.",
                "REMOTE HOST IDENTIFICATION HAS CHANGED",
                "ssh-keygen -R '[10.0.0.1]:2222' and",
            ),
            ("kex_exchange_identification: Connection closed by remote host", "kex_exchange", "MaxStartups"),
            ("command-line: line 0: Bad configuration option: nonsense", "Bad configuration", "ssh_options"),
            ("something new", "^ssh exited with code 255: something new$", "try ssh"),
            ("", "^ssh exited with code 255 and said nothing$", "try ssh"),
        ],
    )
    def test_ssh_that_failed(self, said: str, cause: str, step: str) -> None:
        found = diagnose_end(HOST, "ssh", 255, said, "")
        assert re.search(cause, found.cause)
        assert step in found.step

    @pytest.mark.parametrize(
        ("status", "said", "noise", "cause", "step"),
        [
            (127, "no Python 3.11 or newer; python3 is Python 3.9.2", "", "3.9.2", "set python"),
            (1, "This account is currently not available.", "", "not available", "no login shell"),
            (0, "", "Welcome", "code 0 after printing 'Welcome'", "login files end the shell"),
            (-9, "", "", "was killed by signal 9", "try ssh"),
            # a program there that fails with the words of ssh is no matter of keys
            (1, "cat: x: Permission denied", "", "code 1: cat: x: Permission denied", "try ssh"),
        ],
    )
    def test_what_the_host_said(self, status: int, said: str, noise: str, cause: str, step: str) -> None:
        found = diagnose_end(HOST, "ssh", status, said, noise)
        assert cause in found.cause
        assert step in found.step

    def test_silence(self) -> None:
        found = diagnose_silence(HOST, "ssh", 20.0, "debug\nAuthenticated.\n", "")
        assert found.cause == "no answer within 20 s; last said: Authenticated"
        assert "ssh -p 2222 -l ann 10.0.0.1" in found.step
        assert "it printed 'Password:'" in diagnose_silence(HOST, "ssh", 20.0, "", "Password:").cause

    def test_names_are_quoted_for_whoever_pastes_them(self) -> None:
        odd = Host(name="a", address="b%lo", ssh_options=("-o", "ProxyCommand=x 'y' %h"))
        step = diagnose_end(odd, "ssh", 255, "", "").step
        assert step == """try ssh -o 'ProxyCommand=x '"'"'y'"'"' %h' b%lo true"""


class TestWays:
    def test_a_ring_and_all_to_the_first(self) -> None:
        assert pairs(["a"], False) == []
        assert pairs(["a", "b"], False) == [("a", "b"), ("b", "a")]
        assert pairs(["a", "b", "c", "d"], False) == [
            *(("a", "b"), ("b", "c"), ("c", "d"), ("d", "a")),
            *(("b", "a"), ("c", "a")),
        ]

    def test_all_pairs(self) -> None:
        names = [f"h{number}" for number in range(10)]
        assert len(pairs(names, True)) == len(set(pairs(names, True))) == 90
        assert len(pairs(names, False)) == 18


def look(**changed: Any) -> dict[str, Any]:
    """What a run would learn of a host that has all it needs."""
    return {
        "libc_version": libc_version(),
        **{"python": this_python(), "version": "3.11.2", "folder": "/f", "unsafe": None, "problem": None},
        **{"identity": None, "code": "/f/code", "has_code": True, "sees_code": False},
        **{"environment": "/f/env", "has_environment": True, "own": None, "given": None},
        **{"data": {"/d": "/d", os.environ.get("DECENTRAL_DATA"): None}, "sent_data": None},
        **changed,
    }


def facts(**changed: Any) -> dict[str, Any]:
    return {
        **{"name": "n", "user": "ann", "python": "3.11.2", "executable": "/usr/bin/python3"},
        "packages": {"torch": "2.13.0+cpu", "numpy": "2.4.6"},
        **{
            "environment": "ready",
            "own": False,
            "code": "here",
            "memory_available": 8 << 30,
            "folder": "/f",
            "disk_free": 8 << 30,
        },
        **{
            "unwritable": None,
            "unsafe": None,
            "nofile_hard": 4096,
            "cores": 4,
            "core_limit": None,
            "address": "10.0.0.1",
        },
        **{"no_address": None, "ports_free": None, "ports_taken": [], "data": "/d"},
        **{"look": look(), "modules_lacking": []},
        **changed,
    }


def examined(name: str, *, clock: Clock | None = None, noise: str = "", **changed: Any) -> Examined:
    keys = {
        key: changed.pop(key) for key in ("python", "ports", "data_there", "cores_said") if key in changed
    }
    host = Host(
        name=name,
        python=keys.get("python"),
        ports=keys.get("ports"),
        data=keys.get("data_there"),
        cores=keys.get("cores_said"),
    )
    return Examined(host, facts=facts(**changed), noise=noise, clock=clock or Clock(0.0012, 0.0004))


PACKAGES = Packages.of(CHECKOUT)
OTHER = ["cpython", "3.99", "x86_64", "glibc"]
PINNED = {"torch": "2.13.0", "numpy": "2.4.6"}


def row(found: Examined) -> dict[str, str]:
    return dict(zip(verdict.HOSTS_HEADER, verdict.host_rows([found], PINNED)[0], strict=True))


class TestTables:
    def test_a_host_that_answers(self) -> None:
        assert row(examined("a", ports="20000-20099", ports_free=98)) == {
            **{
                "host": "a",
                "answers": "yes",
                "user": "ann",
                "Python": "3.11.2",
                "packages": "private, ready",
            },
            **{
                "code": "the same",
                "cores": "4",
                "memory": "8.59 GB",
                "disk": "8.59 GB",
                "descriptors": "4096",
            },
            **{"listens on": "10.0.0.1", "free ports": "98 of 20000-20099", "clock": "+1.2 ± 0.4 ms"},
        }

    @pytest.mark.parametrize(
        ("changed", "key", "text"),
        [
            ({"environment": "absent"}, "packages", "private, to be copied"),
            (
                {"environment": "absent", "look": look(python=OTHER)},
                "packages",
                "private, by pip (needs a package index)",
            ),
            ({"environment": "absent", "own": True}, "packages", "those here"),
            ({"python": "/p"}, "packages", "all 2"),
            ({"python": "/p", "packages": {"torch": "2.1", "numpy": None}}, "packages", "1 of 2 missing"),
            ({"python": "/p", "packages": {"torch": "2.1"}}, "packages", "all, some others"),
            ({"code": "absent"}, "code", "not there yet"),
            ({"code": "shared"}, "code", "shared"),
            ({"core_limit": 1.5}, "cores", "4 (limited to 1.5)"),
            ({"unwritable": "Read-only file system"}, "disk", "not writable"),
            ({"nofile_hard": -1}, "descriptors", "unlimited"),
            ({"address": None}, "listens on", "-"),
            ({"address": None, "ports": "20000-20099"}, "free ports", "-"),
            ({"clock": Clock(-125.04, 0.02)}, "clock", "-125.0 ± 0.02 s"),
        ],
    )
    def test_what_is_otherwise(self, changed: dict[str, Any], key: str, text: str) -> None:
        assert row(examined("a", **changed))[key] == text

    def test_a_host_that_does_not_answer(self) -> None:
        found = Examined(HOST, diagnosis=Diagnosis("c", "s"))
        assert verdict.host_rows([found], PINNED)[0][:3] == ["gpu1", "no", "-"]

    def test_ways(self) -> None:
        ways = [Way("a", "b", 0.0123, 57.4e6), Way("b", "a", error="Connection refused")]
        assert verdict.way_rows(ways) == [
            ["a", "b", "12.3 ms", "57.4 Mbit/s"],
            ["b", "a", "Connection refused", "-"],
        ]


class TestVerdict:
    def problems(self, *found: Examined, ways: tuple[Way, ...] = (), data_comes: bool = False) -> list[str]:
        hosts = Hosts(hosts=tuple(each.host for each in found), source="test", kind="ssh")
        experiment = load(Path("default"))
        return verdict.problems(found, ways, hosts, experiment, PACKAGES, data_comes=data_comes)

    def test_all_is_well(self) -> None:
        other = examined("b", address="10.0.0.2", noise="Welcome", core_limit=2.0, clock=Clock(300.0, 0.1))
        assert self.problems(examined("a"), other) == []

    @pytest.mark.parametrize(
        ("changed", "words"),
        [
            (
                {"unwritable": "No space left on device"},
                "cannot write in /f: No space left on device; set folder",
            ),
            ({"data_there": "/d", "data": None}, "data = '/d' is no folder there"),
            (
                {"python": "/p", "look": look(given=["/p", [3, 11, 2], {}])},
                r"python = /p lacks .*torch[^;]*; install them, or name none",
            ),
            (
                {"look": look(has_environment=False), "disk_free": 100 << 20},
                r"its environment needs \d{3,} MiB and /f has 100 MiB free; free space, or set folder",
            ),
            (
                {"look": look(has_environment=False, python=OTHER), "disk_free": 2 << 30},
                "its environment needs 3072 MiB and /f has 2048 MiB free",
            ),
            (
                {"look": look(has_environment=False), "modules_lacking": ["venv", "ensurepip"]},
                "its Python /usr/bin/python3 lacks the module venv, by which an environment is made; install",
            ),
            (
                {"look": look(has_environment=False, python=OTHER), "modules_lacking": ["ensurepip"]},
                "its Python /usr/bin/python3 lacks the module ensurepip, by which",
            ),
            ({"memory_available": 1 << 20}, "of memory and 1 MiB are free"),
            ({"nofile_hard": 70}, "file descriptors per process and it allows 70"),
            ({"address": "127.0.0.1"}, "which other hosts cannot reach; set bind"),
            (
                {"ports": "20000-20099", "ports_free": 3, "ports_taken": [20000, 20001]},
                r"processes need a port each and only 3 of ports = 20000-20099 are free",
            ),
        ],
    )
    def test_what_hinders_is_named_with_the_host(self, changed: dict[str, Any], words: str) -> None:
        found = self.problems(examined("a"), examined("b", **{"address": "10.0.0.2", **changed}))
        assert found
        assert all(problem.startswith("host b: ") for problem in found)
        assert any(re.search(words, problem) for problem in found), found

    def test_space_is_for_the_environment_and_for_what_nodes_write(self) -> None:
        pip = look(has_environment=False, python=OTHER)
        problem, *_ = self.problems(
            examined("a"), examined("b", address="10.0.0.2", look=pip, disk_free=(3 << 30) + 1)
        )
        assert "MiB of disk space (3072 MiB of it for an environment) and 3072 MiB are free" in problem

    def test_a_copy_needs_no_pip(self) -> None:
        found = examined("b", address="10.0.0.2", look=look(has_environment=False))
        found.facts["modules_lacking"] = ["ensurepip"]
        assert self.problems(examined("a"), found) == []

    def test_data_sets_that_are_nowhere(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("launch.doctor.verdict._task_with_data", lambda experiment: "cifar10")
        both = examined("a"), examined("b", address="10.0.0.2", data=None)
        (problem,) = self.problems(*both)
        assert problem.startswith("host b: there is no folder of data sets for cifar10; bring them")
        assert self.problems(*both, data_comes=True) == []

    def test_what_data_folders_hold_is_not_known(self) -> None:
        """The folder that is named is the run's: what was sent comes before the usual place."""
        sent = look(data={"/d": "/d", os.environ.get("DECENTRAL_DATA"): None}, sent_data="/f/data")
        both = examined("a"), examined("b", look=sent)
        assert verdict.not_looked_at(both, load(Path("default")), PACKAGES) == []
        cifar = load(Path("default"), ['data={name = "cifar10"}'])
        assert verdict.not_looked_at(both, cifar, PACKAGES) == [
            "data sets for cifar10: /d on a, /f/data on b: the folders are there, what they hold was not "
            "looked at"
        ]

    def test_a_host_that_does_not_answer_does_not_hide_others(self) -> None:
        found = self.problems(
            Examined(HOST, diagnosis=Diagnosis("nothing there", "look")), examined("b", unwritable="why")
        )
        assert found == [
            "host gpu1: nothing there; look",
            "host b: cannot write in /f: why; set folder for this host",
        ]

    def test_ways_that_are_closed(self) -> None:
        ways = (Way("a", "b", error="timed out"), Way("b", "a", error="not measured: 120 s were over"))
        (problem,) = self.problems(examined("a"), examined("b", address="10.0.0.2"), ways=ways)
        assert problem.startswith("host a does not reach host b: timed out; look at bind and ports of b")

    def test_a_host_that_cannot_listen(self) -> None:
        deaf = replace(examined("b", address=None, no_address="why"), deaf="why")
        assert self.problems(examined("a"), deaf) == ["host b: why; correct bind and ports"]


def test_notes() -> None:
    found = [
        examined("a", clock=Clock(-300.0, 0.1), noise="Hello\n  World\n", core_limit=1.5),
        examined("b", cores_said=8, python="/p", packages={"torch": "2.1", "numpy": "2.4.6"}),
        examined("c"),
        Examined(HOST, diagnosis=Diagnosis("c", "s")),
    ]
    told = verdict.notes(found, PINNED)
    for words in (
        "the clock of a is 300.0 s behind: harmless",
        "the login shell of a prints 'Hello World'",
        "allows a 1.5 of its 4 cores",
        "cores = 8 of b is more than it has",
        "b has other versions than constraints.txt: torch 2.1 (2.13.0)",
    ):
        assert sum(words in note for note in told) == 1
    assert len(told) == 5


class TestFacts:
    """Of this machine, by the functions that the probe runs on a host."""

    def asked(self, tmp_path: Path, **changed: Any) -> dict[str, Any]:
        request = {
            **{
                "bind": "127.0.0.1",
                "remote": True,
                "given": False,
                "ports": None,
                "towards": [],
                "folder": str(tmp_path / "a" / "b"),
            },
            **{
                "packages": ["numpy", "absent"],
                "versions": {"numpy": version("numpy")},
                "own": sys.executable,
            },
            **{"code": code_hash(str(CHECKOUT)), "checkout": "/absent", "pins": "pins", "data": ["/absent"]},
        }
        return probe_host.facts({**request, **changed})

    def test_plain(self, tmp_path: Path) -> None:
        found = self.asked(tmp_path)
        assert json.loads(json.dumps(found)) == found
        assert found["packages"] == {"absent": None, "numpy": version("numpy")}
        assert (found["address"], found["code"], found["environment"]) == ("127.0.0.1", "absent", "absent")
        assert (found["unwritable"], found["ports_free"], found["data"]) == (None, None, None)
        assert found["memory_available"] > 1 << 20
        assert found["disk_free"] > 0
        assert list(tmp_path.iterdir()) == [], "nothing is made"

    def test_a_run_learns_nothing_else(self, tmp_path: Path) -> None:
        """So that what the doctor decides from it is what the run will decide."""
        request = {
            **{"folder": str(tmp_path), "pins": "pins", "code": "code-x", "hash": "x", "checkout": "/absent"},
            **{"own": None, "given": None, "packages": [], "data": [], "run": "r"},
        }
        assert self.asked(tmp_path)["look"].keys() == look_of_a_run(request).keys()

    def test_what_a_run_left_is_recognised(self, tmp_path: Path) -> None:
        wanted_code = code_hash(str(CHECKOUT))
        (tmp_path / f"code-{wanted_code}").symlink_to(CHECKOUT)
        environment = tmp_path / environment_name("pins", this_python())
        (environment / "bin").mkdir(parents=True)
        (environment / "bin" / "python").symlink_to(sys.executable)
        (environment / ".ready").touch()
        found = self.asked(tmp_path, folder=str(tmp_path), data=["/absent", str(tmp_path)])
        assert (found["code"], found["environment"], found["data"]) == ("here", "ready", str(tmp_path))
        assert self.asked(tmp_path, checkout=str(CHECKOUT))["code"] == "shared"

    def test_this_python_seen_from_a_host(self, tmp_path: Path) -> None:
        assert self.asked(tmp_path)["own"] is True
        assert self.asked(tmp_path, versions={"numpy": "0.1"})["own"] is False
        assert self.asked(tmp_path, own="/absent/python")["own"] is False

    def test_an_address_that_is_not_its_own(self, tmp_path: Path) -> None:
        found = self.asked(tmp_path, bind="192.0.2.1")
        assert found["address"] is None
        assert "cannot listen on bind = 192.0.2.1" in found["no_address"]

    def test_the_address_that_ssh_came_in_by(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SSH_CONNECTION", "192.0.2.9 50000 127.0.0.3 22")
        assert self.asked(tmp_path, bind=None)["address"] == "127.0.0.3"
        monkeypatch.setenv("SSH_CONNECTION", "192.0.2.9 50000 192.0.2.1 22")  # somebody else's environment
        assert self.asked(tmp_path, bind=None, towards=["127.0.0.1"])["address"] == "127.0.0.1"
        assert "cannot tell by which" in self.asked(tmp_path, bind=None)["no_address"]

    def test_the_ssh_of_the_terminal_says_nothing_of_the_launchers_own_machine(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SSH_CONNECTION", "192.0.2.9 50000 127.0.0.3 22")
        found = self.asked(tmp_path, bind=None, remote=False, towards=["127.0.0.1"])
        assert found["address"] == "127.0.0.1"

    def test_a_folder_that_cannot_be(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        assert self.asked(tmp_path, folder="/proc/decentral")["unwritable"]


def test_pythons_are_tried_in_the_order_of_a_run() -> None:
    assert _pythons(Host(name="a")) == list(deployment_line._pythons())
    assert _pythons(Host(name="a"))[1] == f"python3.{sys.version_info[1]}"
    assert _pythons(Host(name="a", python="/p")) == ["/p"]


def test_packages_and_pins_are_those_of_this_checkout() -> None:
    sought = wanted()
    assert {"torch", "numpy", "pyzmq"} <= set(sought.packages)
    assert set(sought.packages) <= set(sought.pinned)
    assert set(sought.packages) <= set(sought.versions)
    assert re.fullmatch(r"[0-9a-f]{16,}", sought.code)


def test_tasks_that_read_data_sets() -> None:
    assert verdict._task_with_data(load(Path("default"))) is None
    cifar = ['data={name = "cifar10"}']
    assert verdict._task_with_data(load(Path("default"), cifar)) == "cifar10"
    assert verdict._task_with_data(load(Path("default"), [*cifar, 'train.mode="none"'])) is None
