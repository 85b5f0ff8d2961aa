"""The executor of processes: one agent per host, which forks the host's nodes (launch/zygote.py)."""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from decentral.errors import ConfigError, Interrupted, PreflightError, RunFailed
from launch.display import Display
from launch.executors.base import Interruption, Job, Outcome
from launch.executors.line import END_S, Line, Pulse
from launch.executors.loop import JobLoop
from launch.executors.starters import Starter
from launch.hosts import Host, Hosts
from launch.own import NONE, OwnModules
from launch.placement import Placement, ranges
from launch.placing import place_arm
from launch.preflight import check_job
from launch.supervisor import Supervisor
from launch.wall import gather

MEET_S = 120.0
"""How long agents may take to say hello: hosts are reached and torch is imported."""


class Fleet:
    """Runs all jobs of a session under the same agents.

    Args:
        hosts: where.
        starter: how agents are started there.
        tell: hears a line on what takes time before the first job.
        sockets: that a host has at most; no more free ports are counted. None: all are.
        own: modules of the user's own, which other hosts must have.
    """

    def __init__(
        self,
        hosts: Hosts,
        starter: Starter,
        tell: Callable[[str], None] = lambda _: None,
        sockets: int | None = None,
        own: OwnModules = NONE,
    ) -> None:
        self._hosts = hosts
        self._lost: tuple[Host, ...] = ()  # to be dropped, if another job comes
        self._dropped = False
        self._told: set[str] = set()
        self._starter = starter
        self._tell = tell
        self._sockets = sockets
        self._own = own
        self._lines: dict[str, Line] = {}
        self._pulse: Pulse | None = None
        self._met = False

    def start(self, interruption: Interruption | None = None) -> None:
        """Bring what is missing to the hosts and start the agents, which import torch meanwhile.

        Raises:
            PreflightError: a host cannot be used; names all of them and why.
            Interrupted: by ``interruption``; hosts remove what they have not completed.
        """
        if self._lines:
            return
        if interruption is None:
            self._starter.prepare(self._hosts.hosts, self._tell)
        else:
            self._prepare(interruption)
        for host in self._hosts.hosts:
            self._lines[host.name] = Line(host, self._starter)
        self._pulse = Pulse(self._lines.values())

    def meet(self, interruption: Interruption | None = None) -> Mapping[str, dict[str, Any]]:
        """Wait until every agent has said hello; what is known of its host, by host.

        That is what it told (``launch.facts``), and ``remote``: the host can be lost without its agent.

        Raises:
            PreflightError: some agents could not be started or did not answer in time; names them and why.
            Interrupted: by ``interruption``.
        """
        self.start(interruption)
        if not self._met:
            problems = self._await_all(interruption)
            if problems:
                raise PreflightError("\n".join(problems))
            self._met = True
        return {name: {**line.facts, "remote": line.remote} for name, line in self._lines.items()}

    def run(self, job: Job, display: Display, interruption: Interruption) -> Outcome:
        """Run ``job`` on one process per node, without hosts that an earlier job lost and went on without."""
        n, wall = job.arm.nodes, job.arm.run.clock == "wall"
        try:
            self._drop_lost(job, display)
            known = self.meet(interruption)
            if self._dropped and (problems := check_job(job.arm, job.seed, self._hosts, known)):
                raise PreflightError("\n".join(problems))
            cores = {name: facts["cores"] for name, facts in known.items()}
            placement = place_arm(job.arm, job.seed, self._hosts, cores)
        except Interrupted as error:
            return Outcome("interrupted", str(error), error.exit_code)
        except (ConfigError, PreflightError) as error:
            return Outcome("failed", str(error), error.exit_code)
        goes_on = job.arm.run.on_node_failure == "continue"
        supervisor = Supervisor(
            placement.host_of,
            observer=n,
            timekeeper=None if wall else n + 1,
            max_rounds=job.arm.run.max_rounds,
            rounds=0 if job.resumed is None else job.resumed.rounds,
            goes_on=goes_on,
        )
        loop = JobLoop(
            self._lines,
            job,
            placement,
            supervisor,
            display=display,
            interruption=interruption,
            told=self._told,
        )
        outcome = loop.run()
        outcome = replace(outcome, placement=_shown(placement))
        if lost := tuple(line.host for line in self._lines.values() if line.ended):
            if goes_on and outcome.state == "done":
                self._lost = lost
            self.close()
        if wall and outcome.exit_code in (0, Interrupted.exit_code, RunFailed.exit_code):
            outcome = _with_fidelity(job, outcome)
        return outcome

    def close(self) -> None:
        """End all agents and all that they forked; wait for them."""
        if self._pulse is not None:
            self._pulse.stop()
        lines, self._lines = self._lines, {}
        self._pulse, self._met = None, False
        for line in lines.values():
            line.hang_up()
        by_s = time.monotonic() + END_S  # one deadline for all
        for line in lines.values():
            line.close(by_s)

    def _drop_lost(self, job: Job, display: Display) -> None:
        """Go on without the hosts that were lost, where their nodes may run elsewhere.

        Raises:
            PreflightError: they may not.
        """
        if not self._lost:
            return
        names = ", ".join(host.name for host in self._lost)
        lost = f"host{'s' * (len(self._lost) > 1)} {names}, lost in an earlier job"
        rest = tuple(host for host in self._hosts.hosts if host not in self._lost)
        hosts = self._hosts.model_copy(update={"hosts": rest})
        step = "go on with decentral run --resume RUN, on hosts that can be reached"
        if any(host.nodes is not None or host.regions is not None for host in self._lost):
            raise PreflightError(
                f"{lost}: {self._hosts.source} says which nodes run there, and they run nowhere else; {step}"
            )
        try:
            place_arm(job.arm, job.seed, hosts)
        except ConfigError as error:
            raise PreflightError(f"{lost}: the others cannot have all nodes ({error}); {step}") from error
        self._hosts, self._lost, self._dropped = hosts, (), True
        display.note(f"{lost}: all nodes run on {', '.join(host.name for host in rest)} from now on")

    def _prepare(self, interruption: Interruption) -> None:
        try:
            with interruption.calling(self._starter.cancel):
                self._starter.prepare(self._hosts.hosts, self._tell)
        except PreflightError:
            if not interruption.count:
                raise
        if interruption.count:
            raise Interrupted("interrupted by the user")

    def _await_all(self, interruption: Interruption | None) -> list[str]:
        """Read until all agents and this process know each other; what went wrong with those that do not."""
        poll = select.poll()
        if interruption is not None:
            poll.register(interruption.fileno(), select.POLLIN)
        waiting = {line.fileno(): line for line in self._lines.values()}
        problems = []
        for fd in waiting:
            poll.register(fd, select.POLLIN)
        deadline_s = time.monotonic() + MEET_S
        while waiting and (left_s := deadline_s - time.monotonic()) > 0:
            for fd, _ in poll.poll(left_s * 1000):
                if fd not in waiting:
                    raise Interrupted("interrupted by the user")
                line = waiting[fd]
                try:
                    line.meet(self._introduction(line))
                except RunFailed as refusal:
                    line.break_off()
                    problems.append(f"host {line.name}: {refusal}")
                else:
                    if line.ended:
                        problems.append(f"host {line.name}: its agent {line.how_it_ended()}")
                if line.met or line.ended:
                    poll.unregister(fd)
                    del waiting[fd]
        return problems + [
            f"host {line.name}: its agent has not answered for {MEET_S:g} s; try decentral doctor"
            for line in waiting.values()
        ]

    def _introduction(self, line: Line) -> dict[str, Any]:
        """What an agent has to know of its host."""
        host = line.host
        return {
            "name": host.name,
            "remote": line.remote,
            "bind": host.bind,
            "ports": host.port_range,
            "sockets": self._sockets,
            "folder": host.folder or "~/.cache/decentral",
            "modules": (NONE if host.local else self._own).wanted,
            "towards": [other.target for other in self._hosts.hosts if other is not host],
        }


def _shown(placement: Placement) -> dict[str, str]:
    hosts = dict.fromkeys(placement.host_of.values())
    return {host: ranges(placement.nodes_on(host)) for host in hosts}


def _with_fidelity(job: Job, outcome: Outcome) -> Outcome:
    try:
        return replace(
            outcome, distrust=tuple(gather(job.folder, job.arm, job.seed, outcome.state, len(outcome.lost)))
        )
    except PreflightError as error:  # a full disk; why the run ended must not be lost over it
        if outcome.state != "done":
            return outcome
        return Outcome("failed", str(error), PreflightError.exit_code)
