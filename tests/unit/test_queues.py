"""Queues: every message is accounted for, whatever happens in whatever order."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from decentral.messages import Message
from decentral.queues import InQueue, Key, Outgoing, OutQueue, Traffic

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


class OutQueueMachine(RuleBasedStateMachine):
    """``OutQueue`` against a list."""

    def __init__(self) -> None:
        super().__init__()
        self.traffic = Traffic()
        self.queue = OutQueue(self.traffic)
        self.model: list[Outgoing] = []
        self.made = self.sent = self.dropped = self.sent_bytes = 0

    @rule(items=OUTGOING, lazily=st.booleans())
    def extend(self, items: list[Outgoing], lazily: bool) -> None:
        self.queue.extend(iter(items) if lazily else items)
        self.model += items
        self.made += len(items)

    @rule(items=OUTGOING, lazily=st.booleans())
    def replace(self, items: list[Outgoing], lazily: bool) -> None:
        self.queue.replace(iter(items) if lazily else items)
        self.dropped += len(self.model)
        self.made += len(items)
        self.model = list(items)

    @precondition(lambda self: self.model)
    @rule()
    def pop(self) -> None:
        expected = self.model.pop(0)
        got = self.queue.pop()
        assert got[0] == expected[0]
        assert got[1] is expected[1]
        self.sent += 1
        self.sent_bytes += expected[1].nbytes

    @precondition(lambda self: not self.model)
    @rule()
    def pop_of_nothing(self) -> None:
        with pytest.raises(IndexError):
            self.queue.pop()

    @rule()
    def pop_all(self) -> None:
        batches = self.queue.pop_all()
        destinations = [destination for destination, _ in batches]
        assert destinations == list(dict.fromkeys(destination for destination, _ in self.model))
        for destination, messages in batches:
            expected = [item for to, item in self.model if to == destination]
            assert [id(item) for item in messages] == [id(item) for item in expected]
        self.sent += len(self.model)
        self.sent_bytes += sum(item.nbytes for _, item in self.model)
        self.model = []

    @invariant()
    def everything_made_is_sent_dropped_or_waiting(self) -> None:
        traffic = self.traffic
        assert len(self.queue) == len(self.model)
        assert (traffic.made, traffic.sent, traffic.dropped) == (self.made, self.sent, self.dropped)
        assert traffic.made == traffic.sent + traffic.dropped + len(self.queue)
        assert traffic.total_bytes == self.sent_bytes


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
    def take_latest_finds_nothing(self) -> None:
        assert self.queue.take_latest() == []

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
        self.received = self.replaced = self.aggregated = self.discarded = 0

    @rule(sender=SENDERS, round_=ROUNDS, fragment=FRAGMENTS)
    def put(self, sender: int, round_: int, fragment: int) -> None:
        item, key = message(sender, round_, fragment), (sender, fragment)
        self.queue.put(item)
        self.received += 1
        self.replaced += key in self.model
        # Of two of the same round the one that came later is the newer (algorithms.md 14.8).
        if key not in self.model or self.model[key].round <= round_:
            self.model[key] = item

    def expected(self) -> list[int]:
        return [id(self.model[key]) for key in sorted(self.model)]

    @rule()
    def peek(self) -> None:
        assert [id(item) for item in self.queue.peek_latest()] == self.expected()

    @rule()
    def take(self) -> None:
        assert [id(item) for item in self.queue.take_latest()] == self.expected()
        self.aggregated += len(self.model)
        self.model = {}

    @rule(round_=ROUNDS)
    def take_round_finds_nothing(self, round_: int) -> None:
        assert self.queue.take_round(round_) == []

    @rule()
    def discard(self) -> None:
        self.queue.discard()
        self.discarded += len(self.model)
        self.model = {}

    @invariant()
    def everything_received_is_somewhere(self) -> None:
        traffic = self.traffic
        assert self.queue.held == len(self.model) <= 4 * 3
        assert (traffic.received, traffic.replaced, traffic.aggregated, traffic.discarded) == (
            self.received,
            self.replaced,
            self.aggregated,
            self.discarded,
        )
        held = self.queue.held
        assert traffic.received == traffic.aggregated + traffic.replaced + traffic.discarded + held


QUICK = settings(max_examples=40, stateful_step_count=30)
TestOutQueue = OutQueueMachine.TestCase
TestOutQueue.settings = QUICK
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
