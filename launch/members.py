"""The forked processes of one host: forking them, passing on what they say, and how they end."""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgpack

from launch.assignment import Assignment
from launch.board import Board
from launch.build import Workload
from launch.death import Deaths
from launch.fork import Forked, fork_member
from launch.kernel import give_back_free_memory
from launch.stalls import LOOK_EVERY_S, Stalls, look_at

_FIELDS = {
    "ready": ("address", "key"),
    "evaluated": ("node", "round", "scores"),
    "failed": ("what", "waited", "shared"),
    "lost": ("node", "time_s"),
    "saved": ("number",),
}
"""Names of what a member's words carry."""


class Members:
    """The members that an agent has forked for one job.

    Args:
        poll: the agent's; members' descriptors are registered with it.
        tell: takes events for the launcher.
        private: descriptors of the agent that members must not keep open.
        slots: how many there will be.
    """

    def __init__(
        self, poll: select.poll, tell: Callable[..., None], private: Sequence[int], slots: int
    ) -> None:
        self.board = Board(slots)
        self._poll = poll
        self._tell = tell
        self._private = private
        self._forked: dict[int, Forked] = {}
        self._sources: dict[int, tuple[str, Forked]] = {}
        self._told: dict[int, int] = {}
        self._kill_at_ms: int | None = None
        self._deaths = Deaths()
        self._stalls = Stalls()
        self._stalls_due_ms = 0

    def __len__(self) -> int:
        """How many have not ended."""
        return len(self._forked)

    def fork(
        self, workload: Workload, assignments: Iterable[Assignment], between: Callable[[], None]
    ) -> None:
        """Fork a member per assignment, then let all of them begin.

        Args:
            workload: shared with them, not copied.
            assignments: one each.
            between: called after every fork.

        Raises:
            OSError: the host has no more processes, descriptors or memory; those forked so far are killed.
        """
        gc.collect()
        give_back_free_memory()  # every fork copies the page tables of what is left
        gc.freeze()  # the collector would touch, and so copy, every page that the children share
        try:
            for assignment in assignments:
                self._add(fork_member(workload, assignment, list(self._forked.values()), self._private))
                between()
        except OSError:
            self.signal(signal.SIGKILL)
            raise
        finally:
            gc.unfreeze()
        # Only now: children that ran while the rest is forked would make every fork wait for a core.
        self.order("begin")

    def order(self, word: str) -> None:
        """Send ``word`` to all."""
        for forked in self._forked.values():
            forked.order(word)

    def tell(self, number: int | None, words: Any) -> None:
        """Send a word, or a list of a word and what belongs to it, to one member, with None to all.

        Nothing is sent to those that have ended.
        """
        for forked in self._forked.values():
            if number in (None, forked.number):
                forked.order(words)

    def stop(self, grace_ms: int) -> None:
        """Ask all to end; kill those that have not after ``grace_ms``."""
        self._kill_at_ms = now_ms() + grace_ms
        self.signal(signal.SIGTERM)
        self.signal(signal.SIGCONT)  # one that is stopped could not end in order

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all."""
        for forked in self._forked.values():
            signal.pidfd_send_signal(forked.pidfd, number)

    def look(self) -> None:
        """To be called every now and then: tells of progress, and sees to those that are to end."""
        if self._kill_at_ms is not None:
            # Python drops what is raised inside a destructor, so the signal is repeated until it is heeded.
            self.signal(signal.SIGKILL if now_ms() >= self._kill_at_ms else signal.SIGTERM)
        for forked in self._forked.values():
            self._report_progress(forked)
        # One that is stopped is woken up to end, which is not going on.
        if self._kill_at_ms is None and now_ms() >= self._stalls_due_ms:
            self._stalls_due_ms = now_ms() + int(LOOK_EVERY_S * 1000)
            self._look_for_stalls()

    def hear(self, fd: int) -> None:
        """Descriptor ``fd`` of a member is readable; nothing if it is none of theirs any more."""
        kind, forked = self._sources.get(fd, ("", None))
        if forked is None:
            return
        if kind == "end":
            self._bury(forked)
            return
        while True:
            try:
                data = forked.line.recv(1 << 18, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except ConnectionResetError:  # it died with an order unread
                data = b""
            if not data:
                self._forget(forked.line.fileno())
                return
            self._pass_on(forked, msgpack.unpackb(data))

    def end(self) -> None:
        """Kill all that are left and wait for them."""
        self.signal(signal.SIGKILL)
        for forked in self._forked.values():
            os.waitpid(forked.pid, 0)
            self._let_go(forked)
        self._forked.clear()
        self.board.close()

    def _add(self, forked: Forked) -> None:
        self._forked[forked.number] = forked
        for fd, kind in ((forked.line.fileno(), "line"), (forked.pidfd, "end")):
            self._sources[fd] = (kind, forked)
            self._poll.register(fd, select.POLLIN)

    def _report_progress(self, forked: Forked) -> None:
        round_, loss = self.board.read(forked.slot)
        if round_ != self._told.get(forked.number, 0):
            self._told[forked.number] = round_
            self._tell("progress", member=forked.number, round=round_, loss=loss)

    def _look_for_stalls(self) -> None:
        for number, forked in self._forked.items():
            look = look_at(forked.pid)
            if look is None:
                continue
            round_, _ = self.board.read(forked.slot)
            change = self._stalls.see(number, look, round_, now_ms() / 1000)
            if change is not None:
                self._tell("stalled", member=number, what=change.what, for_s=change.for_s)

    def _pass_on(self, forked: Forked, message: list[Any]) -> None:
        kind, *rest = message
        if kind in ("failed", "done"):
            self._report_progress(forked)
        self._tell(kind, member=forked.number, **dict(zip(_FIELDS.get(kind, ()), rest, strict=True)))

    def _bury(self, forked: Forked) -> None:
        # What it said last must be passed on before its end: the first cause comes first.
        if forked.line.fileno() in self._sources:
            self.hear(forked.line.fileno())
        self._report_progress(forked)
        _, status = os.waitpid(forked.pid, 0)
        self._let_go(forked)
        del self._forked[forked.number]
        self._stalls.forget(forked.number)
        code = os.waitstatus_to_exitcode(status)
        self._tell("exited", member=forked.number, status=code, how=self._deaths.how(forked.pid, code))

    def _let_go(self, forked: Forked) -> None:
        for fd in (forked.pidfd, forked.line.fileno()):
            if fd in self._sources:
                self._forget(fd)
        forked.let_go()

    def _forget(self, fd: int) -> None:
        self._poll.unregister(fd)
        del self._sources[fd]


def now_ms() -> int:
    """Real time, for deadlines."""
    return time.monotonic_ns() // 1_000_000
