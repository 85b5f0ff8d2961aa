"""Lost nodes in emulated time: who is given up when, what becomes of messages, and nobody waits for ever."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decentral.losses import Losses
from decentral.mixing import Part, metropolis_hastings, weighted
from decentral.network.model import INFINITE_NS
from decentral.speech import Answer, Gone, Put, Role, Served, Speech, Stop, Telling, Totals
from tests.emulated import account, forever, item, keep, network, until

PATIENCE = 1000
NOTHING = Totals(0, 0, 0, 0)


def answers(tellings: Iterable[Telling]) -> list[tuple[int, int, bool, list[tuple[int, int]]]]:
    """(node, time, complete, arrived) of every answer among ``tellings``."""
    return [
        (each.node, each.at_ns, each.complete, list(each.arrived))
        for each in tellings
        if isinstance(each, Answer)
    ]


# The timekeeper


def test_who_waits_is_answered_when_the_lost_node_is_given_up() -> None:
    """Node 2 ends in its compute window; node 0 waits for it and for node 1, whose message comes at 110."""
    timekeeper, _, ledger = keep(network(3), patience_ns=PATIENCE, eager=True)
    timekeeper.speak(forever(0, 0, tag=0, count=2, then_ns=50))
    timekeeper.speak(until(1, 0, 100))
    timekeeper.speak(until(2, 0, 5000))
    assert answers(timekeeper.advance()) == [(1, 100, True, [])]
    timekeeper.speak(until(1, 100, 4000, Put(100, False, [item(0, 10, 0, Role.KEEP, tag=0)])))
    assert answers(timekeeper.advance()) == [(1, 4000, True, [])]
    timekeeper.speak(until(1, 4000, 4500))
    assert answers(timekeeper.advance()) == [(1, 4500, True, [])]
    assert timekeeper.lose(2) == 4500
    tellings = timekeeper.advance()
    assert tellings[:2] == [Gone(0, 2, 5500), Gone(1, 2, 5500)], "they hear of it at once"
    assert answers(tellings) == [], "node 1 may still put something"
    timekeeper.speak(until(1, 4500, 9000))
    assert answers(timekeeper.advance()) == [(0, 5500, False, [(1, 0)])]
    timekeeper.speak(until(0, 5500, 5500, then_ns=50))
    assert answers(timekeeper.advance()) == [(0, 5500, True, [])]
    assert account(ledger)["delivered"] == 1


def test_who_waits_later_is_interrupted_once() -> None:
    """Node 1 has been given up long before node 0, which may not have looked, waits for it."""
    timekeeper, _, _ = keep(network(3), patience_ns=10)
    for node in range(3):
        timekeeper.speak(until(node, 0, 100))
    assert len(answers(timekeeper.advance())) == 3
    timekeeper.lose(1)
    timekeeper.speak(until(2, 100, 9000))
    timekeeper.speak(until(0, 100, 500))
    assert answers(timekeeper.advance()) == [(0, 500, True, [])], "who does not wait is not interrupted"
    timekeeper.speak(forever(0, 500, tag=3))
    assert answers(timekeeper.advance()) == [(2, 9000, True, [])], "it was told before its last answer"
    timekeeper.lose(2)
    assert answers(timekeeper.advance()) == [(0, 9010, False, [])]


def test_a_loss_that_came_during_a_compute_window_interrupts_the_wait_after_it() -> None:
    timekeeper, _, _ = keep(network(3), patience_ns=10)
    timekeeper.speak(until(0, 0, 0, then_ns=5000))
    timekeeper.speak(until(1, 0, 100))
    timekeeper.speak(until(2, 0, 9000))
    assert answers(timekeeper.advance()) == [(0, 0, True, []), (1, 100, True, [])]
    timekeeper.lose(1)
    assert [each for each in timekeeper.advance() if isinstance(each, Gone)] == [
        Gone(0, 1, 110),
        Gone(2, 1, 110),
    ]
    timekeeper.speak(forever(0, 5000, tag=0))
    assert answers(timekeeper.advance()) == [(0, 5000, False, [])], "it may not have read of the loss"


def test_a_time_limit_that_comes_first_is_no_interruption() -> None:
    """The answer is due at its own time, with the rest that was promised."""
    timekeeper, _, _ = keep(network(3), patience_ns=400)
    timekeeper.speak(Speech(0, 0, [], 0, 1, 300, 1000))
    timekeeper.speak(until(1, 0, 9000))
    timekeeper.lose(2)
    assert answers(timekeeper.advance()) == [(0, 300, False, [])]
    timekeeper.speak(until(0, 1300, 1300))
    assert answers(timekeeper.advance()) == [(0, 1300, True, [])]


def test_what_a_lost_node_had_sent_and_what_is_sent_to_it() -> None:
    """At its loss: one arrived, one on its way, one in transfer, two queued; one of two to it is there."""
    timekeeper, links, ledger = keep(network(3, latency_ns=50), patience_ns=PATIENCE)
    queue = [item(1, 100, k, k=k) for k in range(5)]
    timekeeper.speak(until(0, 0, 10_000, Put(0, False, queue)))
    timekeeper.speak(until(1, 0, 10_000, Put(0, False, [item(0, 10, 0)]), Put(300, False, [item(0, 10, 1)])))
    timekeeper.speak(until(2, 0, 240))
    assert answers(timekeeper.advance()) == [(2, 240, True, [])]
    timekeeper.speak(until(2, 240, 240))
    timekeeper.advance()
    assert links.sent[0] == 2
    assert timekeeper.lose(0) == 240
    timekeeper.speak(until(2, 240, 20_000))
    told = timekeeper.advance()
    assert answers(told) == [(1, 10_000, True, [(0, 0)])], "nothing more of it arrives"
    ledger.check()
    counts = account(ledger)
    assert counts["made"] == 7
    assert counts["delivered"] == 2, "one of either end, before the loss"
    assert counts["dropped_lost_node"] == 5
    assert links.dropped[0] == 3, "what was on its way had been sent"
    assert links.sent[1] == 2, "links to a lost node are used as ever"


def test_requests_to_a_lost_node_and_of_it() -> None:
    """Node 0 asks node 1, which asks node 2; node 1 is lost with the request under way and its own served."""
    timekeeper, _, ledger = keep(network(3), patience_ns=PATIENCE)
    timekeeper.speak(forever(0, 0, Put(0, False, [item(1, 100, 0, Role.REQUEST)]), tag=-2))
    timekeeper.speak(forever(1, 0, Put(0, False, [item(2, 30, 0, Role.REQUEST)]), tag=-2))
    timekeeper.speak(until(2, 0, 50))
    (telling, *_) = [each for each in timekeeper.advance() if isinstance(each, Answer) and each.node == 2]
    assert telling.served == [Served(1, 0, -1, False)]
    timekeeper.lose(1)
    timekeeper.speak(until(2, 50, 5000))
    (answer,) = [each for each in timekeeper.advance() if isinstance(each, Answer) and each.node == 0]
    assert (answer.at_ns, answer.complete) == (1050, False)
    timekeeper.leave(0, 1050, drop=False)
    timekeeper.advance()
    ledger.check()
    counts = account(ledger)
    assert counts["made"] == 3, "two requests and one answer"
    assert counts["dropped_lost_node"] == 2, "the request to it, and the answer to it"


def test_a_loss_before_the_first_word_after_the_last_and_after_the_end() -> None:
    timekeeper, _, ledger = keep(network(4), patience_ns=PATIENCE)
    assert timekeeper.lose(0) == 0
    assert timekeeper.lose(0) == 0, "twice is once"
    timekeeper.speak(until(0, 0, 10))  # its last words may be read after its end
    for node in (1, 2, 3):
        timekeeper.speak(until(node, 0, 100, Put(0, False, [item((node + 1) % 4, 10, 0)])))
    assert [(node, at) for node, at, *_ in answers(timekeeper.advance())] == [(1, 100), (2, 100), (3, 100)]
    timekeeper.leave(1, 100, drop=True)
    timekeeper.lose(1)
    timekeeper.leave(1, 100, drop=True)
    timekeeper.leave(2, 100, drop=True)
    assert not timekeeper.over
    timekeeper.leave(3, 100, drop=True)
    stops = [each for each in timekeeper.advance() if isinstance(each, Stop)]
    assert [(stop.node, stop.at_ns) for stop in stops] == [(2, 100), (3, 100)]
    timekeeper.lose(2)
    assert timekeeper.advance() == [Gone(3, 2, 1100)], "who still waits for a payload of it must hear"
    ledger.check()


def test_the_last_to_leave_is_lost_instead() -> None:
    """Time had gone on for its sake, beyond the others' end."""
    timekeeper, _, ledger = keep(network(2), patience_ns=PATIENCE)
    timekeeper.speak(until(0, 0, 100))
    timekeeper.speak(until(1, 0, 100))
    timekeeper.advance()
    timekeeper.leave(0, 100, drop=True)
    timekeeper.speak(until(1, 100, 700, Put(100, False, [item(0, 10_000, 0)])))
    assert answers(timekeeper.advance()) == [(1, 700, True, [])]
    timekeeper.lose(1)
    assert [type(each) for each in timekeeper.advance()] == [Gone, Stop]
    assert (timekeeper.over, timekeeper.now_ns) == (True, 700)
    ledger.check()


# Random schedules


class Rounds:
    """A scripted synchronous node on a full graph, which goes on without whom it hears to be lost."""

    def __init__(self, me: int, n: int, rounds: int, computes: Sequence[int]) -> None:
        self.me, self.n, self.rounds, self.computes = me, n, rounds, computes
        self.t = self.now = self.sequence = 0
        self.lost: dict[int, int] = {}
        self.here: defaultdict[int, set[int]] = defaultdict(set)
        self.computing = True
        self.left = False

    def word(self) -> Speech | None:
        """What it tells next; None: it leaves."""
        if self.t == self.rounds:
            return None
        if self.computing:
            return until(self.me, self.now, self.now + self.computes[self.t])
        puts = []
        others = [other for other in range(self.n) if other != self.me]
        if not self.here[self.t] & {self.me}:
            self.here[self.t].add(self.me)  # as a mark that it has sent
            first = self.t * (self.n - 1)
            queue = [item(j, 20, first + k, Role.KEEP, tag=self.t) for k, j in enumerate(others)]
            puts = [Put(self.now, False, queue)]
        missing = [
            j for j in others if j not in self.here[self.t] and self.lost.get(j, INFINITE_NS) > self.now
        ]
        wake = INFINITE_NS if missing else self.now
        return Speech(self.me, self.now, puts, self.t, len(missing), wake, 0)

    def hear(self, answer: Answer) -> None:
        self.now = answer.at_ns
        for sender, sequence in answer.arrived:
            assert sender not in self.lost or self.lost[sender] >= answer.at_ns - PATIENCE
            self.here[sequence // (self.n - 1)].add(sender)
        if self.computing:
            self.computing = False
        elif answer.complete:
            self.t += 1
            self.computing = True


@given(st.integers(2, 6), st.integers(0, 1 << 30))
def test_whoever_is_lost_whenever_nobody_waits_for_ever(n: int, seed: int) -> None:
    """Nodes speak in any order; some end between any two words; the others finish all rounds."""
    chance = random.Random(seed)
    timekeeper, _, ledger = keep(
        network(n, latency_ns=chance.choice([0, 7, 300])),
        patience_ns=chance.choice([1, 60, 4000]),
        eager=True,
    )
    rounds = 4
    nodes = [Rounds(i, n, rounds, [chance.randint(1, 200) for _ in range(rounds)]) for i in range(n)]
    # Who is lost, and after how many words.
    doomed = {
        node: chance.randint(0, 2 * rounds) for node in chance.sample(range(n), chance.randint(0, n - 1))
    }
    inbox: dict[int, list[Telling]] = {i: [] for i in range(n)}
    may_speak = set(range(n))
    words: Counter[int] = Counter()
    alive = set(range(n))
    for _ in range(10_000):
        able = sorted((may_speak | {i for i in alive if inbox[i]}) & alive)
        if not able:
            break
        me = chance.choice(able)
        for telling in inbox[me]:
            if isinstance(telling, Gone):
                nodes[me].lost[telling.peer] = telling.at_ns
            elif isinstance(telling, Answer):
                nodes[me].hear(telling)
                may_speak.add(me)
        inbox[me] = []
        # Any of the doomed may end now, whatever it was about to do.
        for node, number in list(doomed.items()):
            if node in alive and words[node] >= number and chance.random() < 0.7:
                alive.discard(node)
                timekeeper.lose(node)
        if me in may_speak & alive:
            may_speak.discard(me)
            words[me] += 1
            word = nodes[me].word()
            if word is None:
                timekeeper.leave(me, nodes[me].now, drop=False)
                nodes[me].left = True
            else:
                timekeeper.speak(word)
        for telling in timekeeper.advance():
            assert telling.node in alive or isinstance(telling, Gone)
            inbox[telling.node].append(telling)
    assert all(nodes[i].t == rounds and nodes[i].left for i in alive)
    assert timekeeper.over
    ledger.check()
    counts = account(ledger)
    fates = ("delivered", "dropped_lost_node", "dropped_end", "in_flight")
    assert counts["made"] == sum(counts[fate] for fate in fates)
    if len(alive) == n:
        assert counts["delivered"] == n * (n - 1) * rounds


# What a node knows of losses


def test_losses_are_known_at_once_and_hold_from_their_time_on() -> None:
    now = [0.0]
    losses = Losses(clock=lambda: now[0])
    assert not losses
    losses.add(3, 500, 2.0)
    now[0] = 1.5
    losses.add(1, 900, 2.0)
    assert dict(losses) == {3: 500, 1: 900}
    assert (losses.by(499), losses.by(500), losses.by(900)) == (frozenset(), {3}, {1, 3})
    assert not losses.silent(3)
    assert losses.grace_s() == pytest.approx(0.5)
    now[0] = 2.0
    assert losses.silent(3)
    assert not losses.silent(1)
    assert not losses.silent(0), "it lives"
    assert losses.grace_s() == pytest.approx(1.5)
    now[0] = 4.0
    assert losses.grace_s() is None


# Weights


@given(st.integers(3, 8), st.integers(0, 999))
def test_the_weight_of_a_lost_neighbor_stays_with_the_node(n: int, seed: int) -> None:
    """Metropolis-Hastings weights of the whole graph: what is left is doubly stochastic, whoever is lost."""
    chance = random.Random(seed)
    edges = {(i, (i + 1) % n) for i in range(n)} | {
        (i, j) for i in range(n) for j in range(i) if chance.random() < 0.4
    }
    graph = [sorted({b for a, b in edges if a == i} | {a for a, b in edges if b == i}) for i in range(n)]
    lost = set(chance.sample(range(n), chance.randint(1, n - 2)))
    left = [i for i in range(n) if i not in lost]
    matrix = np.zeros((len(left), len(left)))
    for column, j in enumerate(left):
        for row, i in enumerate(left):
            values = np.zeros(1, dtype=np.float32) + (i == j)
            mix = weighted(metropolis_hastings(len(graph[i]), {k: len(graph[k]) for k in graph[i]}))
            came = [k for k in graph[i] if k not in lost]
            parts = [Part(k, 0, slice(0, 1), np.full(1, k == j, dtype=np.float32)) for k in came]
            matrix[row, column] = mix(values, parts)[0]
    np.testing.assert_allclose(matrix.sum(axis=0), 1, atol=1e-6)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-6)
    assert matrix.min() >= 0
