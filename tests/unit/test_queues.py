"""Queues: every message is accounted for, whatever happens in whatever order."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from decentral.errors import RunFailed
from decentral.medium import Outgoing
from decentral.messages import Message
from decentral.queues import InQueue, Key, OutQueue, Traffic
from decentral.speech import Role
from decentral.virtual import VirtualMedium
from tests.emulated import Inline, account, network, train

SENDERS = st.integers(0, 3)
FRAGMENTS = st.integers(0, 2)
ROUNDS = st.integers(0, 4)


def message(sender: int = 0, round_: int = 0, fragment: int = 0, size: int = 1) -> Message:
    return Message(sender, round_, fragment, np.zeros(size, dtype=np.float32), b"mapmapma")


OUTGOING = st.lists(
    st.builds(
        lambda to, k, size: (to, message(fragment=k, size=size)), SENDERS, FRAGMENTS, st.integers(0, 5)
    ),
    max_size=6,
)


def after(body: list[tuple[str, list[Outgoing]]]) -> tuple[Counter[str], Traffic]:
    """What became of what was put every 2 ns; a byte takes one, and messages have 4 and 8 bytes."""
    made = Inline(network(5))
    traffic = Traffic()

    def sender(medium: VirtualMedium) -> None:
        queue = OutQueue(medium, traffic, node=0, n=100)
        for how, items in body:
            (queue.extend if how == "extend" else queue.replace)(iter(items))
            medium.compute(train, 2)

    made.run(sender, *[lambda medium: None] * 4, drop=True)
    return account(made.ledger), traffic


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["extend", "replace"]),
            st.lists(st.tuples(st.integers(1, 4), st.sampled_from([1, 2])), max_size=4),
        ),
        max_size=8,
    )
)
def test_an_out_queue_is_sent_in_order_and_emptied_by_a_flush(
    puts: list[tuple[str, list[tuple[int, int]]]],
) -> None:
    """Against a list and a clock: transfers run one after the other, a flush drops those not yet begun."""
    body = [
        (how, [(to, message(0, 0, k, size)) for k, (to, size) in enumerate(items)]) for how, items in puts
    ]
    total, traffic = after(body)
    queue: list[int] = []
    free_ns = flushed = 0
    for t, (how, items) in enumerate(body):
        now_ns = 2 * t
        while queue and free_ns < now_ns:
            free_ns += queue.pop(0)
        if how == "replace":
            flushed += len(queue)
            queue = []
        if not queue:
            free_ns = max(free_ns, now_ns)
        queue += [one.nbytes for _, one in items]
        if queue and free_ns <= now_ns:
            free_ns += queue.pop(0)
    made = [one for _, items in body for _, one in items]
    assert (traffic.made, traffic.made_bytes) == (len(made), sum(one.nbytes for one in made))
    assert total["made"] == traffic.made
    assert total["dropped_flush"] == flushed
    assert total["made"] == sum(total.values()) - total["made"]


def test_an_out_queue_counts_what_it_puts_and_asks_for() -> None:
    traffic = Traffic()
    medium = Inline(network(2)).media[0]
    queue = OutQueue(medium, traffic, node=0, n=100)
    queue.put([(1, message(0, size=3)), (1, message(0, size=2))], role=Role.KEEP)
    queue.count([(1, message(0, size=5))])
    assert (traffic.made, traffic.made_bytes) == (3, 40)


class RoundsMachine(RuleBasedStateMachine):
    """``InQueue`` of a synchronous algorithm: rounds are kept apart and nothing is lost."""

    def __init__(self) -> None:
        super().__init__()
        self.traffic = Traffic()
        self.queue = InQueue(self.traffic, keep_rounds=True)
        self.model: list[Message] = []
        self.aggregated = self.discarded = self.received = 0

    def of_round(self, round_: int) -> list[Message]:
        return [item for item in self.model if item.round == round_]

    @rule(sender=SENDERS, round_=ROUNDS, fragment=FRAGMENTS)
    def put(self, sender: int, round_: int, fragment: int) -> None:
        item = message(sender, round_, fragment)
        self.queue.put(item)
        self.model.append(item)
        self.received += 1

    @rule(round_=ROUNDS)
    def take_round(self, round_: int) -> None:
        expected = sorted(self.of_round(round_), key=lambda item: (item.sender, item.fragment))
        taken = self.queue.take_round(round_)
        assert [id(item) for item in taken] == [id(item) for item in expected]
        self.model = [item for item in self.model if item.round != round_]
        self.aggregated += len(taken)

    @rule(round_=ROUNDS, keys=st.lists(st.tuples(SENDERS, FRAGMENTS), max_size=8))
    def look_for_missing(self, round_: int, keys: list[Key]) -> None:
        expected = Counter(keys)
        here = Counter((item.sender, item.fragment) for item in self.of_round(round_))
        assert self.queue.missing(round_, expected) == expected - here
        assert expected == Counter(keys)

    @rule()
    def newest_is_refused(self) -> None:
        for newest in (self.queue.take_latest, self.queue.peek_latest, self.queue.take_newest):
            with pytest.raises(RunFailed, match="synchronous = True"):
                newest()

    @rule()
    def discard(self) -> None:
        self.queue.discard()
        self.discarded += len(self.model)
        self.model = []

    @invariant()
    def everything_received_is_somewhere(self) -> None:
        traffic = self.traffic
        for round_ in range(6):
            assert self.queue.arrived(round_) == len(self.of_round(round_))
        assert self.queue.held == len(self.model)
        assert traffic.replaced == 0
        assert (traffic.received, traffic.aggregated, traffic.discarded) == (
            self.received,
            self.aggregated,
            self.discarded,
        )
        assert traffic.received == traffic.aggregated + traffic.discarded + self.queue.held


class LatestMachine(RuleBasedStateMachine):
    """``InQueue`` of an asynchronous algorithm: the newest per (sender, fragment)."""

    def __init__(self) -> None:
        super().__init__()
        self.traffic = Traffic()
        self.queue = InQueue(self.traffic, keep_rounds=False)
        self.model: dict[Key, Message] = {}
        """In order of arrival."""
        self.used: set[Key] = set()
        """Those that were looked at and stay."""
        self.received = self.replaced = self.aggregated = self.discarded = 0

    @rule(sender=SENDERS, round_=ROUNDS, fragment=FRAGMENTS)
    def put(self, sender: int, round_: int, fragment: int) -> None:
        item, key = message(sender, round_, fragment), (sender, fragment)
        self.queue.put(item)
        self.received += 1
        # Of two of the same round the one that came later is the newer (algorithms.md 14.8).
        if key in self.model and self.model[key].round > round_:
            self.replaced += 1
            return
        self.replaced += key in self.model and key not in self.used
        self.used.discard(key)
        self.model.pop(key, None)
        self.model[key] = item

    def expected(self) -> list[int]:
        return [id(self.model[key]) for key in sorted(self.model)]

    @rule()
    def peek(self) -> None:
        assert [id(item) for item in self.queue.peek_latest()] == self.expected()
        self.aggregated += len(self.model) - len(self.used)
        self.used = set(self.model)

    def forget(self) -> None:
        self.model, self.used = {}, set()

    @rule()
    def take_newest(self) -> None:
        newest = self.queue.take_newest()
        assert newest is (list(self.model.values())[-1] if self.model else None)
        # Messages that were looked at before were counted then.
        fresh = [item for key, item in self.model.items() if key not in self.used]
        self.aggregated += any(item is newest for item in fresh)
        self.discarded += sum(item is not newest for item in fresh)
        self.forget()

    @rule()
    def take(self) -> None:
        assert [id(item) for item in self.queue.take_latest()] == self.expected()
        self.aggregated += len(self.model) - len(self.used)
        self.forget()

    @rule(round_=ROUNDS)
    def take_round_finds_nothing(self, round_: int) -> None:
        assert self.queue.take_round(round_) == []

    @rule()
    def discard(self) -> None:
        self.queue.discard()
        self.discarded += len(self.model) - len(self.used)
        self.forget()

    @invariant()
    def everything_received_is_somewhere(self) -> None:
        traffic = self.traffic
        assert self.queue.held == len(self.model) - len(self.used) <= 4 * 3
        assert (traffic.received, traffic.replaced, traffic.aggregated, traffic.discarded) == (
            self.received,
            self.replaced,
            self.aggregated,
            self.discarded,
        )
        held = self.queue.held
        assert traffic.received == traffic.aggregated + traffic.replaced + traffic.discarded + held


QUICK = settings(max_examples=40, stateful_step_count=30)
TestRounds = RoundsMachine.TestCase
TestRounds.settings = QUICK
TestLatest = LatestMachine.TestCase
TestLatest.settings = QUICK


def test_a_message_of_the_next_round_waits_for_it() -> None:
    queue = InQueue(Traffic(), keep_rounds=True)
    early, late = message(1, 5), message(0, 4)
    queue.put(early)
    queue.put(late)
    assert queue.take_round(4) == [late]
    assert queue.arrived(5) == 1
    assert queue.take_round(5) == [early]
    assert queue.take_round(5) == []


def test_looking_does_not_create_rounds() -> None:
    queue = InQueue(Traffic(), keep_rounds=True)
    for round_ in range(100):
        assert queue.arrived(round_) == 0
        assert queue.missing(round_, Counter({(0, 0): 1})) == Counter({(0, 0): 1})
        assert queue.take_round(round_) == []
    assert len(queue._rounds) == 0


@given(st.lists(st.tuples(SENDERS, FRAGMENTS), max_size=20))
def test_the_order_of_arrival_of_distinct_messages_does_not_show(keys: list[Key]) -> None:
    one, other = (InQueue(Traffic(), keep_rounds=True) for _ in range(2))
    distinct = list(dict.fromkeys(keys))
    made = {key: message(key[0], 0, key[1]) for key in distinct}
    for key in distinct:
        one.put(made[key])
    for key in reversed(distinct):
        other.put(made[key])
    assert [id(item) for item in one.take_round(0)] == [id(item) for item in other.take_round(0)]


def test_the_newest_is_looked_for_among_what_has_arrived_by_now() -> None:
    """An asynchronous node fetches when it looks, not before."""
    arrived = [message(1, 0), message(1, 1), message(2, 0)]
    fetched: list[int] = []

    def fetch() -> None:
        fetched.append(len(arrived))
        while arrived:
            queue.put(arrived.pop(0))

    queue = InQueue(Traffic(), keep_rounds=False, fetch=fetch)
    assert queue.held == 0
    assert [(item.sender, item.round) for item in queue.take_latest()] == [(1, 1), (2, 0)]
    arrived.append(message(3, 4))
    assert [item.sender for item in queue.peek_latest()] == [3]
    arrived.append(message(0, 0))
    newest = queue.take_newest()
    assert newest is not None
    assert newest.sender == 0
    assert fetched == [3, 1, 1]


@pytest.mark.parametrize("destination", [-1, 2, 99])
def test_a_message_for_no_other_node_is_refused(destination: int) -> None:
    """Out of range or to itself, before the emulated network sees it."""
    queue = OutQueue(VirtualMedium(node=2, wire=Inline, eager=False), Traffic(), node=2, n=8)  # type: ignore[arg-type]
    with pytest.raises(RunFailed, match=f"node 2 sends to node {destination}: expected another node, 0 to 7"):
        queue.extend([(destination, message())])
