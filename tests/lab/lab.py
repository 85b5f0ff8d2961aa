"""Several emulated hosts on one Linux machine (tests/lab/README.md)."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from tests.lab.commands import MARK, LabError, environment
from tests.lab.host import Host, Process, boot
from tests.lab.keys import client_files, etc_hosts, make_key
from tests.lab.network import Network
from tests.lab.pids import end, note, noted
from tests.lab.registry import KEEPER, STAY, choosing, clear, enter, labs, unused_network
from tests.lab.requirements import unmet
from tests.lab.view import ROOT, hidden_folders, on_disk, python_folders

STANDING: dict[str, Lab] = {}
"""The labs of this process that are up, by name."""


class Lab:
    """``n`` emulated hosts ``h1`` ... ``hn``, numbered from 1, up inside the ``with`` statement.

    Args:
        n: how many hosts, 1 to 32.
        shown: folders of the machine that hosts see read-only at the same place; by default those of the
            running Python, so that ``sys.executable`` runs in hosts.
        shared: folders that all hosts and the machine write (an emulated shared file system).
        mtu: largest packet, bytes.
        folder: of the lab; by default a fresh one in TMPDIR.
        stay: go on existing when this process ends, until ``down``.

    Raises:
        LabError: a command failed.
        RuntimeError: the machine cannot have emulated hosts; the message says why.
    """

    def __init__(
        self,
        n: int,
        *,
        shown: Sequence[str | Path] | None = None,
        shared: Sequence[str | Path] = (),
        mtu: int = 1500,
        folder: Path | None = None,
        stay: bool = False,
    ) -> None:
        if not 1 <= n <= 32:
            raise ValueError(f"n = {n}: a lab has 1 to 32 hosts")
        self.n = n
        self.name = f"lab{secrets.token_hex(4)}"
        self.shown = [str(path) for path in (python_folders() if shown is None else shown)]
        self.shared = [str(path) for path in shared]
        self.mtu = mtu
        self.stay = stay
        self.folder = folder or Path(tempfile.gettempdir(), self.name)
        self.hosts: dict[int, Host] = {}
        self._owner: int | None = None

    # -- life

    def up(self) -> Lab:
        """Make and boot everything; what was made so far is removed if that fails."""
        if reason := unmet():
            raise RuntimeError(reason)
        self.folder.mkdir(mode=0o700)
        if self.stay:
            (self.folder / STAY).touch()
        try:
            with choosing():
                enter(self.name, self.folder)
                keeper = self._start_keeper()
                self.network = Network(self.name, unused_network(), keeper, self.mtu)
                self.network.make()
            self._save()
            self._make_keys()
            self.boot(*range(1, self.n + 1))
        except BaseException:
            self.down()
            raise
        STANDING[self.name] = self
        return self

    def down(self) -> None:
        """End and remove everything."""
        STANDING.pop(self.name, None)
        clear(self.folder)
        self.hosts.clear()
        if self._owner is not None:
            os.close(self._owner)
            self._owner = None

    def __enter__(self) -> Lab:
        return self.up()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    @classmethod
    def open(cls, name: str | None = None) -> Lab:
        """The lab ``name``, or the only one there is, which another process made."""
        there = labs()
        if name is None and len(there) == 1:
            name = next(iter(there))
        if name is None or name not in there:
            raise ValueError(f"there is no lab {name}; there are: {', '.join(there) or 'none'}")
        saved = json.loads((there[name] / "lab.json").read_text(encoding="utf-8"))
        lab = cls(saved["n"], shown=saved["shown"], shared=saved["shared"], mtu=saved["mtu"], stay=True)
        lab.name, lab.folder = name, there[name]
        keeper = noted(lab.folder / KEEPER)
        if keeper is None:
            raise ValueError(f"lab {name} is half dead; take it down")
        lab.network = Network(name, saved["network"], keeper, lab.mtu)
        for i in range(1, lab.n + 1):
            if (process := noted(lab.folder / f"h{i}.pid")) is not None:
                lab.hosts[i] = Host(f"h{i}", process)
        return lab

    # -- what tests do to hosts

    def boot(self, *numbers: int) -> None:
        """Switch hosts on, all at once; returns when their sshd answers. Their disks are as they were."""
        for i in numbers:
            if noted(self.folder / f"h{i}.pid") is not None:
                raise ValueError(f"host h{i} is running")
        self.hosts.update(boot(self.folder, self.network, {i: self._plan(i) for i in numbers}))
        self._look_again()

    def power_cut(self, i: int) -> None:
        """The host is gone between two instructions, and nothing of its end gets out on its cable."""
        self.network.pull(i)
        end(self.folder / f"{self.host(i).name}.pid")
        self.network.cut([i])
        del self.hosts[i]

    def pull_cable(self, i: int) -> None:
        """Host ``i`` runs on and is reached by nobody."""
        self.network.pull(i)

    def plug_cable(self, i: int) -> None:
        """The end of ``pull_cable``."""
        self.network.plug(i)
        self._look_again()

    def rate(self, i: int, mbit: float | None) -> None:
        """Limit host ``i`` to ``mbit`` Mbit/s in each direction; None ends it."""
        self.network.rate(i, self.host(i).init, mbit)

    def exec(
        self, i: int, *command: str, check: bool = True, stdin: str | None = None, timeout_s: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run ``command`` as root in host ``i``, not through ssh, and wait for it."""
        return self.host(i).exec(*command, check=check, stdin=stdin, timeout_s=timeout_s)

    def host(self, i: int) -> Host:
        """Host ``i``, which must be on."""
        if i not in self.hosts:
            raise LabError(f"host h{i} of {self.name} is off or does not exist")
        return self.hosts[i]

    def processes(self, i: int) -> list[Process]:
        """What runs in host ``i`` beyond its own system; pids as the machine knows them. None if off."""
        return self.hosts[i].strangers() if i in self.hosts else []

    def quiet(self, within_s: float) -> tuple[float, list[str]]:
        """Wait until nothing but their systems runs in the hosts.

        Returns:
            How long it took, and one line for everything that still runs after ``within_s``.
        """
        begin = time.monotonic()
        while True:
            left = [
                f"{host.name}: {one.pid} {one.command}"
                for host in self.hosts.values()
                for one in host.strangers()
            ]
            took = time.monotonic() - begin
            if not left or took > within_s:
                return took, left
            time.sleep(0.05)

    def end_strangers(self) -> None:
        """SIGKILL to everything in the hosts that does not belong to their systems."""
        for host in self.hosts.values():
            for process in host.strangers():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)

    def restore(self) -> None:
        """All hosts on, plugged in, unlimited, with their own clock and disks."""
        for i, host in self.hosts.items():
            self.plug_cable(i)
            self.rate(i, None)
            host.restore()
        if off := [i for i in range(1, self.n + 1) if i not in self.hosts]:
            self.boot(*off)

    def disk(self, i: int, path: str) -> Path:
        """Where ``path`` of host ``i`` lies on the machine, for a look at what a host has that is off."""
        return on_disk(self._disk(i), path)

    # -- what ssh and hosts files need

    @property
    def ssh_config(self) -> Path:
        """For ``ssh -F``: every host by name and by address."""
        return self.folder / "ssh" / "config"

    @property
    def addresses(self) -> dict[str, str]:
        """Host name -> IP address."""
        return {f"h{i}": self.network.address(i) for i in range(1, self.n + 1)}

    def ssh(self, i: int, command: str, *, timeout_s: float = 60) -> str:
        """What ``command`` prints in a session on host ``i``.

        Raises:
            LabError: it ended otherwise than with code 0.
        """
        done = subprocess.run(
            ["ssh", "-F", str(self.ssh_config), f"h{i}", command],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=timeout_s,
        )  # fmt: skip
        if done.returncode != 0:
            raise LabError(f"h{i}: {command}: code {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    # -- making

    def _look_again(self) -> None:
        """Have nobody's search for a host go on that began while it was off.

        One that fails in the same moment would fail what has just begun with "No route to host".
        """
        self.network.forget([host.init for host in self.hosts.values()])

    def _start_keeper(self) -> int:
        read, owner = os.pipe()
        command = ["setsid", "-f", "unshare", "--net", sys.executable, "-P", "-m", "tests.lab.keeper"]
        variables = {**environment(str(self.folder)), "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        with contextlib.closing(os.fdopen(read)) as stdin, (self.folder / "keeper.log").open("ab") as log:
            done = subprocess.run(
                [*command, str(self.folder), *(["--stay"] if self.stay else [])],
                stdin=stdin, stdout=subprocess.PIPE, stderr=log, env=variables, check=True,
            )  # fmt: skip
        self._owner = owner
        if not done.stdout:
            raise RuntimeError(f"the keeper did not start: {(self.folder / 'keeper.log').read_text()}")
        note(self.folder / KEEPER, int(done.stdout))
        return int(done.stdout)

    def _save(self) -> None:
        keys = {"n": self.n, "network": self.network.prefix, "mtu": self.mtu}
        (self.folder / "lab.json").write_text(
            json.dumps({**keys, "shown": self.shown, "shared": self.shared}), encoding="utf-8"
        )

    def _make_keys(self) -> None:
        folder = self.ssh_config.parent
        folder.mkdir(mode=0o700)
        make_key(folder / "id", self.name)
        for name in self.addresses:
            make_key(folder / name, name)
        for name, text in client_files(folder, self.addresses).items():
            if name != "id":
                (folder / name).write_text(text.replace("{keys}", str(folder)), encoding="ascii")

    def _disk(self, i: int) -> Path:
        return self.folder / "hosts" / f"h{i}"

    def _plan(self, i: int) -> dict[str, object]:
        keys = self.ssh_config.parent
        client = client_files(keys, self.addresses)
        client["config"] = client["config"].replace("{keys}", "/root/.ssh")
        return {
            "name": f"h{i}",
            "address": self.network.address(i),
            "disk": str(self._disk(i)),
            "hidden": hidden_folders(),
            "shown": self.shown,
            "shared": self.shared,
            "etc_hosts": etc_hosts(self.addresses, f"{self.network.prefix}.1"),
            "host_key": (keys / f"h{i}").read_text(encoding="ascii"),
            "public_key": (keys / "id.pub").read_text(encoding="ascii"),
            "client": client,
        }


def belongs_to_standing_lab(variables: Mapping[str, str]) -> bool:
    """Whether a process with this environment is part of a lab of this process that is up."""
    return variables.get(MARK) in {str(lab.folder) for lab in STANDING.values()}
