"""One job on its hosts: events of all agents to the supervisor, its orders back, until nothing of it runs."""

from __future__ import annotations

import select
import shutil
from collections.abc import Mapping
from typing import Any

from decentral.errors import Interrupted, PreflightError, RunFailed
from decentral.transports.addresses import Endpoint, encode_book
from launch.agreement import Sample
from launch.collect import land
from launch.compose import compose
from launch.display import Display
from launch.executors.base import Interruption, Job, Outcome
from launch.executors.line import Line
from launch.executors.loading import Loading
from launch.executors.resuming import Checkpoints
from launch.executors.vigil import Vigil
from launch.placement import Placement
from launch.supervisor import Order, Phase, Supervisor

FAILURE_GRACE_MS = 1200
"""After a failure the run is over within 2 s: members have this long for their last log line."""
INTERRUPT_GRACE_MS = 5000
"""After Ctrl-C; a second one ends everything at once."""
_LOOK_EVERY_MS = 500
"""How often silence of hosts is looked for."""
_FLUSH_EVERY_MS = 5
"""How often orders that an agent did not take yet are offered again."""
_STATES: dict[Order, str] = {"go": "running", "release": "ending", "stop": "stopping"}
"""What displays show of a host that was given an order."""


class JobLoop:
    """Carries events from agents to the supervisor and orders back, until the job is over.

    Args:
        lines: one per host, by its name; hosts without a member take no part.
        job: the job.
        placement: who is where.
        supervisor: what is known of the members.
        display: hears of the progress.
        interruption: SIGINT and SIGTERM.
        told: see ``Loading``.
    """

    def __init__(
        self,
        lines: Mapping[str, Line],
        job: Job,
        placement: Placement,
        supervisor: Supervisor,
        *,
        display: Display,
        interruption: Interruption,
        told: set[str] | None = None,
    ) -> None:
        used = set(placement.host_of.values())
        self._lines = {name: line for name, line in lines.items() if name in used}
        self._remote = any(line.remote for line in self._lines.values())
        self._job = job
        self._placement = placement
        self._supervisor = supervisor
        self._display = display
        self._interruption = interruption
        self._metric = compose(job.arm, job.seed).task.metric.name
        self._forked = False
        self._working: set[str] = set()
        self._reached: dict[int, Endpoint] = {}
        self._sockets: dict[str, str] = {}
        self._refusal: Outcome | None = None
        self._checkpoints = Checkpoints(job, self._lines, placement)
        self._vigil = Vigil(self._lines.values(), display)
        self._loading = Loading(
            self._lines,
            job,
            placement,
            display=display,
            nominal_ns=self._checkpoints.nominal_ns,
            lost=self._lost,
            told=told,
        )

    def run(self) -> Outcome:
        """Run the job to its end; lines of agents that are gone have ``ended`` then."""
        poll = select.poll()
        by_fd = {line.fileno(): line for line in self._lines.values()}
        for fd in (*by_fd, self._interruption.fileno()):
            poll.register(fd, select.POLLIN)
        try:
            self._display.hosts({name: self._placement.members_on(name) for name in self._lines})
            self._loading.begin()
            while not self._over:
                self._turn(poll, by_fd)
        except PreflightError as error:  # the run folder cannot be written: what is still to come is lost
            for line in self._lines.values():
                line.break_off()
            if self._supervisor.state in ("running", "done"):  # else there was another cause before
                self._refusal = Outcome("failed", str(error), PreflightError.exit_code)
        finally:
            self._loading.end()
        return self._outcome()

    def _turn(self, poll: select.poll, by_fd: dict[int, Line]) -> None:
        """Wait for what happens next, and see to it."""
        waiting = [line for line in self._lines.values() if line.pending]
        for line in waiting:
            line.flush()
        for fd, _ in poll.poll(_FLUSH_EVERY_MS if waiting else _LOOK_EVERY_MS):
            if fd == self._interruption.fileno():
                self._interrupt()
            else:
                self._listen(by_fd[fd])
        for line, what in self._vigil.look(self._at_work):
            self._lost(line, what)
        self._checkpoints.look()
        self._display.tick()
        for fd, line in list(by_fd.items()):
            if line.ended:
                poll.unregister(fd)
                del by_fd[fd]

    @property
    def _over(self) -> bool:
        """Nothing of the job runs on any host, or nothing ever will."""
        never = self._refusal is not None or self._supervisor.state != "running"
        return not self._working and (self._forked or never)

    def _outcome(self) -> Outcome:
        supervisor = self._supervisor
        if self._refusal is not None and supervisor.state != "interrupted":
            return self._refusal
        code = {"done": 0, "interrupted": Interrupted.exit_code}.get(supervisor.state, RunFailed.exit_code)
        return Outcome(supervisor.state, supervisor.cause, code, lost=tuple(supervisor.lost.values()))

    # Orders

    def _loaded(self, name: str, event: dict[str, Any]) -> list[Order]:
        loading = self._loading
        loading.loaded(name, event["measured_ns"], Sample(*event["sample"]))
        if event["apart"]:
            self._checkpoints.apart(name)
        if not loading.complete or self._supervisor.state != "running" or self._refusal is not None:
            return []
        if (other := loading.disagreement()) is not None:
            return self._refused(other.host, other.what, PreflightError.exit_code)
        self._forked = True
        for each, line in self._lines.items():
            self._working.add(each)
            self._display.host(each, "starting", len(self._placement.members_on(each)))
            self._checkpoints.bring(each)
            line.order("fork")
        return []

    def _carry_out(self, orders: list[Order]) -> None:
        interrupted = self._supervisor.state == "interrupted"
        grace_ms = INTERRUPT_GRACE_MS if interrupted else FAILURE_GRACE_MS
        if gone := [order[1] for order in orders if isinstance(order, tuple)]:
            self._go_on_without(gone)
        for order in orders:
            if isinstance(order, tuple):
                continue
            if order == "go":
                self._checkpoints.begin()
            if order == "stop":
                self._vigil.stopping(grace_ms)
            for name, line in self._lines.items():
                if order in _STATES and not line.ended:
                    self._display.host(name, _STATES[order])
                if order == "stop":
                    line.order("stop", grace_ms=grace_ms)
                elif order == "go" and len(self._lines) > 1:
                    line.order("go", book=self._book(name))
                else:
                    line.order(order)

    def _go_on_without(self, nodes: list[int]) -> None:
        for loss in [self._supervisor.lost[node] for node in nodes]:
            self._display.lost(loss.node)
            self._display.note(f"{loss.sentence}; the others go on without it")
        self._checkpoints.end()
        keeper = self._job.arm.nodes + 1
        host = self._placement.host_of.get(keeper)  # None in real time, in which all are told at once
        for name, line in self._lines.items():
            if host in (None, name):
                line.order("tell", member=None if host is None else keeper, words=["gone", *nodes])

    def _book(self, name: str) -> bytes:
        """How members on host ``name`` reach those on other hosts."""
        return encode_book({m: end for m, end in self._reached.items() if self._placement.host_of[m] != name})

    def _interrupt(self) -> None:
        self._interruption.drain()
        self._carry_out(self._supervisor.interrupted())
        if self._interruption.count > 1:
            for line in self._lines.values():
                line.hang_up()  # all of them, before the first is waited for
            for line in self._lines.values():
                self._lost(line, "was ended by the user")

    # Events

    def _listen(self, line: Line) -> None:
        try:
            events = line.read()
            self._display.heard(line.name)
            for event in events:
                self._carry_out(self._handle(line.name, event))
        except RunFailed as damage:
            self._lost(line, f"is out of order: {damage}")
            return
        if line.ended:
            self._lost(line, line.how_it_ended())

    def _show_alive(self, name: str) -> None:
        here = [self._supervisor.members[member] for member in self._placement.members_on(name)]
        self._display.host(name, None, sum(member.phase is not Phase.EXITED for member in here))

    def _at_work(self, line: Line) -> bool:
        """Whether nodes of a host have not ended; to send what they wrote may take as long as it takes."""
        if line.name not in self._working:
            return False
        members = self._placement.members_on(line.name)
        ended = all(self._supervisor.members[member].phase is Phase.EXITED for member in members)
        return not ended or not self._checkpoints.is_apart(line.name)

    def _lost(self, line: Line, what: str) -> None:
        """The agent is gone or given up, and with it all that it started."""
        self._display.host(line.name, "lost", 0)
        line.break_off()
        at_work = line.name in self._working
        self._working.discard(line.name)
        sockets = self._sockets.pop(line.name, None)
        if sockets is not None and not line.remote:
            shutil.rmtree(sockets, ignore_errors=True)
        unsent = at_work and self._checkpoints.is_apart(line.name)
        self._carry_out(self._supervisor.host_lost(line.name, what, unsent=unsent))

    def _refused(self, name: str, what: str, code: int) -> list[Order]:
        cause = f"host {name}: {what}" if self._remote else what
        if self._refusal is None and self._supervisor.state == "running":
            self._refusal = Outcome("failed", cause, code)
        return self._supervisor.refused(cause)

    def _handle(self, name: str, event: dict[str, Any]) -> list[Order]:
        match event["is"]:
            case "loaded":
                return self._loaded(name, event)
            case "file":
                if not self._checkpoints.forgotten(event["path"]):
                    land(self._job.folder.path, name, event["path"], event["offset"], event["data"])
            case "sockets":
                self._sockets[name] = event["folder"]
            case "over":
                self._working.discard(name)
                self._display.host(name, "done", 0)
            case "evaluated":
                scores = event["scores"]
                score, loss = scores[self._metric], scores["loss"]
                self._display.evaluated(event["node"], event["round"], self._metric, score, loss)
            case "refused":
                return self._refused(name, event["what"], event["code"])
            case _:
                return self._handle_member(event["member"], event)
        return []

    def _handle_member(self, member: int, event: dict[str, Any]) -> list[Order]:
        supervisor = self._supervisor
        orders: list[Order] = []
        match event["is"]:
            case "ready":
                if event["address"] is not None:
                    self._reached[member] = Endpoint(event["address"], event["key"])
                orders = supervisor.ready(member)
            case "progress":
                supervisor.progress(member, event["round"])
                self._checkpoints.progress(member, event["round"])
                self._display.progress(member, event["round"], event["loss"])
            case "lost":
                supervisor.lost_at(event["node"], event["time_s"])
            case "saved":
                self._checkpoints.saved(event["number"])
            case "left":
                orders = supervisor.left(member)
            case "done":
                orders = supervisor.done(member)
            case "failed":
                orders = supervisor.failed(
                    member, event["what"], waited=event["waited"], shared=event["shared"]
                )
            case "exited":
                orders = supervisor.exited(member, event["status"], event["how"])
                self._show_alive(supervisor.members[member].host)
            case "stalled":
                supervisor.stalled(member, event["what"])
                self._display.stalled(member, event["what"], event["for_s"])
        return orders
