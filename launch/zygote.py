"""The agent of one host: loads everything once, then forks the host's nodes and watches them.

Started by an executor as ``python -P -m launch.zygote``; talks to the launcher over its standard input and
output (launch/protocol.py), so that the same program serves a local pipe, ssh and srun. It ends, and every
process it forked with it, when its input closes, which is how the death of a launcher reaches it; on another
host also when it has heard nothing for ``SILENCE_S``, which is how a cut cable does, and when it does not go
on itself (launch/watchdog.py).

Orders in: ``host`` (name, remote, bind, ports, towards, folder: what the hosts file says of it; sockets: no
more free ports are counted; modules: that it must have), ``load`` (arm, seed, run, folder, probe, several,
members, cores, measured_ns, clock_offset_ns, files, resume), ``put`` (path, offset, data: a piece of a file
for the folder of a host apart), ``fork``, ``go`` (book), ``rest``, ``release``, ``tell`` (member, words: for
it alone, or with None for all), ``stop`` (grace_ms until members are killed), ``time``, ``beat``, ``exit``.
Events out: ``hello`` (facts of the host), ``here`` (disk_free; where there are other hosts: address,
ports_free, ports_taken), ``time`` (here_ns, of the monotonic clock), ``loaded`` (measured_ns, sample: whether
hosts agree, apart: this host does not see the run folder), ``sockets`` (their folder), ``ready`` (of a
member, with the endpoint where other hosts reach it), ``progress``, ``evaluated``, ``saved``, ``lost``,
``left``, ``done``, ``failed`` and ``exited`` (of a member), ``stalled`` (a member does not go on), ``file``
(path, offset, data: a piece of a log of a host apart), ``refused`` (what was ordered cannot be done: what,
code), ``beat``, ``over`` (nothing of the job runs here, all told).
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from decentral.config import Arm
from decentral.errors import DecentralError, PreflightError, RunFailed
from decentral.tasks.base import LoadedTask
from decentral.transports.addresses import Listen
from launch.assignment import Assignment
from launch.build import Workload, load_workload
from launch.collect import ROUND_BYTES
from launch.contact import Contact
from launch.death import report
from launch.deploy.onhost.look import absolute
from launch.facts import facts, free_bytes
from launch.files import Received
from launch.kernel import outlive_parent
from launch.listening import listening
from launch.members import Members, now_ms
from launch.modules import SEARCH_VARIABLE, add_folders, check_here
from launch.paths import JobFolder, book_of
from launch.process import MAX_FAILURE_CHARACTERS
from launch.protocol import PREAMBLE
from launch.warmup import Samples
from launch.workplace import Workplace

PROGRESS_EVERY_MS = 200  # how often the board is read for the launcher's display
COLLECT_EVERY_MS = 500
TIDYING_S = 5.0
"""How long an agent whose launcher is gone may remove files; the next agent there removes what is left."""


class Agent:
    """The agent's event loop; one job at a time.

    Args:
        out: file descriptor to the launcher.
    """

    def __init__(self, out: int) -> None:
        self._launcher = Contact(out)
        self._tasks: dict[str, LoadedTask] = {}
        self._samples = Samples()
        self._poll = select.poll()
        self._host: dict[str, Any] = {"name": "localhost"}
        self._job: dict[str, Any] = {}
        self._base = Path()
        self._listen: Listen | None = None
        self._workload: Workload | None = None
        self._members: Members | None = None
        self._closing = False
        self._place: Workplace | None = None
        self._files = Received()
        self._due_ms = {"progress": 0, "collect": 0}

    def serve(self) -> None:
        """Handle orders until ``exit``, the end of the input or silence; leaves no process behind."""
        self._poll.register(0, select.POLLIN)
        self._launcher.tell("hello", **facts(Path(tempfile.gettempdir())))
        try:
            while not self._launcher.over:
                for fd in self._ready():
                    if fd == 0:
                        for order in self._launcher.orders():
                            if order["do"] == "exit":
                                return
                            self._obey(order)
                    elif fd == self._launcher.fileno():
                        self._launcher.flush()
                    elif self._members is not None:
                        self._members.hear(fd)
                self._look_at_the_clock()
        finally:
            if self._members is not None:
                self._members.end()
            self._leave()

    def _ready(self) -> list[int]:
        """Wait for something to do; this agent's output is among it while something waits to go out."""
        self._poll.register(self._launcher, select.POLLOUT if self._launcher.pending else 0)
        busy = self._members is not None or self._closing or self._launcher.remote
        return [fd for fd, _ in self._poll.poll(PROGRESS_EVERY_MS if busy else None)]

    def _look_at_the_clock(self) -> None:
        self._launcher.beat()
        if self._closing:
            self._close_job()
        if self._members is None:
            return
        if self._due("progress", PROGRESS_EVERY_MS):
            self._members.look()
        if self._due("collect", COLLECT_EVERY_MS):
            self._collect()
        if not self._members:
            self._members = None
            self._close_job()

    def _collect(self) -> bool:
        """Send what has grown, unless what was sent before is still to go out; False if all has gone."""
        if self._place is None or not self._place.apart:
            return False
        line = self._launcher
        return line.pending > ROUND_BYTES or self._place.collect() or line.pending > 0

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
                self._launcher.tell("time", here_ns=time.monotonic_ns())
            case "put" if self._place is not None:
                place = self._place
                self._refusing(lambda piece: place.put(self._host["name"], piece), order)
            case "fork":
                self._refusing(self._fork, order)
            case "stop" if self._members is not None:
                self._members.stop(order["grace_ms"])
            case "tell" if self._members is not None:
                self._members.tell(order["member"], order["words"])
            case "go" | "rest" | "release" if self._members is not None:
                self._refusing(self._pass_on, order)

    def _pass_on(self, order: dict[str, Any]) -> None:
        assert self._members is not None
        if order.get("book"):
            assert self._place is not None
            assert self._place.sockets is not None
            book_of(self._place.sockets).write_bytes(order["book"])
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
            what, code = report(error, MAX_FAILURE_CHARACTERS), RunFailed.exit_code
        self._launcher.tell("refused", what=what, code=code)
        if order["do"] == "fork":
            if self._members is not None:
                self._members.end()
                self._members = None
            self._close_job()

    def _settle(self, order: dict[str, Any]) -> None:
        self._host = order
        self._base = Path(absolute(order["folder"]))
        told: dict[str, Any] = {"disk_free": free_bytes(self._base)}
        if order["towards"]:
            found = listening(order)
            if found.address is None:
                raise PreflightError(f'{found.why}; give this host bind = "its IP address" in the hosts file')
            ports = None if order["ports"] is None else (order["ports"][0], order["ports"][1])
            self._listen = Listen(found.address, ports)
            told |= {key: value for key, value in found._asdict().items() if key != "why"}
        if order["remote"]:
            self._launcher.watch()
        with self._launcher.kept_up():
            check_here(order["modules"])
        self._launcher.tell("here", **told)

    def _load(self, order: dict[str, Any]) -> None:
        self._job = order
        with self._launcher.kept_up():
            self._leave()  # of a job that was loaded and never begun
            arm = self._files.take(Arm.model_validate_json(order["arm"]), order["files"], self._base)
            workload = load_workload(arm, order["seed"], self._tasks, order["measured_ns"])
            sample = self._samples.take(workload)
            self._workload = workload
            self._place = Workplace(
                Path(order["folder"]),
                order["probe"],
                self._base,
                remote=self._launcher.remote,
                send=lambda path, offset, piece: self._launcher.tell(
                    "file", path=path, offset=offset, data=piece
                ),
            )
        measured_ns = workload.composition.compute.nominal_ns if workload.composition.measured else None
        self._launcher.tell("loaded", measured_ns=measured_ns, sample=sample, apart=self._place.apart)

    def _fork(self, order: dict[str, Any]) -> None:
        assert self._workload is not None
        assert self._place is not None
        job, place = self._job, self._place
        sockets = place.make_sockets()
        self._launcher.tell("sockets", folder=str(sockets))
        cores = place.pin(job["cores"])
        members = self._members = Members(
            self._poll, self._launcher.tell, self._launcher.descriptors, len(job["members"])
        )
        assignments = [
            Assignment(
                number=number,
                run=job["run"],
                sockets=sockets,
                folder=JobFolder(place.folder),
                host=self._host["name"],
                board=members.board,
                slot=slot,
                listen=self._listen if job["several"] else None,
                core=core,
                clock_offset_ns=job["clock_offset_ns"],
                resume=job["resume"],
            )
            for slot, (number, core) in enumerate(zip(job["members"], cores, strict=True))
        ]
        members.fork(self._workload, assignments, self._launcher.beat)

    def _close_job(self) -> None:
        """All members have ended: tell what is left, as fast as the line takes it, and keep nothing."""
        self._closing = self._collect()
        if self._closing:
            return
        self._launcher.tell("over")
        # Only now: to remove what was collected may take long, and nobody needs to wait for it.
        with self._launcher.kept_up(TIDYING_S):
            self._leave()

    def _leave(self) -> None:
        if self._place is not None:
            self._place.leave()
        self._place = None
        self._files.remove()


def main() -> None:
    """Serve the launcher at the other end of standard input and output."""
    # Whatever prints by accident must not get between the frames.
    out = os.dup(1)
    os.dup2(2, 1)
    os.write(out, PREAMBLE)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    torch.set_num_threads(1)
    # While torch was imported, nobody here could see the launcher go; serve() can, and tidies up.
    outlive_parent()
    add_folders(json.loads(os.environ.get(SEARCH_VARIABLE, "[]")))
    # A launcher that is gone is no error; serve() has ended every process already.
    with suppress(BrokenPipeError):
        Agent(out).serve()
    sys.stderr.flush()
    # To take torch down in order lasts a second, and nobody gains by it.
    os._exit(0)


if __name__ == "__main__":
    main()
