"""Which process a run's launcher is: written into its manifest, found again from another terminal.

A pid alone says nothing: the kernel gives it to somebody else later. With the time at which its process
started, on this boot of this machine, it is unmistakable.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_STATE, _START_TIME = 0, 19
"""Fields of /proc/PID/stat after the name, which may contain anything (proc_pid_stat(5): 3 and 22)."""


@dataclass(frozen=True)
class Launcher:
    """A process, for as long as there are machines.

    Args:
        host: name of the machine.
        boot: id of the boot of its kernel.
        namespace: of pids, so that containers of one machine are told apart.
        pid: number of the process.
        started: when it started, in clock ticks after the boot.
    """

    host: str
    boot: str
    namespace: str
    pid: int
    started: int

    @classmethod
    def this(cls) -> Launcher:
        """The process that calls."""
        fields = stat_fields(os.getpid())
        assert fields is not None
        return cls(*_machine(), pid=os.getpid(), started=int(fields[_START_TIME]))

    @classmethod
    def named_in(cls, manifest: Mapping[str, Any]) -> Launcher | None:
        """The one that wrote a manifest; None where it does not say, as older ones do not."""
        said = manifest.get("launcher")
        if not isinstance(said, dict):
            return None
        words = [said.get(name) for name in ("host", "boot", "namespace")]
        numbers = [said.get(name) for name in ("pid", "started")]
        if not all(isinstance(word, str) for word in words) or not all(type(x) is int for x in numbers):
            return None
        return cls(*words, *numbers)  # type: ignore[arg-type]

    def to_manifest(self) -> dict[str, Any]:
        """What ``named_in`` reads."""
        return asdict(self)

    @property
    def here(self) -> bool:
        """Whether its process, if it lives, can be seen from here."""
        return self.host == platform.node() and (
            self.boot != _machine()[1] or self.namespace == _machine()[2]
        )

    def alive(self) -> bool:
        """Whether it runs; False also where it cannot be seen from ``here``."""
        with self.opened() as pidfd:
            return pidfd is not None

    def stopped(self) -> bool:
        """Whether it is stopped, by Ctrl-Z or SIGSTOP, and so can do nothing."""
        fields = stat_fields(self.pid) if self.alive() else None
        return fields is not None and fields[_STATE] in ("T", "t")

    @contextmanager
    def opened(self) -> Iterator[int | None]:
        """A pidfd of exactly this process inside the block; None where it has ended or is elsewhere."""
        if (self.host, self.boot, self.namespace) != _machine():
            yield None
            return
        try:
            pidfd = os.pidfd_open(self.pid)
        except OSError:  # nobody has this pid now; or it is no longer a process (ESRCH, EINVAL)
            yield None
            return
        try:
            # After the opening: what the pidfd refers to cannot change any more, and is compared.
            fields = stat_fields(self.pid)
            same = fields is not None and int(fields[_START_TIME]) == self.started
            yield pidfd if same and fields is not None and fields[_STATE] not in ("Z", "X") else None
        finally:
            os.close(pidfd)


def stat_fields(pid: int) -> list[str] | None:
    """Fields of ``/proc/PID/stat`` from the state on; None where there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()


def _machine() -> tuple[str, str, str]:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return platform.node(), boot, os.readlink("/proc/self/ns/pid")
