"""Who is where in a job, and what to do about it: a pure state machine, no I/O.

Members are the nodes 0..n-1, the observer, number n, and under emulated time the timekeeper, number n + 1.
Events come from agents; the answer to each is the list of orders that it makes necessary. The first cause is
kept; what fails afterwards is its consequence. Where the others go on without a lost node, nothing follows
from it but that they are told: ``("gone", node)``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Literal, TypeAlias

from launch.death import how as describe
from launch.losses import FEWEST_NODES, Loss

Order: TypeAlias = Literal["go", "rest", "release", "stop"] | tuple[Literal["gone"], int]
JobState: TypeAlias = Literal["running", "done", "failed", "interrupted"]


class Phase(Enum):
    """Where a member is in its life."""

    STARTING = auto()
    READY = auto()
    RUNNING = auto()
    DONE = auto()
    EXITED = auto()


@dataclass
class Member:
    """What is known of one member."""

    host: str
    phase: Phase = Phase.STARTING
    round: int = 0
    failure: str | None = None
    stall: str | None = None


class Supervisor:
    """The state of one job.

    Args:
        hosts: host of every member, by member number.
        observer: number of the observer.
        timekeeper: number of the timekeeper; None under the wall clock.
        max_rounds: for messages; None where only a time limit ends the run.
        rounds: local rounds that are behind every node from the start.
        goes_on: whether nodes that are lost after the start barrier are gone on without.
    """

    def __init__(
        self,
        hosts: Mapping[int, str],
        *,
        observer: int,
        max_rounds: int | None,
        timekeeper: int | None = None,
        rounds: int = 0,
        goes_on: bool = False,
    ) -> None:
        self.members = {number: Member(host, round=rounds) for number, host in hosts.items()}
        self.state: JobState = "running"
        self.cause: str | None = None
        self._others = {observer: ("the observer", "(it scores the nodes' mean model)")}
        if timekeeper is not None:
            self._others[timekeeper] = ("the timekeeper", "(it keeps emulated time)")
        self.lost: dict[int, Loss] = {}
        """Nodes that the others went on without, in the order of their loss."""
        self._goes_on = goes_on
        self._max_rounds = max_rounds
        self._gone_off = False
        self._released = False
        self._left: set[int] = set()
        self._rested = False

    @property
    def over(self) -> bool:
        """True once every member has exited."""
        return all(member.phase is Phase.EXITED for member in self.members.values())

    def ready(self, number: int) -> list[Order]:
        """A member has bound its socket; when all have, the start barrier falls."""
        if not self._advance(number, Phase.STARTING, Phase.READY):
            return []
        if self.state != "running" or any(m.phase is not Phase.READY for m in self.members.values()):
            return []
        for member in self.members.values():
            member.phase = Phase.RUNNING
        self._gone_off = True
        return ["go"]

    def progress(self, number: int, round_: int) -> None:
        """A node has finished local round ``round_``."""
        self.members[number].round = round_

    def left(self, number: int) -> list[Order]:
        """In real time: a node's rounds are over; when all are, nobody needs to be served any more."""
        self._left.add(number)
        return self._rest()

    def done(self, number: int) -> list[Order]:
        """A member has finished its work and waits at the end barrier."""
        return self._release() if self._advance(number, Phase.RUNNING, Phase.DONE) else []

    def stalled(self, number: int, what: str | None) -> None:
        """A member does not go on, ``what`` is up with it; None: it goes on again. Nothing ends by that."""
        self.members[number].stall = what

    def failed(self, number: int, what: str, *, waited: bool = False, shared: bool = False) -> list[Order]:
        """A member reports an exception; its exit follows.

        Args:
            number: who.
            what: the exception.
            waited: it has waited in vain; if somebody else is stalled, that is the cause.
            shared: others are in it as well, as in a deadlock: nobody can go on.
        """
        self.members[number].failure = what
        failed = f"{self._name(number)} failed {self._where(number, self.members[number].phase)}: {what}"
        stalled = [n for n, member in self.members.items() if member.stall is not None and n != number]
        if waited and stalled:
            whom = "; ".join(
                f"{self._name(n)} {self.members[n].stall} {self._where(n, self.members[n].phase)}"
                for n in stalled
            )
            failed = f"{whom}; others have waited for it in vain: {failed}"
        how = f"failed {self._where(number, self.members[number].phase)}: {what}"
        return self._fail(failed) if waited or shared else self._lose([number], how, failed)

    def exited(self, number: int, status: int, how: str | None = None) -> list[Order]:
        """A member's process has ended.

        Args:
            number: who.
            status: its exit code, negative for a signal.
            how: the same in words, where more is known than the number.
        """
        member = self.members[number]
        before = member.phase
        member.phase = Phase.EXITED
        orders: list[Order] = []
        if before is not Phase.DONE or status != 0 or not self._released:
            what = f"{how or describe(status)} {self._where(number, before)}"
            orders = self._lose([number], what, f"{self._name(number)} {what}")
        self._end()
        return orders

    def host_lost(self, host: str, what: str, *, unsent: bool = False) -> list[Order]:
        """An agent is gone, and with it every member on its host.

        Args:
            host: whose.
            what: has become of the agent.
            unsent: some of what its members wrote may not have arrived. The others can do without what nodes
                wrote that are lost, and nobody without what is wanted of nodes that came to their end.
        """
        there = [number for number, member in self.members.items() if member.host == host]
        missing = [number for number in there if self.members[number].phase is not Phase.EXITED]
        ended = [number for number in there if number not in missing and number not in self.lost]
        incomplete = unsent and bool(ended)
        cause = f"agent on host {host} {what}"
        how = f"was lost: {cause}"
        if incomplete:
            cause += "; not all of its logs and models had arrived"
        orders = self._lose(missing, how, cause)
        for number in there:
            self.members[number].phase = Phase.EXITED
        self._end()
        if incomplete and self.state in ("running", "done"):
            self.state = "running"  # it is not done before all is here
            orders = self._fail(cause)
        return orders

    def refused(self, cause: str) -> list[Order]:
        """An agent cannot do what it was ordered to, which is no loss that others could go on without."""
        return self._fail(cause)

    def lost_at(self, number: int, time_s: float) -> None:
        """When a node was lost: the timekeeper says it in emulated time, the observer in real time."""
        self.lost[number] = replace(self.lost[number], time_s=time_s)

    def interrupted(self) -> list[Order]:
        """The user wants to end the job."""
        if self.state != "running":
            return []
        self.state = "interrupted"
        self.cause = "interrupted by the user"
        return ["stop"]

    def _lose(self, numbers: Sequence[int], how: str, cause: str) -> list[Order]:
        """Members are gone, which is a failure unless the others can go on."""
        if self.state != "running":
            return []
        new = [number for number in numbers if number not in self.lost]
        if not self._goes_on or not self._gone_off or not self._others.keys().isdisjoint(new):
            return self._fail(cause) if new or not numbers else []
        for number in new:
            member = self.members[number]
            self.lost[number] = Loss(number, member.host, how, member.round)
        nodes = len(self.members) - len(self._others)
        if nodes - len(self.lost) < FEWEST_NODES:
            first = next(iter(self.lost.values()))
            return self._fail(
                f"{first.sentence}; {len(self.lost)} of {nodes} nodes "
                f"are lost, and a run needs {FEWEST_NODES}"
            )
        gone: list[Order] = [("gone", number) for number in new]
        return gone + self._rest() + self._release()

    def _rest(self) -> list[Order]:
        """Nobody is served any more once the rounds of all that are not lost are over."""
        nodes = self.members.keys() - self._others.keys() - self.lost.keys()
        if self.state != "running" or self._rested or not self._left or nodes - self._left:
            return []
        self._rested = True
        return ["rest"]

    def _release(self) -> list[Order]:
        """The end barrier falls once all that are not lost are there."""
        waiting = [m for n, m in self.members.items() if n not in self.lost and m.phase is not Phase.DONE]
        if self.state != "running" or self._released or waiting:
            return []
        self._released = True
        return ["release"]

    def _end(self) -> None:
        if self.over and self._released and self.state == "running":
            self.state = "done"

    def _fail(self, cause: str) -> list[Order]:
        if self.state != "running":
            return []
        self.state = "failed"
        self.cause = cause
        return ["stop"]

    def _advance(self, number: int, before: Phase, after: Phase) -> bool:
        """Move a member on; False where it is elsewhere, so that a barrier cannot fall twice."""
        member = self.members[number]
        if member.phase is not before:
            return False
        member.phase = after
        return True

    def _name(self, number: int) -> str:
        who, _ = self._others.get(number, (f"node {number}", ""))
        return f"{who} on host {self.members[number].host}"

    def _where(self, number: int, phase: Phase) -> str:
        if number in self._others:
            return self._others[number][1]
        if phase in (Phase.STARTING, Phase.READY):
            return "before round 1"
        of = "" if self._max_rounds is None else f" of {self._max_rounds}"
        return f"after round {self.members[number].round}{of}"
