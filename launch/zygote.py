"""The agent of one host: loads everything once, then forks the host's nodes and watches them.

Started by an executor as ``python -P -m launch.zygote``; talks to the launcher over its standard input and
output (launch/protocol.py), so that the same program serves a local pipe, ssh and srun. It ends, and every
process it forked with it, when its input closes, which is how the death of a launcher reaches it.

Orders in: ``job`` (arm, seed, run, folder, members, host), ``go``, ``rest``, ``release``, ``stop`` (grace_ms
until members are killed), ``exit``.
Events out: ``hello``, ``sockets`` (their folder, to be removed if this agent is killed), ``ready``,
``progress``, ``evaluated``, ``left``, ``done``, ``failed`` and ``exited`` (of a member), ``refused`` (the job
could not be loaded), ``over``.
"""

from __future__ import annotations

import gc
import os
import platform
import resource
import select
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import torch

from decentral.config import Arm
from decentral.errors import DecentralError
from decentral.tasks.base import LoadedTask
from launch.board import Board
from launch.build import Workload, load_workload
from launch.fork import Forked, fork_member
from launch.kernel import give_back_free_memory
from launch.paths import JobFolder
from launch.process import Assignment
from launch.protocol import FrameReader, write_frame

PROGRESS_EVERY_MS = 200
"""How often the board is read for the launcher's display."""


class Agent:
    """The agent's event loop; one job at a time.

    Args:
        out: file descriptor to the launcher.
    """

    def __init__(self, out: int) -> None:
        self._out = out
        self._orders = FrameReader(0, "the launcher")
        self._tasks: dict[str, LoadedTask] = {}
        self._warm: set[str] = set()
        self._forked: dict[int, Forked] = {}
        self._poll = select.poll()
        self._sources: dict[int, tuple[str, Forked]] = {}
        self._board = Board(1)
        self._sockets: Path | None = None
        self._told: dict[int, int] = {}
        self._progress_at_ms = 0
        self._kill_at_ms: int | None = None

    def serve(self) -> None:
        """Handle orders until ``exit`` or the end of the input; leaves no process behind."""
        self._poll.register(0, select.POLLIN)
        self._tell("hello", pid=os.getpid(), host=platform.node())
        try:
            while not self._orders.ended:
                for fd, _ in self._poll.poll(PROGRESS_EVERY_MS if self._forked else None):
                    if fd == 0:
                        for order in self._orders.read():
                            if order["do"] == "exit":
                                return
                            self._obey(order)
                    elif fd in self._sources:
                        self._hear(fd)
                self._look_at_the_clock()
        finally:
            self._signal_all(signal.SIGKILL)
            for forked in self._forked.values():
                os.waitpid(forked.pid, 0)
            self._remove_sockets()

    def _look_at_the_clock(self) -> None:
        now_ms = _now_ms()
        if self._kill_at_ms is not None and now_ms >= self._kill_at_ms:
            self._signal_all(signal.SIGKILL)
        if now_ms >= self._progress_at_ms:
            self._progress_at_ms = now_ms + PROGRESS_EVERY_MS
            if self._kill_at_ms is not None:
                self._signal_all(signal.SIGTERM)
            for forked in self._forked.values():
                self._report_progress(forked)

    def _report_progress(self, forked: Forked) -> None:
        round_, loss = self._board.read(forked.slot)
        if round_ != self._told.get(forked.number, 0):
            self._told[forked.number] = round_
            self._tell("progress", member=forked.number, round=round_, loss=loss)

    def _obey(self, order: dict[str, Any]) -> None:
        match order["do"]:
            case "job":
                self._start(order)
            case "go" | "rest" | "release":
                for forked in self._forked.values():
                    forked.order(order["do"])
            case "stop":
                self._kill_at_ms = _now_ms() + order["grace_ms"]
                self._signal_all(signal.SIGTERM)

    def _start(self, order: dict[str, Any]) -> None:
        try:
            workload = load_workload(Arm.model_validate_json(order["arm"]), order["seed"], self._tasks)
            self._warm_up(workload)
        except DecentralError as error:
            self._tell("refused", what=str(error), code=error.exit_code)
            return
        except Exception as error:
            last = "".join(traceback.format_exception_only(error)).strip()
            self._tell("refused", what=f"{last}\n{traceback.format_exc()}", code=4)
            return
        try:
            self._fork_all(workload, order)
        except OSError as error:
            self._signal_all(signal.SIGKILL)
            self._tell(
                "refused", what=f"cannot start the nodes: {error}; look at ulimit -a and TMPDIR", code=3
            )

    def _fork_all(self, workload: Workload, order: dict[str, Any]) -> None:
        self._kill_at_ms = None
        self._told.clear()
        self._board.close()
        self._board = Board(len(order["members"]))
        # Short, as Unix socket paths are limited to 107 bytes, and private: only this user may connect.
        self._sockets = Path(tempfile.mkdtemp(prefix="decentral-"))
        self._tell("sockets", folder=str(self._sockets))
        gc.collect()
        give_back_free_memory()  # every fork copies the page tables of what is left
        gc.freeze()  # the collector would touch, and so copy, every page that the children share
        for slot, number in enumerate(order["members"]):
            assignment = Assignment(
                number=number,
                run=order["run"],
                sockets=self._sockets,
                folder=JobFolder(Path(order["folder"])),
                host=order["host"],
                board=self._board,
                slot=slot,
            )
            self._fork(workload, assignment)
        gc.unfreeze()
        # Only now: children that ran while the rest is forked would make every fork wait for a core.
        for forked in self._forked.values():
            forked.order("begin")

    def _remove_sockets(self) -> None:
        if self._sockets is not None:
            shutil.rmtree(self._sockets, ignore_errors=True)
            self._sockets = None

    def _warm_up(self, workload: Workload) -> None:
        """Train and evaluate a little before the fork: torch's lazy imports cost a child 1.1 s and 110 MB."""
        key = repr(workload.composition.task)
        if key in self._warm:
            return
        self._warm.add(key)
        learner = workload.loaded.learner(workload.shards[0], workload.composition.sgd)
        learner.x[:] = workload.common
        learner.train(2, workload.composition.seeds.rng("warm-up"))
        split, _ = workload.evaluation(None).curve
        workload.loaded.evaluate(learner.x, split, np.zeros(2, dtype=np.int64))

    def _fork(self, workload: Workload, assignment: Assignment) -> None:
        siblings = list(self._forked.values())
        forked = fork_member(workload, assignment, siblings, self._out)
        self._forked[assignment.number] = forked
        for fd, kind in ((forked.line.fileno(), "line"), (forked.pidfd, "end")):
            self._sources[fd] = (kind, forked)
            self._poll.register(fd, select.POLLIN)

    def _hear(self, fd: int) -> None:
        kind, forked = self._sources[fd]
        if kind == "end":
            self._bury(forked)
            return
        while True:
            try:
                data = forked.line.recv(1 << 17, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except ConnectionResetError:  # it died with an order unread
                data = b""
            if not data:
                self._forget(forked.line.fileno())
                return
            self._pass_on(forked, msgpack.unpackb(data))

    def _pass_on(self, forked: Forked, message: list[Any]) -> None:
        kind, *rest = message
        names = {"evaluated": ("node", "round", "scores"), "failed": ("what",)}
        if kind in ("failed", "done"):
            self._report_progress(forked)
        self._tell(kind, member=forked.number, **dict(zip(names.get(kind, ()), rest, strict=True)))

    def _bury(self, forked: Forked) -> None:
        # What it said last must be passed on before its end: the first cause comes first.
        if forked.line.fileno() in self._sources:
            self._hear(forked.line.fileno())
        self._report_progress(forked)
        _, status = os.waitpid(forked.pid, 0)
        for fd in (forked.pidfd, forked.line.fileno()):
            if fd in self._sources:
                self._forget(fd)
        forked.let_go()
        del self._forked[forked.number]
        self._tell("exited", member=forked.number, status=os.waitstatus_to_exitcode(status))
        if not self._forked:
            self._kill_at_ms = None
            self._remove_sockets()
            self._tell("over")

    def _forget(self, fd: int) -> None:
        self._poll.unregister(fd)
        del self._sources[fd]

    def _signal_all(self, number: signal.Signals) -> None:
        for forked in self._forked.values():
            signal.pidfd_send_signal(forked.pidfd, number)

    def _tell(self, event: str, **fields: Any) -> None:
        write_frame(self._out, {"is": event, **fields})


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000


def main() -> None:
    """Serve the launcher at the other end of standard input and output."""
    # Whatever prints by accident must not get between the frames.
    out = os.dup(1)
    os.set_inheritable(out, False)
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    torch.set_num_threads(1)
    try:
        Agent(out).serve()
    except BrokenPipeError:
        sys.exit(0)  # the launcher is gone; serve() has ended every process already


if __name__ == "__main__":
    main()
