"""The inline scheduler: one node at a time, in a fixed order, and an end in every case."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from decentral.errors import Deadlock, Interrupted
from decentral.inline import InlineWire, Scheduler
from decentral.messages import Message, encode_header
from decentral.speech import ANY, Answer, Notice, Put, Role, Served, Totals
from tests.emulated import RUN, forever, item, keep, message, network, until

Trace = list[tuple[object, ...]]


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


class Stage:
    """Bodies on wires of one scheduler."""

    def __init__(self, n: int) -> None:
        self.timekeeper, _, _ = keep(network(n))
        self.observed: list[Message] = []
        self.scheduler = Scheduler(self.timekeeper, self.observed.append, RUN)
        self.wires = [InlineWire(self.scheduler, node, 1 << 20) for node in range(n)]

    def run(self, *bodies: Callable[[], None]) -> None:
        for node, body in enumerate(bodies):
            self.scheduler.add(node, body)
        self.scheduler.run()

    def hear(self, node: int, what: str = "anything") -> object:
        """The next thing that ``node`` hears."""
        return self.wires[node].next(True, lambda: what)


def nothing() -> None:
    pass


def fail() -> None:
    raise ZeroDivisionError("first")


def test_an_empty_run_ends() -> None:
    Stage(1).run()


def test_nodes_run_in_the_order_in_which_they_are_added_then_told() -> None:
    stage, trace = Stage(3), Trace()

    def body(node: int) -> None:
        stage.wires[node].speak(until(node, 0, 10 * (3 - node)))
        trace.append(("spoke", node))
        answer = stage.hear(node)
        assert isinstance(answer, Answer)
        trace.append((answer.at_ns, node))
        stage.wires[node].leave(node, answer.at_ns, True)

    stage.run(lambda: body(0), lambda: body(1), lambda: body(2))
    assert trace == [("spoke", 0), ("spoke", 1), ("spoke", 2), (10, 2), (20, 1), (30, 0)]
    assert stage.timekeeper.over


def test_one_thread_at_a_time() -> None:
    stage = Stage(8)
    inside, most = [0], [0]

    def body(node: int) -> None:
        for t in range(20):
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            stage.wires[node].push([((node + 1) % 8, message(node, t))])
            inside[0] -= 1
            stage.hear(node)

    stage.run(*[lambda node=node: body(node) for node in range(8)])
    assert most == [1]


def test_what_the_timekeeper_says_is_heard_before_payloads() -> None:
    stage = Stage(2)
    heard: list[object] = []

    def sender() -> None:
        stage.wires[0].push([(1, message(0, 1)), (1, message(0, 2))])
        stage.scheduler.tell([Notice(1, [], [5])])

    def receiver() -> None:
        heard.extend([stage.hear(1), stage.hear(1), stage.hear(1)])
        heard.append(stage.wires[1].next(False, str))

    stage.run(sender, receiver)
    assert heard[0] == Notice(1, [], [5])
    assert [[one.round for one in batch] for batch in heard[1:3]] == [[1], [2]]  # type: ignore[attr-defined]
    assert heard[3] is None


def test_a_node_that_is_woken_twice_runs_once() -> None:
    stage, trace = Stage(2), Trace()

    def waiter() -> None:
        stage.hear(0)
        trace.append(("woken",))
        stage.hear(0)
        trace.append(("again",))

    def waker() -> None:
        stage.scheduler.deliver(0, [])
        stage.scheduler.deliver(0, [])
        trace.append(("waker",))

    stage.run(waiter, waker)
    assert trace == [("waker",), ("woken",), ("again",)]


def test_what_is_there_before_the_wait_is_not_waited_for() -> None:
    stage = Stage(2)
    stage.run(lambda: stage.scheduler.deliver(1, []), lambda: stage.hear(1))  # type: ignore[arg-type]


def test_header_bytes_are_those_of_a_real_transport() -> None:
    stage = Stage(2)
    pair = [message(0, 3, k, size=5) for k in range(2)]
    stage.run(lambda: stage.wires[0].push([(1, one) for one in pair]), lambda: stage.hear(1))  # type: ignore[arg-type]
    assert stage.wires[0].meta_bytes == len(encode_header(RUN, 1, pair))
    assert stage.wires[1].meta_bytes == 0
    assert not stage.wires[1].refused


def test_snapshots_go_to_the_observer_at_once() -> None:
    stage = Stage(1)
    one = message(0)
    stage.run(lambda: stage.wires[0].observe(one))
    assert stage.observed == [one]


def test_a_deadlock_of_waits_names_who_waits_for_what() -> None:
    stage = Stage(3)
    with pytest.raises(Deadlock) as error:
        stage.run(lambda: stage.hear(0, "the payload of node 1"), nothing, lambda: stage.hear(2, "node 0"))  # type: ignore[arg-type]
    assert str(error.value).splitlines() == [
        "deadlock: 2 nodes wait and nothing is under way",
        "  node 0 waits for the payload of node 1",
        "  node 2 waits for node 0",
    ]


def test_a_deadlock_in_emulated_time_is_the_timekeepers() -> None:
    stage = Stage(2)

    def body(node: int) -> None:
        put = Put(0, False, [item(1 - node, 5, 0, Role.KEEP, tag=6)])
        stage.wires[node].speak(forever(node, 0, *([put] if node else []), tag=7))
        stage.hear(node)

    with pytest.raises(Deadlock) as error:
        stage.run(lambda: body(0), lambda: body(1))
    assert str(error.value).splitlines()[:3] == [
        "deadlock: 2 nodes wait for messages and none is under way",
        "  node 0 waits since 0.000000 s for 1 more messages of round 7",
        "  node 1 waits since 0.000000 s for 1 more messages of round 7",
    ]


def test_the_first_error_ends_the_run_and_unwinds_the_others() -> None:
    stage = Stage(4)
    unwound: list[int] = []
    late: list[int] = []

    def bystander(node: int) -> None:
        try:
            stage.hear(node)
        finally:
            unwound.append(node)
        late.append(node)

    with pytest.raises(ZeroDivisionError, match="first"):
        stage.run(lambda: bystander(0), lambda: bystander(1), fail, lambda: bystander(3))
    assert (unwound, late) == ([0, 1], [])


def test_bodies_that_have_not_started_never_do() -> None:
    stage = Stage(2)
    started: list[int] = []
    with pytest.raises(ZeroDivisionError):
        stage.run(fail, lambda: started.append(1))
    assert started == []


def test_a_body_that_waits_again_while_it_is_unwound_is_unwound_too() -> None:
    stage = Stage(2)
    unwound: list[str] = []

    def stubborn() -> None:
        try:
            stage.hear(0)
        finally:
            try:
                stage.hear(0)
            finally:
                unwound.append("both")

    with pytest.raises(ZeroDivisionError):
        stage.run(stubborn, fail)
    assert unwound == ["both"]


def test_an_error_while_unwinding_does_not_hide_the_first() -> None:
    stage = Stage(2)

    def clumsy() -> None:
        try:
            stage.hear(0)
        finally:
            raise KeyError("second")

    with pytest.raises(ZeroDivisionError, match="first"):
        stage.run(clumsy, fail)


def test_errors_keep_their_class_and_traceback() -> None:
    stage = Stage(1)

    def body() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit) as error:
        stage.run(body)
    assert error.traceback[-1].name == "body"


def test_an_interrupt_ends_the_run_at_the_next_hand_over() -> None:
    stage, trace = Stage(2), Trace()

    def body() -> None:
        stage.scheduler.interrupt()
        trace.append(("goes on",))
        stage.hear(0)
        trace.append(("too far",))

    with pytest.raises(Interrupted):
        stage.run(body, lambda: trace.append(("never",)))
    assert trace == [("goes on",)]


def test_five_hundred_nodes() -> None:
    stage, trace = Stage(500), Trace()

    def body(node: int) -> None:
        wire = stage.wires[node]
        wire.speak(until(node, 0, 1000 - node, Put(0, False, [item((node + 1) % 500, 1, 0)])))
        while not isinstance(answer := stage.hear(node), Answer):
            assert isinstance(answer, Notice)
        trace.append((answer.at_ns, node, *answer.arrived))
        wire.leave(node, answer.at_ns, True)

    stage.run(*[lambda node=node: body(node) for node in range(500)])
    assert trace == [(1000 - node, node, ((node - 1) % 500, 0)) for node in reversed(range(500))]


def test_what_was_told_does_not_change_afterwards() -> None:
    """Tellings are handed over as they are: the timekeeper must not go on writing to their lists."""
    stage = Stage(2)
    told: list[object] = []

    def requester() -> None:
        stage.wires[0].speak(until(0, 0, 100))
        stage.hear(0)
        put = Put(100, False, [item(1, 5, 0, Role.REQUEST)])
        stage.wires[0].speak(until(0, 100, 200, put, tag=-2, count=1))
        stage.hear(0)
        stage.wires[0].leave(0, 110, True)

    def passive() -> None:
        stage.wires[1].speak(until(1, 0, 10, then_ns=900))
        told.append(stage.hear(1))
        assert told == [Answer(1, 10, True, [], [], [], Totals(0, 0, 0, 0))]
        notice = stage.hear(1)
        assert notice == Notice(1, [Served(0, 0, -1, False)], [-1])
        stage.wires[1].speak(until(1, 910, 910, tag=ANY))
        stage.hear(1)
        stage.wires[1].leave(1, 910, True)

    stage.run(requester, passive)
    assert told == [Answer(1, 10, True, [], [], [], Totals(0, 0, 0, 0))]
