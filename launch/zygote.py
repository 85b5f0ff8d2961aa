"""The agent of one host: loads everything once, then forks the host's nodes and watches them.

Started by an executor as ``python -P -m launch.zygote``; talks to the launcher over its standard input and
output (launch/protocol.py), so that the same program serves a local pipe, ssh and srun. It ends, and every
process it forked with it, when its input closes, which is how the death of a launcher reaches it; on another
host also when it has heard nothing for ``SILENCE_S``, which is how a cut cable does.

Orders in: ``host`` (name, remote, bind, ports, towards, folder: what the hosts file says of it), ``load``
(arm, seed, run, folder, probe, several, members, cores, measured_ns, clock_offset_ns, resume), ``put`` (path,
offset, data: a piece of a file for the job's folder of a host that does not see the run folder), ``fork``,
``go`` (book), ``rest``, ``release``, ``tell`` (member, words: for it alone), ``stop`` (grace_ms until members
are killed), ``time``, ``beat``, ``exit``.
Events out: ``hello`` (facts of the host), ``here`` (address of its data sockets, disk_free where it would
write), ``time`` (here_ns, of the monotonic clock), ``loaded`` (measured_ns, sample: whether hosts agree,
apart: this host does not see the run folder), ``sockets`` (their folder, to be removed if this agent is
killed), ``ready`` (of a member, with the endpoint where other hosts reach it), ``progress``, ``evaluated``,
``saved``, ``left``, ``done``, ``failed`` and ``exited`` (of a member), ``stalled`` (a member does not go on),
``file`` (path, offset, data: a piece of a log, where this host does not see the run folder), ``refused``
(what was ordered cannot be done: what, code), ``beat``, ``over`` (nothing of the job runs here, all told).
"""

from __future__ import annotations

import os
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from decentral.config import Arm
from decentral.errors import DecentralError, PreflightError
from decentral.tasks.base import LoadedTask
from decentral.transports.addresses import Listen
from launch.agreement import Sample
from launch.assignment import Assignment
from launch.build import Workload, load_workload
from launch.collect import Collector, land
from launch.facts import data_address, facts, free_bytes, usable_cores
from launch.holding import Hold
from launch.kernel import outlive_parent
from launch.members import Members, now_ms
from launch.paths import JobFolder, book_of
from launch.protocol import BEAT_S, PREAMBLE, SILENCE_S, FrameReader, write_frame
from launch.pulse import Pulse
from launch.scratch import PrivateFolder
from launch.warmup import warm_up

PROGRESS_EVERY_MS = 200
"""How often the board is read for the launcher's display."""
COLLECT_EVERY_MS = 500


class Agent:
    """The agent's event loop; one job at a time.

    Args:
        out: file descriptor to the launcher.
    """

    def __init__(self, out: int) -> None:
        self._out = out
        self._orders = FrameReader(0, "the launcher")
        self._tasks: dict[str, LoadedTask] = {}
        self._warm: dict[str, Sample] = {}
        self._poll = select.poll()
        self._host: dict[str, Any] = {"name": "localhost", "remote": False}
        self._job: dict[str, Any] = {}
        self._base = Path()
        self._listen: Listen | None = None
        self._folder = Path()
        self._workload: Workload | None = None
        self._members: Members | None = None
        self._sockets: PrivateFolder | None = None
        self._scratch: PrivateFolder | None = None
        self._collector: Collector | None = None
        self._hold: Hold | None = None
        self._heard_ms = now_ms()
        self._due_ms = {"beat": 0, "progress": 0, "collect": 0}

    def serve(self) -> None:
        """Handle orders until ``exit``, the end of the input or silence; leaves no process behind."""
        self._poll.register(0, select.POLLIN)
        self._tell("hello", **facts(Path(tempfile.gettempdir())))
        try:
            while not self._orders.ended and not self._deserted():
                busy = self._members is not None or self._host["remote"]
                for fd, _ in self._poll.poll(PROGRESS_EVERY_MS if busy else None):
                    if fd == 0:
                        for order in self._orders.read():
                            self._heard_ms = now_ms()
                            if order["do"] == "exit":
                                return
                            self._obey(order)
                    elif self._members is not None:
                        self._members.hear(fd)
                self._look_at_the_clock()
        finally:
            if self._members is not None:
                self._members.end()
            for folder in (self._sockets, self._scratch):
                if folder is not None:
                    folder.remove()

    def _deserted(self) -> bool:
        return bool(self._host["remote"]) and now_ms() - self._heard_ms > SILENCE_S * 1000

    def _look_at_the_clock(self) -> None:
        if self._host["remote"] and self._due("beat", BEAT_S * 1000):
            self._tell("beat")
        if self._members is None:
            return
        if self._due("progress", PROGRESS_EVERY_MS):
            self._members.look()
        if self._collector is not None and self._due("collect", COLLECT_EVERY_MS):
            self._collector.collect()
        if not self._members:
            self._close_job()

    def _due(self, what: str, every_ms: float) -> bool:
        now = now_ms()
        if now < self._due_ms[what]:
            return False
        self._due_ms[what] = now + int(every_ms)
        return True

    def _obey(self, order: dict[str, Any]) -> None:
        match order["do"]:
            case "host":
                self._refusing(self._settle, order)
            case "load":
                self._refusing(self._load, order)
            case "time":
                self._tell("time", here_ns=time.monotonic_ns())
            case "put":
                land(self._folder, self._host["name"], order["path"], order["offset"], order["data"])
                if self._collector is not None:
                    self._collector.known(order["path"], order["offset"] + len(order["data"]))
            case "fork":
                self._refusing(self._fork, order)
            case "stop" if self._members is not None:
                self._members.stop(order["grace_ms"])
            case "tell" if self._members is not None:
                self._members.order_one(order["member"], order["words"])
            case "go" | "rest" | "release" if self._members is not None:
                if order.get("book"):
                    assert self._sockets is not None
                    book_of(self._sockets.path).write_bytes(order["book"])
                self._members.order(order["do"])

    def _refusing(self, act: Any, order: dict[str, Any]) -> None:
        """Run ``act``; what it raises becomes the event ``refused``, and the job is none of this agent's."""
        try:
            act(order)
            return
        except DecentralError as error:
            what, code = str(error), error.exit_code
        except OSError as error:
            what = f"cannot start the nodes: {error}; look at ulimit -a, TMPDIR and the space there"
            code = PreflightError.exit_code
        except Exception as error:  # third-party parts may raise anything; it is reported whole
            last = "".join(traceback.format_exception_only(error)).strip()
            what, code = f"{last}\n{traceback.format_exc()}", 4
        self._tell("refused", what=what, code=code)
        if order["do"] == "fork":
            if self._members is not None:
                self._members.end()
            self._close_job()

    def _settle(self, order: dict[str, Any]) -> None:
        self._host = order
        base = self._base = Path(order["folder"]).expanduser()
        towards = order["towards"]
        address = data_address(order["bind"], os.environ, towards) if towards else None
        self._listen = None
        if address is not None:
            ports = order["ports"]
            self._listen = Listen(address, None if ports is None else (ports[0], ports[1]))
        self._tell("here", address=address, disk_free=free_bytes(base))

    def _load(self, order: dict[str, Any]) -> None:
        self._job = order
        remote = bool(self._host["remote"])
        with Pulse(self._out, SILENCE_S, beat=remote):
            arm = Arm.model_validate_json(order["arm"])
            workload = load_workload(arm, order["seed"], self._tasks, order["measured_ns"])
            sample = self._warm_up(workload)
        self._heard_ms = now_ms()
        self._workload = workload
        self._folder = Path(order["folder"])
        if remote and not _holds(order["probe"]):
            self._scratch = PrivateFolder(self._base / "scratch", "job-")
            self._folder = self._scratch.path
            self._collector = Collector(
                self._folder,
                lambda path, offset, piece: self._tell("file", path=path, offset=offset, data=piece),
            )
        self._hold = Hold(self._folder, alone=False)
        measured_ns = workload.composition.compute.nominal_ns if workload.composition.measured else None
        apart = self._scratch is not None
        self._tell("loaded", measured_ns=measured_ns, sample=sample, apart=apart)

    def _warm_up(self, workload: Workload) -> Sample:
        """Once per task and seed; the sample is the same for all arms of them."""
        key = repr((workload.composition.task, workload.composition.seeds, workload.arm.train))
        if key not in self._warm:
            self._warm[key] = warm_up(workload)
        return self._warm[key]

    def _fork(self, order: dict[str, Any]) -> None:
        assert self._workload is not None
        job = self._job
        # Short, as Unix socket paths are limited to 107 bytes, and private: only this user may connect.
        self._sockets = PrivateFolder(Path(tempfile.gettempdir()), "decentral-")
        self._tell("sockets", folder=str(self._sockets.path))
        cores = usable_cores()
        members = self._members = Members(self._poll, self._tell, self._out, len(job["members"]))
        assignments = [
            Assignment(
                number=number,
                run=job["run"],
                sockets=self._sockets.path,
                folder=JobFolder(self._folder),
                host=self._host["name"],
                board=members.board,
                slot=slot,
                listen=self._listen if job["several"] else None,
                core=None if core is None or core >= len(cores) else cores[core],
                clock_offset_ns=job["clock_offset_ns"],
                resume=job["resume"],
            )
            for slot, (number, core) in enumerate(zip(job["members"], job["cores"], strict=True))
        ]
        members.fork(self._workload, assignments, self._look_between_forks)

    def _look_between_forks(self) -> None:
        if self._host["remote"] and self._due("beat", BEAT_S * 1000):
            self._tell("beat")

    def _close_job(self) -> None:
        """All members have ended: tell what is left to tell, and keep nothing."""
        self._members = None
        if self._collector is not None:
            self._collector.collect(everything=True)
            self._collector = None
        if self._hold is not None:
            self._hold.let_go()
        for folder in (self._sockets, self._scratch):
            if folder is not None:
                folder.remove()
        self._sockets = self._scratch = None
        self._tell("over")

    def _tell(self, event: str, **fields: Any) -> None:
        write_frame(self._out, {"is": event, **fields})


def _holds(probe: dict[str, str]) -> bool:
    """Whether this host sees the run folder where the launcher has it: a file there says what it said."""
    try:
        return Path(probe["path"]).read_text(encoding="utf-8") == probe["text"]
    except (OSError, UnicodeDecodeError):
        return False


def main() -> None:
    """Serve the launcher at the other end of standard input and output."""
    # Whatever prints by accident must not get between the frames.
    out = os.dup(1)
    os.set_inheritable(out, False)
    os.dup2(2, 1)
    os.write(out, PREAMBLE)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    torch.set_num_threads(1)
    # While torch was imported, nobody here could see the launcher go; serve() can, and tidies up.
    outlive_parent()
    # A launcher that is gone is no error; serve() has ended every process already.
    with suppress(BrokenPipeError):
        Agent(out).serve()
    sys.stderr.flush()
    os._exit(
        0
    )  # to take torch down in order lasts a second, and whoever waits for this end gains nothing by it


if __name__ == "__main__":
    main()
