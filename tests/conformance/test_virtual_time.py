"""Emulated time depends on nothing real: not on who speaks first, who runs when, or what comes when."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decentral.errors import Deadlock
from decentral.messages import Kind, Message
from decentral.network.model import INFINITE_NS, NetworkModel
from decentral.speech import ANY, Put, Role, Speech
from decentral.virtual import VirtualMedium
from launch.executors import inline
from tests.asynchronous import ROUND_S, contender, star
from tests.emulated import (
    Account,
    Inline,
    Jumbled,
    Leave,
    Script,
    account,
    item,
    keep,
    message,
    network,
    play,
    train,
    until,
)
from tests.harness import Result, run

SEEDS = range(3)


@dataclass(frozen=True)
class Round:
    """One local round of a node.

    Attributes:
        compute_ns: its compute window.
        out: (how many nodes on, bytes, whether it is a ping) of what it queues then.
        flush: what is queued is dropped first.
        then: what it does next: ``collect``, wait for ``any`` message, or ``ask`` the next node.
        patience_ns: how long it waits; None: for ever.
    """

    compute_ns: int
    out: tuple[tuple[int, int, bool], ...]
    flush: bool
    then: str
    patience_ns: int | None


@dataclass(frozen=True)
class Case:
    """What all nodes do on which network."""

    model: NetworkModel
    rounds: tuple[tuple[Round, ...], ...]
    drop: bool
    limit_ns: int


def rounds(n: int) -> st.SearchStrategy[Round]:
    return st.builds(
        Round,
        compute_ns=st.integers(1, 120),
        out=st.lists(st.tuples(st.integers(1, n - 1), st.integers(0, 25), st.booleans()), max_size=4).map(
            lambda out: tuple((to, 4 * size, ping) for to, size, ping in out)
        ),
        flush=st.booleans(),
        then=st.sampled_from(["collect", "collect", "any", "ask"]),
        patience_ns=st.one_of(st.none(), st.integers(0, 400), st.integers(100, 400)),
    )


@st.composite
def cases(draw: st.DrawFn) -> Case:
    n = draw(st.integers(2, 4))
    model = network(
        n,
        latency_ns=draw(st.sampled_from([0, 1, 30])),
        rates=draw(st.lists(st.sampled_from([1.0, 0.4]), min_size=n, max_size=n)),
        jitter_ns=draw(st.sampled_from([0, 0, 20])),
        loss=draw(st.sampled_from([0.0, 0.0, 0.3])),
        concurrency=draw(st.sampled_from([1, 1, 2, None])),
        contention=draw(st.sampled_from(["uplink", "both"])),
        abort_on_flush=draw(st.booleans()),
        overhead_ns=draw(st.sampled_from([0, 3])),
    )
    plans = st.lists(rounds(n), min_size=1, max_size=5).map(tuple)
    plan = draw(st.tuples(*[plans] * n))
    return Case(model, plan, draw(st.booleans()), draw(st.sampled_from([INFINITE_NS, 250])))


def script(case: Case, node: int) -> Script:
    """A node that does what its rounds say."""
    n, plan = case.model.n, case.rounds[node]
    now = promised = sequence = 0
    for t, each in enumerate(plan):
        if now >= case.limit_ns:
            break
        end = now + each.compute_ns
        if promised < end:
            yield until(node, now, end)
        now = end
        out = [
            item((node + on) % n, size, sequence + k, Role.PING if ping else Role.LATEST, tag=t, k=k)
            for k, (on, size, ping) in enumerate(each.out)
        ]
        puts = [Put(now, each.flush, out)]
        sequence += len(out)
        tag, count, wake = ANY, 0, now
        if each.then != "collect":
            count, wake = 1, INFINITE_NS if each.patience_ns is None else now + each.patience_ns
        if each.then == "ask":
            tag = -2 - sequence
            puts.append(Put(now, False, [item((node + 1) % n, 24, sequence, Role.REQUEST)]))
            sequence += 1
        then = plan[t + 1].compute_ns if t + 1 < len(plan) else 0
        now = (yield Speech(node, now, puts, tag, count, wake, then)).at_ns
        promised = now + (0 if now >= case.limit_ns else then)
    yield Leave(now, case.drop)


def told(case: Case, chance: random.Random | None) -> tuple[list[Account], str | None, Any]:
    """All that the timekeeper tells if nodes speak in random order."""
    timekeeper, links, ledger = keep(case.model, limit_ns=case.limit_ns)
    scripts = [script(case, node) for node in range(case.model.n)]
    if chance is None:
        heard, deadlock = play(timekeeper, scripts)
    else:
        heard, deadlock = play(timekeeper, scripts, chance.randrange, hold=lambda: chance.random() < 0.3)
    links.close(timekeeper.now_ns)
    ledger.check()
    total = account(ledger)
    assert total["made"] == sum(total.values()) - total["made"]
    used = {arrived for each in heard for answer in each.answers for arrived in answer[2]}
    used |= {(one.requester, one.request) for each in heard for one in each.served}
    for node, each in enumerate(heard):
        needed = {sequence for sender, sequence in used if sender == node}
        assert needed <= set(each.started)
        # Whether a transfer that nobody needs before the end is announced depends on who spoke when.
        heard[node] = each._replace(started=[number for number in each.started if number in needed])
    return heard, deadlock, (timekeeper.now_ns, list(ledger.rows()))


@given(cases(), st.randoms(use_true_random=True))
@settings(max_examples=250)
def test_answers_do_not_depend_on_the_order_in_which_nodes_speak(case: Case, chance: random.Random) -> None:
    expected = told(case, None)
    for _ in range(3):
        assert told(case, chance) == expected


@given(cases())
@settings(max_examples=100)
def test_what_arrives_arrives_once_and_in_order(case: Case) -> None:
    heard, deadlock, _ = told(case, None)
    for each in heard:
        by_sender = defaultdict(list)
        for _, _, arrived, _ in each.answers:
            for sender, sequence in arrived:
                by_sender[sender, sequence < 0].append(abs(sequence))
        for numbers in by_sender.values():
            assert numbers == sorted(set(numbers))
        served = [(one.requester, one.request) for one in each.served]
        assert len(served) == len(set(served))
        assert [one.reply for one in each.served] == [-1 - k for k in range(len(served))]
        times = [answer[0] for answer in each.answers]
        assert times == sorted(times)
        assert deadlock is not None or each.stop is not None
        assert each.stop is None or each.stop[0] >= max(times)


class Chain:
    """A node whose state depends on the order of everything that happens to it.

    It checks that every payload is that of the message it stands for.
    """

    def __init__(self, case: Case, node: int) -> None:
        self.case = case
        self.node = node
        self.state = node
        self.log: list[tuple[Any, ...]] = []
        self.sequence = 0

    def changed(self, *by: int) -> None:
        for each in by:
            self.state = (31 * self.state + each + 1) % 100_003

    def made(self, k: int, size: int, kind: Kind = Kind.FRAGMENT) -> Message:
        one = message(self.node, 0, k, size, float(self.sequence))
        self.sequence += 1
        return one._replace(kind=kind, age=self.state)

    def serve(self, requester: int, request: Message | None) -> Message:
        if request is not None:
            assert (request.sender, request.kind) == (requester, Kind.REQUEST)
            self.changed(requester, request.age)
        reply = message(self.node, 0, 0, 6)
        return reply._replace(kind=Kind.FRAGMENT if request is None else Kind.REPLY, age=self.state)

    def take(self, messages: list[Message]) -> None:
        for one in messages:
            assert one.sequence < 0 or (one.values == one.sequence).all()
            self.changed(one.sender, one.sequence % 1000, one.age)

    def __call__(self, medium: VirtualMedium) -> None:
        n, plan = self.case.model.n, self.case.rounds[self.node]
        medium.serve(self.serve)
        for t, each in enumerate(plan):
            if medium.now_ns() >= self.case.limit_ns:
                break
            self.take(medium.compute(train, each.compute_ns)[1])
            for flush, role in ((each.flush, Role.LATEST), (False, Role.PING)):
                out = [
                    ((self.node + on) % n, self.made(k, size // 4))
                    for k, (on, size, ping) in enumerate(each.out)
                    if ping == (role is Role.PING)
                ]
                medium.put(out, role=role, flush=flush)
            then = plan[t + 1].compute_ns if t + 1 < len(plan) else 0
            if each.then == "collect":
                self.take(medium.collect(then))
            else:
                tag = ANY
                if each.then == "ask":
                    tag = medium.request((self.node + 1) % n, self.made(0, 6, Kind.REQUEST))
                until_ns = INFINITE_NS if each.patience_ns is None else medium.now_ns() + each.patience_ns
                self.take(
                    medium.wait(tag=tag, count=1, until_ns=until_ns, then_ns=then, what=lambda: "anything")
                )
            self.changed(t)
            self.log.append((medium.now_ns(), self.state, medium.totals))


def lived(case: Case, jumble: int | None) -> tuple[list[Any], str | None, Any]:
    """All that happens to nodes on the whole stack, in some order of real time."""
    made = Inline(case.model, limit_ns=case.limit_ns, jumble=jumble)
    nodes = [Chain(case, node) for node in range(case.model.n)]
    deadlock = None
    try:
        made.run(*nodes, drop=case.drop)
    except Deadlock as error:
        deadlock = str(error)
    made.links.close(made.timekeeper.now_ns)
    made.ledger.check()
    states = [(node.log, None if deadlock else node.state) for node in nodes]
    totals = None if deadlock else [medium.totals for medium in made.media]
    return states, deadlock, (totals, made.timekeeper.now_ns, list(made.ledger.rows()))


@given(cases(), st.integers(0, 1000))
@settings(max_examples=100)
def test_nodes_live_the_same_lives_in_whatever_order_they_really_run(case: Case, seed: int) -> None:
    expected = lived(case, None)
    for jumble in (seed, seed + 1):
        assert lived(case, jumble) == expected


IMPATIENT = {"request_timeout_s": 4 * ROUND_S}
ALGORITHMS: dict[str, dict[str, Any]] = {
    "divshare": {},
    "swift_push": {},
    "swift": {},
    "gossip": {},
    "adpsgd": IMPATIENT,
    "adpsgd_pingpong": {},
    "swarm": IMPATIENT,
}
NETWORKS: dict[str, dict[str, Any]] = {
    "stragglers": star(stragglers=3, latency_ms=0.02),
    "both-all": star(stragglers=3, contention="both", concurrency="all", abort_on_flush=True),
    "loss": star(stragglers=3, loss=0.2, jitter_ms=0.01),
}
REAL = {"wall_s", "pid", "host", "start_unix_s", "total_meta", "run"}


def emulated(result: Result) -> list[list[dict[str, Any]]]:
    """All that nodes logged except what is real."""
    return [
        [{key: value for key, value in line.items() if key not in REAL} for line in lines]
        for lines in [*result.nodes, sorted_metrics(result)]
    ]


def sorted_metrics(result: Result) -> list[dict[str, Any]]:
    """Rounds can be scored in any order; each has its time."""
    return sorted(
        result.metrics, key=lambda line: (line["event"], line.get("time_s", 0.0), line.get("round", 0))
    )


@pytest.mark.parametrize("where", NETWORKS)
@pytest.mark.parametrize("name", ALGORITHMS)
def test_algorithms_do_not_see_who_really_runs_when(
    name: str, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute = {"time_per_round": ROUND_S, "slow_nodes": 2, "slow_factor": 3.0, "jitter": 0.3}
    made = contender(name, ALGORITHMS[name], network=NETWORKS[where], compute=compute, rounds=6)
    usual = run(made, tmp_path / "usual")
    for seed in SEEDS:
        monkeypatch.setattr(Jumbled, "seed", seed)
        monkeypatch.setattr(inline, "Scheduler", Jumbled)
        jumbled = run(made, tmp_path / str(seed))
        assert jumbled.models.tobytes() == usual.models.tobytes()
        assert emulated(jumbled) == emulated(usual)


@pytest.mark.parametrize("name", ["mosaic", "dpsgd", "epidemic"])
def test_rounds_do_not_see_who_really_runs_when(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute = {"time_per_round": ROUND_S, "slow_nodes": 2, "slow_factor": 3.0, "jitter": 0.3}
    made = contender(
        name,
        network=star(stragglers=3, latency_ms=0.02, jitter_ms=0.05),
        topology={"name": "regular", "settings": {"degree": 3}},
        compute=compute,
        run={"time_limit_s": 9.5 * ROUND_S},
    )
    usual = run(made, tmp_path / "usual")
    monkeypatch.setattr(inline, "Scheduler", Jumbled)
    jumbled = run(made, tmp_path / "jumbled")
    assert jumbled.models.tobytes() == usual.models.tobytes()
    assert emulated(jumbled) == emulated(usual)
