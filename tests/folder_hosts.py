"""Hosts that are folders: ssh is a stand-in that runs a shell at home in one of them, as sshd does.

It prints what a chatty login shell prints first.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from launch.deploy.deployment import Deployment
from launch.deploy.line import Route
from launch.deploy.plan import Place
from launch.executors.ssh import ssh_command
from launch.hosts import Host

SSH = """
import os, sys
words = sys.argv[sys.argv.index("--") + 1 :]
home = os.path.join(sys.argv[1], words[0])
if not os.path.isdir(home):
    sys.exit(f"ssh: connect to host {words[0]} port 22: Connection refused")
sys.stdout.write("Welcome!\\n\\n")
sys.stdout.flush()
os.chdir(home)
os.environ["HOME"] = home
os.execv("/bin/sh", ["sh", "-c", " ".join(words[1:])])
"""
SETUP = """
[options]
install_requires =
    msgpack>=1.0
    rich>=13.7
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A small checkout that needs one package."""
    root = tmp_path / "check out"
    for name in (
        "decentral",
        "nodes",
        "topologies",
        "launch",
        "results",
        "results/runs",
        "launch/__pycache__",
        "tests",
    ):
        (root / name).mkdir(parents=True)
        (root / name / "__init__.py").write_text(f"NAME = {name!r}\n")
    (root / "launch" / "run.sh").write_text("echo\n")
    (root / "setup.cfg").write_text(SETUP)
    (root / "constraints.txt").write_text("msgpack==1.1.0\n")
    return root


class Lab:
    """Hosts that are folders.

    Args:
        path: of the folders.
        checkout: the launcher's code.
        hidden: hosts do not see the launcher's files, which they do here, of course.
    """

    def __init__(
        self, path: Path, checkout: Path, monkeypatch: pytest.MonkeyPatch, hidden: bool = True
    ) -> None:
        self.path = path
        self.checkout = checkout
        path.mkdir(exist_ok=True)
        program = path / "ssh.py"
        program.write_text(SSH)
        monkeypatch.setenv("DECENTRAL_SSH", f"{sys.executable} -I -S {program} {path}")
        monkeypatch.delenv("DECENTRAL_DATA", raising=False)
        monkeypatch.setattr("launch.deploy.deployment.CHECK", "import msgpack, decentral")
        self.told: list[str] = []
        if hidden:
            look = Deployment._look

            def look_from_afar(*arguments: Any) -> dict[str, Any]:
                return look(*arguments) | {"sees_code": False, "own": None}

            monkeypatch.setattr(Deployment, "_look", look_from_afar)

    def host(self, name: str, **keys: Any) -> Host:
        (self.path / name).mkdir(exist_ok=True)
        return Host(name=name, **keys)

    def deploy(
        self,
        *hosts: Host,
        send: Path | None = None,
        here: Sequence[str] = (),
        parts: Sequence[tuple[str, Path]] = (),
    ) -> list[Place]:
        deployment = Deployment(Route("ssh", ssh_command), send=send, checkout=self.checkout, parts=parts)
        self.told.clear()
        deployment.deploy(hosts, self.told.append, here)
        return [deployment.place(host) for host in hosts]

    def kept(self, name: str) -> list[str]:
        """What is in its folder beside what tells hosts apart in one run, which the next ones remove."""
        names = os.listdir(self.path / name / ".cache" / "decentral")
        return sorted(one for one in names if not one.startswith(".identity-"))


@pytest.fixture
def lab(tmp_path: Path, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    return Lab(tmp_path / "hosts", checkout, monkeypatch)
