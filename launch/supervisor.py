"""Who is where in a job, and what to do about it: a pure state machine, no I/O.

Members are the nodes 0..n-1, the observer, number n, and under emulated time the timekeeper, number n + 1.
Events come from agents; the answer to each is the list of orders that it makes necessary. The first cause is
kept; what fails afterwards is its consequence.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Literal, TypeAlias

Order: TypeAlias = Literal["go", "rest", "release", "stop"]
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


class Supervisor:
    """The state of one job.

    Args:
        hosts: host of every member, by member number.
        observer: number of the observer.
        timekeeper: number of the timekeeper; None under the wall clock.
        max_rounds: for messages; None where only a time limit ends the run.
    """

    def __init__(
        self,
        hosts: Mapping[int, str],
        *,
        observer: int,
        max_rounds: int | None,
        timekeeper: int | None = None,
    ) -> None:
        self.members = {number: Member(host) for number, host in hosts.items()}
        self.state: JobState = "running"
        self.cause: str | None = None
        self._others = {observer: ("the observer", "(it scores the nodes' mean model)")}
        if timekeeper is not None:
            self._others[timekeeper] = ("the timekeeper", "(it keeps emulated time)")
        self._max_rounds = max_rounds
        self._released = False
        self._left: set[int] = set()

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
        return ["go"]

    def progress(self, number: int, round_: int) -> None:
        """A node has finished local round ``round_``."""
        self.members[number].round = round_

    def left(self, number: int) -> list[Order]:
        """In real time: a node's rounds are over; when all are, nobody needs to be served any more."""
        self._left.add(number)
        return ["rest"] if len(self._left) == len(self.members) - len(self._others) else []

    def done(self, number: int) -> list[Order]:
        """A member has finished its work and waits at the end barrier."""
        if not self._advance(number, Phase.RUNNING, Phase.DONE):
            return []
        if self.state != "running" or any(m.phase is not Phase.DONE for m in self.members.values()):
            return []
        self._released = True
        return ["release"]

    def failed(self, number: int, what: str) -> list[Order]:
        """A member reports an exception; its exit follows."""
        self.members[number].failure = what
        return self._fail(
            f"{self._name(number)} failed {self._where(number, self.members[number].phase)}: {what}"
        )

    def exited(self, number: int, status: int) -> list[Order]:
        """A member's process has ended; ``status`` is its exit code, negative for a signal."""
        member = self.members[number]
        before = member.phase
        member.phase = Phase.EXITED
        if before is Phase.DONE and status == 0 and self._released:
            if self.over and self.state == "running":
                self.state = "done"
            return []
        return self._fail(f"{self._name(number)} {_how(status)} {self._where(number, before)}{_hint(status)}")

    def host_lost(self, host: str, what: str) -> list[Order]:
        """An agent is gone, and with it every member on its host."""
        orders = self._fail(f"agent on host {host} {what}")
        for member in self.members.values():
            if member.host == host:
                member.phase = Phase.EXITED
        return orders

    def interrupted(self) -> list[Order]:
        """The user wants to end the job."""
        if self.state != "running":
            return []
        self.state = "interrupted"
        self.cause = "interrupted by the user"
        return ["stop"]

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


def _how(status: int) -> str:
    if status >= 0:
        return f"exited early with code {status}"
    name = (
        signal.Signals(-status).name if -status in {int(s) for s in signal.Signals} else f"signal {-status}"
    )
    return f"was killed by {name}"


def _hint(status: int) -> str:
    if status != -signal.SIGKILL:
        return ""
    return "; if nobody killed it, the kernel may have run out of memory"
