"""One running host: what is in its namespaces, and what can be done there."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tests.lab.clock import skewed_clock
from tests.lab.commands import LabError, environment
from tests.lab.network import Network
from tests.lab.pids import note

INIT = Path(__file__).with_name("init.py")
BOOT_S = 60.0
CLOCK = "/usr/local/lib/lab-clock.so"
APART_S = 1000
"""Monotonic clocks of hosts have nothing in common; host i's is i times this ahead of the machine's."""


class Process(NamedTuple):
    """A process in a host; ``pid`` as the machine knows it, ``inner`` as the host does."""

    pid: int
    inner: int
    command: str

    @property
    def is_sshd(self) -> bool:
        """Whether it is the daemon of a session, which calls itself ``sshd: user@notty`` and the like."""
        return self.command.startswith("sshd: ")


@dataclass
class Host:
    """Host ``name``, whose process 1 is the machine's ``init``."""

    name: str
    init: int
    system: set[int] = field(default_factory=set)
    mounted: list[str] = field(default_factory=list)
    skewed: bool = False

    def exec(
        self, *command: str, check: bool = True, stdin: str | None = None, timeout_s: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run ``command`` as root in this host and wait for it."""
        done = subprocess.run(
            self.enter(*command),
            input=stdin, stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True, text=True, check=False, timeout=timeout_s,
        )  # fmt: skip
        if check and done.returncode != 0:
            raise LabError(f"{self.name}: {' '.join(command)}: code {done.returncode}: {done.stderr.strip()}")
        return done

    def enter(self, *command: str) -> list[str]:
        """The arguments that run ``command`` in this host, with a root login's environment."""
        namespaces = ["--mount", "--uts", "--ipc", "--net", "--pid", "--time"]
        variables = ["HOME=/root", "USER=root", "LANG=C.UTF-8", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]
        login = ["env", "-i", "-C", "/root", *variables]
        return ["nsenter", "-t", str(self.init), *namespaces, "--", *login, *command]

    def processes(self) -> list[Process]:
        """Everything in this host's process namespace."""
        mine = namespace(self.init)
        found = []
        for name in os.listdir("/proc"):
            if name.isdecimal() and mine is not None and namespace(int(name)) == mine:
                try:
                    words = Path(f"/proc/{name}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
                    status = Path(f"/proc/{name}/status").read_text(encoding="utf-8", errors="replace")
                except (FileNotFoundError, ProcessLookupError):
                    continue
                facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
                if facts["State"][0] not in "ZX":
                    command = " ".join(os.fsdecode(word) for word in words) or f"[{facts['Name']}]"
                    found.append(Process(int(name), int(facts["NSpid"].split()[-1]), command))
        return found

    def strangers(self) -> list[Process]:
        """What is not the host's own system: neither process 1, sshd and its sessions, nor Slurm.

        A session of sshd stays until the kernel gives its connection up, minutes after a cable was pulled.
        """
        return [one for one in self.processes() if one.pid not in self.system and not one.is_sshd]

    def settle(self) -> None:
        """From now on, what runs in this host belongs to it."""
        self.system = {process.pid for process in self.processes()}

    def small_disk(self, path: str, mib: float) -> None:
        """Put a disk of ``mib`` MiB at ``path``."""
        self.exec("mkdir", "-p", path)
        self.exec("mount", "-t", "tmpfs", "-o", f"size={round(mib * 1024)}k,mode=755", "small", path)
        self.mounted.append(path)

    def read_only(self, path: str) -> None:
        """Let nobody write below ``path``, not even root."""
        self.exec("mkdir", "-p", path)
        self.exec("mount", "--bind", path, path)
        self.exec("mount", "-o", "remount,bind,ro", path)
        self.mounted.append(path)

    def clock_skew(self, seconds: int) -> None:
        """Let sessions that begin from now on have a real-time clock that is ``seconds`` ahead (clock.py).

        Raises:
            LabError: there is no C compiler.
        """
        if seconds:
            self.exec("sh", "-c", f"base64 -d >{CLOCK}", stdin=skewed_clock(seconds))
        self._sessions(f" LD_PRELOAD={CLOCK}" if seconds else "")
        self.skewed = bool(seconds)

    def restore(self) -> None:
        """Undo what tests did to disks and clock."""
        while self.mounted:
            self.exec("umount", "-l", self.mounted.pop())
        if self.skewed:
            self.clock_skew(0)

    def _sessions(self, extra: str) -> None:
        path = f"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin{extra}"
        self.exec("tee", "/etc/ssh/lab_environment", stdin=f"SetEnv {path}\n")
        # sshd reads its files again, and notes its number once it listens again.
        again = "read pid </run/sshd.pid; rm /run/sshd.pid; kill -HUP $pid"
        self.exec("sh", "-c", f"{again}; until [ -s /run/sshd.pid ]; do sleep 0.01; done")


def namespace(pid: int) -> int | None:
    """Which process namespace ``pid`` is in; None where it is gone, or has rights that no host has."""
    try:
        return os.stat(f"/proc/{pid}/ns/pid").st_ino
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None


def boot(folder: Path, network: Network, plans: Mapping[int, Mapping[str, object]]) -> dict[int, Host]:
    """Start hosts side by side and return when each sshd answers.

    Args:
        folder: of the lab.
        network: that they are plugged into.
        plans: number -> what init.py is told.
    """
    with contextlib.ExitStack() as stack:
        starting = {i: stack.enter_context(_start(folder, i, plan)) for i, plan in plans.items()}
        numbers = {i: _line(process) for i, process in starting.items()}
        for i, number in numbers.items():
            if number:  # noted before anything can fail, so that they end if it does
                note(folder / f"h{i}.pid", int(number))
        for i, number in numbers.items():
            if not number:
                raise LabError(f"host h{i} did not start: {_log(folder, i).read_text(errors='replace')}")
        hosts = {i: Host(f"h{i}", int(number)) for i, number in numbers.items()}
        network.wire((i, host.init) for i, host in hosts.items())
        for process in starting.values():
            assert process.stdin is not None
            process.stdin.write("go\n")
    for i, host in hosts.items():
        _await_sshd(network.address(i), host)
        host.settle()
    return hosts


def _start(folder: Path, i: int, plan: Mapping[str, object]) -> subprocess.Popen[str]:
    Path(str(plan["disk"])).mkdir(parents=True, exist_ok=True)
    kinds = ["--net", "--mount", "--propagation", "private", "--uts", "--ipc", "--pid", "--fork"]
    clock = ["--time", "--monotonic", str(i * APART_S), "--boottime", str(i * APART_S)]
    with _log(folder, i).open("ab") as log:
        process = subprocess.Popen(
            # Not a child of this process: tests look at those.
            ["setsid", "-f", "unshare", *kinds, *clock, "--kill-child", sys.executable, "-IS", str(INIT)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
            env=environment(str(folder)),
        )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(json.dumps(plan) + "\n")
    process.stdin.flush()
    return process


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def _log(folder: Path, i: int) -> Path:
    return folder / f"h{i}.log"


def _await_sshd(address: str, host: Host) -> None:
    deadline = time.monotonic() + BOOT_S
    while True:
        try:
            with socket.create_connection((address, 22), timeout=BOOT_S) as line:
                if line.recv(4) == b"SSH-":
                    return
        except OSError as error:
            if time.monotonic() > deadline or namespace(host.init) is None:
                raise LabError(f"host {host.name} does not answer at {address}:22: {error}") from error
        time.sleep(0.01)
