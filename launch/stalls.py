"""Who does not go on: a process that was stopped, or that waits for something that is not its run.

Told by the kernel's account of it (/proc/PID), without its help: one that is stopped cannot answer. To be
stalled is no failure. It is shown, and noted, and only if somebody waits for it in vain for longer than
``run.liveness_timeout_s``, the run ends and the cause names it.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from launch.launcher import stat_fields

LOOK_EVERY_S = 1.0
STOPPED_AFTER_S = 2.0
"""Nobody stops a process by accident; a shell or a debugger that does so for a moment is not worth a line."""
BLOCKED_AFTER_S = 10.0
"""A disk may take seconds to write back; one that takes longer is worth one."""

_STATE, _USER_TICKS, _SYSTEM_TICKS = 0, 11, 12
"""Fields of /proc/PID/stat after the name (proc_pid_stat(5): 3, 14, 15)."""
_BLOCKING = ("pipe_", "wait_for_partner", "fuse_", "request_wait_answer", "nfs", "rpc_", "locks_", "flock")
"""Parts of names of the kernel's functions in which a node of a run has no business to sleep: other people's
pipes, file systems in user space or on a network, file locks. It waits for its run in poll, epoll, futex and
socket functions, and for real time in timers."""


class Look(NamedTuple):
    """One look at a process: its state letter, CPU time in clock ticks, the kernel function it sleeps in."""

    state: str
    ticks: int
    asleep_in: str


class Change(NamedTuple):
    """``what`` a member does instead of going on, since how long; None: it goes on again."""

    what: str | None
    for_s: float


def look_at(pid: int) -> Look | None:
    """None where the process has ended."""
    fields = stat_fields(pid)
    if fields is None:
        return None
    asleep_in = ""
    if fields[_STATE] == "S":
        with suppress(OSError):  # hardened kernels hide it: only who is stopped or waits for a disk is seen
            asleep_in = Path(f"/proc/{pid}/wchan").read_text(encoding="ascii")
    return Look(fields[_STATE], int(fields[_USER_TICKS]) + int(fields[_SYSTEM_TICKS]), asleep_in)


@dataclass
class _Member:
    ticks: int
    round: int
    since_s: float | None = None
    told: bool = False


class Stalls:
    """Finds out from one look after the other who is stalled; no I/O, no clock."""

    def __init__(self) -> None:
        self._members: dict[int, _Member] = {}

    def see(self, member: int, look: Look, round_: int, now_s: float) -> Change | None:
        """What is new about ``member``.

        Args:
            member: who.
            look: what was seen just now.
            round_: local rounds that it has finished.
            now_s: the time of the look, on a clock that never goes back.
        """
        known = self._members.setdefault(member, _Member(look.ticks, round_))
        moved = (known.ticks, known.round) != (look.ticks, round_)
        known.ticks, known.round = look.ticks, round_
        what = _what(look)
        if what is None or (moved and not _stopped(look)):
            told, known.since_s, known.told = known.told, None, False
            return Change(None, 0.0) if told else None
        known.since_s = now_s if known.since_s is None else known.since_s
        for_s = now_s - known.since_s
        if known.told or for_s < (STOPPED_AFTER_S if _stopped(look) else BLOCKED_AFTER_S):
            return None
        known.told = True
        return Change(what, for_s)

    def forget(self, member: int) -> None:
        """It has ended."""
        self._members.pop(member, None)


def _stopped(look: Look) -> bool:
    return look.state in ("T", "t")


def _what(look: Look) -> str | None:
    match look.state:
        case "T":
            return "is stopped (SIGSTOP)"
        case "t":
            return "is stopped (by a debugger)"
        case "D":
            return "is blocked (waits for a disk or a file system)"
        case "S" if any(name in look.asleep_in for name in _BLOCKING):
            return f"is blocked (sleeps in the kernel's {look.asleep_in})"
    return None
