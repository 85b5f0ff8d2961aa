"""What a process died of, as exactly as the kernel tells: a signal, and whether memory was the reason.

A SIGKILL says nothing of who sent it. The kernel counts what it kills for want of memory, for every cgroup
and for the whole machine, and names each in its log; where none of these says so, nobody is told that memory
ran out.
"""

from __future__ import annotations

import errno
import os
import re
import resource
import signal
import time
import traceback
from dataclasses import dataclass, replace
from pathlib import Path

from launch.cgroup import Level, levels

_INITIAL_PID_NAMESPACE = "pid:[4026531836]"
"""The one whose pids the kernel log speaks of (PROC_PID_INIT_INO)."""
_TEXTS = (
    "can't allocate memory",
    "not enough memory",
    "cannot allocate memory",
    "out of memory",
    "bad_alloc",
)
"""What torch's allocators say in a plain RuntimeError."""
_HINTS = {
    signal.SIGBUS: "a file that it had mapped was cut short, or its disk is full",
    signal.SIGXCPU: "its limit of CPU time was reached, ulimit -t",
    signal.SIGABRT: "native code gave up; its last words are in the log of its host",
}


@dataclass(frozen=True)
class Memory:
    """What the kernel counts at one moment.

    Args:
        levels: the cgroup of this process and those around it, innermost first; empty where there is none.
        machine_kills: processes that the kernel has killed for want of memory since the boot; None: unknown.
    """

    levels: tuple[Level, ...]
    machine_kills: int | None

    @classmethod
    def now(cls, root: Path = Path("/")) -> Memory:
        """Read it; of this process, under another ``root`` only in tests."""
        kills = None
        try:
            for line in (root / "proc/vmstat").read_text(encoding="ascii").splitlines():
                if line.startswith("oom_kill "):
                    kills = int(line.split()[1])
        except OSError:
            pass  # hidden from containers, now and then: then it is unknown
        return cls(tuple(levels(root)), kills)

    @property
    def kills(self) -> int | None:
        """Processes of this cgroup that the kernel has killed for want of memory; None: unknown."""
        return self.levels[0].kills if self.levels else None


_LOG_CLOCK_US = 1_000_000
"""How far the kernel log's clock may be behind the monotonic one."""


class Deaths:
    """Says of children how they died.

    Args:
        root: where /proc and /dev are; another one only in tests.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._since_us = time.monotonic_ns() // 1000
        self._before = Memory.now(root)

    def how(self, pid: int, status: int) -> str:
        """A verb with its object, such as ``was killed by SIGTERM``; to be asked once for each death.

        Args:
            pid: of the child.
            status: its exit code, negative for a signal.
        """
        if status != -signal.SIGKILL:
            return how(status)
        after = Memory.now(self._root)
        kills = _more(self._before.kills, after.kills)
        if kills or _named_in_kernel_log(pid, self._root, self._since_us):
            text = f"ran out of memory (the kernel killed it; {_limit_reached(self._before, after)})"
            self._count_one()
            return text
        machine = _more(self._before.machine_kills, after.machine_kills)
        if machine:
            return (
                f"was killed by SIGKILL (probably for want of memory: the kernel killed {machine} "
                f"process{'' if machine == 1 else 'es'} of this machine for it meanwhile)"
            )
        if kills is None and machine is None:
            return "was killed by SIGKILL (if nobody killed it, the kernel may have run out of memory)"
        return "was killed by SIGKILL (somebody else's kill: the kernel counts none for want of memory)"

    def _count_one(self) -> None:
        """This death is explained: the next needs a count of its own."""
        before = self._before
        machine = None if before.machine_kills is None else before.machine_kills + 1
        inner = tuple(
            replace(level, kills=level.kills + 1) if level.kills is not None else level
            for level in before.levels
        )
        self._before = Memory(inner, machine)


def how(status: int) -> str:
    """A verb with its object for an exit status, negative for a signal, from the number alone."""
    if status >= 0:
        return f"exited early with code {status}"
    number = -status
    known = number in {int(s) for s in signal.Signals}
    name = signal.Signals(number).name if known else f"signal {number}"
    hint = _HINTS.get(signal.Signals(number)) if known else None
    return f"was killed by {name}{f' ({hint})' if hint else ''}"


def report(error: BaseException, characters: int) -> str:
    """``failure`` and below it the traceback, each of so many characters at most."""
    try:
        trace = "".join(traceback.format_exception(error))
    except MemoryError:
        trace = "(there was no memory left for a traceback)"
    return f"{failure(error)[:characters]}\n{trace[-characters:]}"


def failure(error: BaseException) -> str:
    """The last line of an exception's traceback; one that is about memory says so first, with its limit."""
    last = "".join(traceback.format_exception_only(error)).strip()
    if not out_of_memory(error):
        return last
    return f"ran out of memory{_own_limit()}: {last}"


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that memory could not be had."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    text = str(error).lower() if isinstance(error, RuntimeError) else ""
    return any(words in text for words in _TEXTS)


def size(count: int) -> str:
    """``512 MiB``."""
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if count >= unit:
            return f"{count / unit:.4g} {name}"
    return f"{count} bytes"


def _own_limit() -> str:
    for kind, name in ((resource.RLIMIT_AS, "-v"), (resource.RLIMIT_DATA, "-d")):
        soft, _ = resource.getrlimit(kind)
        if soft != resource.RLIM_INFINITY:
            return f" (its address space is limited to {size(soft)}, ulimit {name})"
    return ""


def _more(before: int | None, after: int | None) -> int | None:
    return None if before is None or after is None else max(0, after - before)


def _limit_reached(before: Memory, after: Memory) -> str:
    """Of the innermost cgroup whose limit was met since; if none was, the machine itself was full."""
    for old, new in zip(before.levels, after.levels, strict=False):
        if new.limit_bytes is not None and _more(old.hits, new.hits):
            return f"cgroup limit {size(new.limit_bytes)} reached"
    return "the machine had none left"


def _named_in_kernel_log(pid: int, root: Path, since_us: int) -> bool:
    """Whether the kernel log says that it killed this very process; False where it is not readable.

    Records from before ``since_us`` on the monotonic clock are of other processes that had its pid.
    """
    try:
        if os.readlink(root / "proc/self/ns/pid") != _INITIAL_PID_NAMESPACE:
            return False  # its pids are not ours
        fd = os.open(root / "dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return False
    wanted = re.compile(rb"[Kk]ill(?:ed|ing)? process %d \(" % pid)
    try:
        while record := os.read(fd, 8192):
            # "priority,sequence,microseconds,flags;text"
            stamp = record.partition(b";")[0].split(b",")
            if wanted.search(record) and int(stamp[2]) >= since_us - _LOG_CLOCK_US:
                return True
    except OSError:  # EAGAIN after the last record; EPIPE where some were overwritten meanwhile
        pass
    finally:
        os.close(fd)
    return False
