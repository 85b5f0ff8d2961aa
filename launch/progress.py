"""How far a running experiment is: the state that displays draw."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import TypeAlias

Now: TypeAlias = Callable[[], float]
"""Seconds on a clock that never goes back; only differences count."""
LOST = "lost"
"""State of a host that has been given up."""


@dataclass
class Host:
    """What is known of one host of the job that runs."""

    members: tuple[int, ...]  # nodes, observer, timekeeper
    nodes: tuple[int, ...]
    state: str = "starting"
    alive: int | None = None  # its processes that live; None: unknown
    heard_s: float = 0.0


@dataclass(frozen=True)
class Stall:
    """A process that does not go on: what it does instead, and since when."""

    what: str
    since_s: float


@dataclass
class Job:
    """What is known of one (arm, seed)."""

    arm: str
    seed: int
    nodes: int
    max_rounds: int  # most that a node can reach; 0: unknown
    state: str = "waiting"
    message: str = ""
    started_s: float = 0.0
    ended_s: float | None = None
    rounds: list[int] = field(default_factory=list)
    losses: dict[int, float] = field(default_factory=dict)
    score: tuple[str, float, int] | None = None  # metric, mean over nodes, round
    incomplete: dict[int, dict[int, float]] = field(default_factory=dict)  # round -> node -> score
    hosts: dict[str, Host] = field(default_factory=dict)
    stalls: dict[int, Stall] = field(default_factory=dict)  # by member number
    lost: set[int] = field(default_factory=set)  # nodes that the others go on without

    def start(self, nodes: int, max_rounds: int, now_s: float) -> None:
        self.nodes, self.max_rounds, self.started_s, self.state = nodes, max_rounds, now_s, "running"
        self.rounds, self.lost = [0] * nodes, set()

    def reached(self, node: int, round_: int) -> None:
        """``node`` has finished ``round_`` rounds; what comes late does not turn it back."""
        self.rounds[node] = max(self.rounds[node], round_)

    def add_score(self, node: int, round_: int, metric: str, score: float) -> None:
        """Keep ``score``; a round counts once all that are left were evaluated in it and none later has."""
        if self.score is not None and round_ < self.score[2]:
            return
        scores = self.incomplete.setdefault(round_, {})
        scores[node] = score
        if self.left <= scores.keys():
            self.score = (metric, fmean(scores[node] for node in sorted(self.left)), round_)
            self.incomplete = {r: s for r, s in self.incomplete.items() if r >= round_}

    @property
    def left(self) -> set[int]:
        """Nodes that are not lost."""
        return set(range(self.nodes)) - self.lost

    @property
    def slowest(self) -> int:
        return min(self.rounds_of(), default=0)

    def rounds_of(self, nodes: Iterable[int] | None = None) -> list[int]:
        """Finished by those of ``nodes``, or of all, that are not lost."""
        return [
            self.rounds[i]
            for i in (range(len(self.rounds)) if nodes is None else nodes)
            if i not in self.lost
        ]

    def share(self) -> float:
        """How much of this job is behind us, 0 to 1."""
        if self.ended_s is not None:
            return 1.0
        if not self.max_rounds:
            return 0.0
        return min(1.0, sum(self.rounds_of()) / max(1, len(self.left) * self.max_rounds))

    def elapsed_s(self, now_s: float) -> float:
        return (now_s if self.ended_s is None else self.ended_s) - self.started_s

    def span(self, host: str | None = None) -> str:
        """``10..14 of 60``: rounds finished by the slowest and the fastest node, of all or of one host."""
        rounds = self.rounds_of(None if host is None else self.hosts[host].nodes)
        low, high = min(rounds, default=0), max(rounds, default=0)
        of = f" of {self.max_rounds}" if self.max_rounds else ""
        return f"{low if low == high else f'{low}..{high}'}{of}"

    def slowest_and_fastest(self, names: Iterable[str]) -> tuple[str, str]:
        """``h7 round 31`` and ``h2 round 40``: hosts of the nodes that are furthest behind and ahead.

        Of ``names``, the first of several; both empty where none of them has nodes.
        """
        rounds = {name: self.rounds_of(self.hosts[name].nodes) for name in names}
        rounds = {name: here for name, here in rounds.items() if here}
        if not rounds:
            return "", ""
        slow = min(rounds, key=lambda name: min(rounds[name]))
        fast = max(rounds, key=lambda name: max(rounds[name]))
        return f"{slow} round {min(rounds[slow])}", f"{fast} round {max(rounds[fast])}"

    def host_line(self, name: str) -> str:
        """``20 nodes, round 10..14 of 60, running``, of one host."""
        host = self.hosts[name]
        nodes = f"{len(host.nodes)} node{'' if len(host.nodes) == 1 else 's'}"
        return f"{nodes}, {f'round {self.span(name)}, ' if self.rounds_of(host.nodes) else ''}{host.state}"

    def quality(self) -> str:
        """The score, or the training loss as long as no evaluation is complete."""
        if self.score is not None:
            return f"{self.score[0]} {self.score[1]:.4g}"
        return f"train_loss {fmean(self.losses.values()):.4g}" if self.losses else ""


class Progress:
    """The state that both displays draw."""

    def __init__(self, now: Now) -> None:
        self.now = now
        self.started_s = now()
        self.jobs: dict[tuple[str, int], Job] = {}
        self.running: Job | None = None

    def plan(self, jobs: Sequence[tuple[str, int]], nodes: int, max_rounds: int) -> None:
        self.started_s = self.now()
        self.jobs = {(arm, seed): Job(arm, seed, nodes, max_rounds) for arm, seed in jobs}

    def start(self, arm: str, seed: int, nodes: int, max_rounds: int) -> Job:
        self.running = self.jobs.setdefault((arm, seed), Job(arm, seed, nodes, max_rounds))
        self.running.start(nodes, max_rounds, self.now())
        return self.running

    def end(self, arm: str, seed: int, state: str, message: str) -> Job:
        job = self.jobs[arm, seed]
        job.state, job.message, job.ended_s, job.losses, job.incomplete = state, message, self.now(), {}, {}
        job.stalls = {}
        self.running = None
        return job

    def progress(self, node: int, round_: int, train_loss: float | None) -> None:
        if self.running is not None:
            self.running.reached(node, round_)
            if train_loss is not None:
                self.running.losses[node] = train_loss

    def evaluated(self, node: int, round_: int, metric: str, score: float) -> None:
        if self.running is not None:
            self.running.reached(node, round_)
            self.running.add_score(node, round_, metric, score)

    def placed(self, members: Mapping[str, Sequence[int]]) -> None:
        job, now_s = self.running, self.now()
        if job is not None:
            job.hosts = {
                name: Host(tuple(here), tuple(m for m in here if m < job.nodes), heard_s=now_s)
                for name, here in members.items()
            }

    def host(self, name: str, state: str | None, alive: int | None) -> bool:
        """Note it; True where the state is another than before."""
        known = None if self.running is None else self.running.hosts.get(name)
        if known is None:
            return False
        before, known.state = known.state, known.state if state is None else state
        known.alive = known.alive if alive is None else alive
        return before != known.state

    def heard(self, name: str) -> None:
        if self.running is not None and name in self.running.hosts:
            self.running.hosts[name].heard_s = self.now()

    def stalled(self, member: int, what: str | None, for_s: float) -> None:
        if self.running is None:
            return
        if what is None:
            self.running.stalls.pop(member, None)
        else:
            self.running.stalls[member] = Stall(what, self.now() - for_s)

    def lost(self, node: int) -> None:
        """The others go on without ``node``."""
        if self.running is not None:
            self.running.lost.add(node)
            self.running.losses.pop(node, None)
            self.running.stalls.pop(node, None)

    def name(self, member: int) -> str:
        """``node 3 on host h2``; the host where one was named."""
        job = self.running
        if job is None or member < job.nodes:
            who = f"node {member}"
        else:
            who = "the observer" if member == job.nodes else "the timekeeper"
        on = [name for name, host in (job.hosts if job else {}).items() if member in host.members]
        return f"{who} on host {on[0]}" if on else who

    def host_lines(self) -> list[str]:
        """A line for every host where there are several."""
        job = self.running
        if job is None or len(job.hosts) < 2:
            return []
        width = max(map(len, job.hosts))
        return [f"host {name:{width}}  {job.host_line(name)}" for name in job.hosts]

    def agreed(self) -> str:
        """The state of all hosts that are not lost; empty while it is not the same."""
        states = {host.state for host in self._present().values()}
        return states.pop() if len(states) == 1 else ""

    def counted(self) -> str:
        """``10 hosts``, or ``9 of 10 hosts`` where one is lost."""
        hosts = len(self.running.hosts) if self.running is not None else 0
        present = len(self._present())
        return f"{hosts} hosts" if present == hosts else f"{present} of {hosts} hosts"

    def host_summary(self) -> list[str]:
        """``10 hosts: slowest h7 round 31, fastest h2 round 40``, and those whose state few others have.

        Nothing where there is one host.
        """
        job = self.running
        if job is None or len(job.hosts) < 2:
            return []
        present = self._present()
        slow, fast = job.slowest_and_fastest(present)
        usual = Counter(host.state for host in present.values()).most_common(1)
        odd = [name for name, host in job.hosts.items() if not usual or host.state != usual[0][0]]
        spread = f": slowest {slow}, fastest {fast}" if slow else ""
        return [f"{self.counted()}{spread}"] + [f"host {name}  {job.host_line(name)}" for name in odd]

    def _present(self) -> dict[str, Host]:
        """Hosts that are not lost."""
        hosts = self.running.hosts if self.running is not None else {}
        return {name: host for name, host in hosts.items() if host.state != LOST}

    def stall_lines(self) -> list[str]:
        """``node 3 on host h2 is stopped since 12 s``, one for each."""
        stalls = self.running.stalls.items() if self.running is not None else ()
        return [f"{self.name(m)} {s.what} since {self.now() - s.since_s:.0f} s" for m, s in stalls]

    def remaining(self) -> str:
        """``about 0:01:20 left`` for the experiment, every job weighing the same; empty while unknown."""
        share = sum(job.share() for job in self.jobs.values() if job.state != "waiting") / max(
            1, len(self.jobs)
        )
        if share <= 0.0 or share >= 1.0:
            return ""
        return f"about {duration((self.now() - self.started_s) * (1 - share) / share)} left"


def duration(seconds: float) -> str:
    """``h:mm:ss``."""
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
