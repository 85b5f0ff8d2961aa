"""The inline scheduler: emulated time, one node at a time, and an end in every case."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decentral.clock import WallClock
from decentral.errors import Deadlock, Interrupted
from decentral.inline import InlineClock, Scheduler

Trace = list[tuple[int, int]]


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def sleeper(scheduler: Scheduler, trace: Trace, node: int, durations: list[int]) -> Callable[[], None]:
    def body() -> None:
        trace.append((scheduler.now_ns, node))
        for duration in durations:
            scheduler.sleep(node, duration)
            trace.append((scheduler.now_ns, node))

    return body


def run_sleepers(durations: list[list[int]]) -> Trace:
    scheduler = Scheduler()
    trace: Trace = []
    for node, own in enumerate(durations):
        scheduler.add(node, sleeper(scheduler, trace, node, own))
    scheduler.run()
    return trace


def test_nodes_run_in_order_of_time_and_of_number() -> None:
    trace = run_sleepers([[10, 10], [5, 5, 10], [20]])
    assert trace == [(0, 0), (0, 1), (0, 2), (5, 1), (10, 0), (10, 1), (20, 0), (20, 1), (20, 2)]


@given(st.lists(st.lists(st.integers(1, 50), max_size=5), min_size=1, max_size=6))
@settings(max_examples=50)
def test_the_agenda_is_sorted_and_complete(durations: list[list[int]]) -> None:
    trace = run_sleepers(durations)
    wakes = []
    for node, own in enumerate(durations):
        wakes += [(sum(own[:stop]), node) for stop in range(len(own) + 1)]
    assert trace == sorted(wakes)
    assert trace == run_sleepers(durations)


def test_nodes_may_be_added_in_any_order() -> None:
    scheduler = Scheduler()
    trace: Trace = []
    for node in (2, 0, 1):
        scheduler.add(node, sleeper(scheduler, trace, node, []))
    scheduler.run()
    assert trace == [(0, 0), (0, 1), (0, 2)]


def test_an_empty_run_ends() -> None:
    Scheduler().run()


def test_one_thread_at_a_time() -> None:
    scheduler = Scheduler()
    inside = [0]
    most = [0]

    def body(node: int) -> None:
        for _ in range(20):
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            inside[0] -= 1
            scheduler.sleep(node, 1)

    for node in range(8):
        scheduler.add(node, lambda node=node: body(node))  # type: ignore[misc]
    scheduler.run()
    assert most == [1]


def test_wait_ends_with_wake_at_the_time_of_the_waker() -> None:
    scheduler = Scheduler()
    trace: Trace = []

    def waiter() -> None:
        scheduler.wait(0, lambda: "node 1")
        trace.append((scheduler.now_ns, 0))

    def waker() -> None:
        scheduler.sleep(1, 7)
        scheduler.wake(0)
        trace.append((scheduler.now_ns, 1))

    scheduler.add(0, waiter)
    scheduler.add(1, waker)
    scheduler.run()
    assert trace == [(7, 1), (7, 0)]


def test_a_node_that_is_woken_twice_runs_once() -> None:
    scheduler = Scheduler()
    trace: Trace = []

    def waiter() -> None:
        scheduler.wait(0, lambda: "anything")
        trace.append((scheduler.now_ns, 0))
        scheduler.sleep(0, 100)
        trace.append((scheduler.now_ns, 0))

    def waker() -> None:
        scheduler.wake(0)
        scheduler.wake(0)

    scheduler.add(0, waiter)
    scheduler.add(1, waker)
    scheduler.run()
    assert trace == [(0, 0), (100, 0)]


def test_waking_a_node_that_does_not_wait_does_not_shorten_its_sleep() -> None:
    scheduler = Scheduler()
    trace: Trace = []
    scheduler.add(0, sleeper(scheduler, trace, 0, [50]))
    scheduler.add(1, lambda: scheduler.wake(0))
    scheduler.run()
    assert trace == [(0, 0), (50, 0)]


def test_a_wake_before_the_wait_is_found_by_looking_first() -> None:
    """The rule of every waiter: look, then wait. Nothing can happen in between, as nobody else runs."""
    scheduler = Scheduler()
    box: list[str] = []

    def waker() -> None:
        box.append("message")
        scheduler.wake(1)

    def waiter() -> None:
        while not box:
            scheduler.wait(1, lambda: "a message")

    scheduler.add(0, waker)
    scheduler.add(1, waiter)
    scheduler.run()
    assert box == ["message"]


def test_a_deadlock_names_who_waits_for_what() -> None:
    scheduler = Scheduler()
    scheduler.add(0, lambda: scheduler.wait(0, lambda: "fragment 2 of node 1"))
    scheduler.add(1, lambda: scheduler.sleep(1, 1_500_000_000))
    scheduler.add(7, lambda: scheduler.wait(7, lambda: "node 0"))
    with pytest.raises(Deadlock) as error:
        scheduler.run()
    assert str(error.value).splitlines() == [
        "deadlock at 1.500000 s: 2 nodes wait and nothing is under way",
        "  node 0 waits for fragment 2 of node 1",
        "  node 7 waits for node 0",
    ]


def test_the_first_error_ends_the_run_and_unwinds_the_others() -> None:
    scheduler = Scheduler()
    unwound: list[int] = []
    late: list[int] = []

    def bystander(node: int) -> None:
        try:
            scheduler.wait(node, lambda: "nothing")
        finally:
            unwound.append(node)
        late.append(node)

    def culprit() -> None:
        scheduler.sleep(2, 5)
        raise ZeroDivisionError("first")

    def second() -> None:
        scheduler.sleep(3, 6)
        raise ZeroDivisionError("second")

    scheduler.add(0, lambda: bystander(0))
    scheduler.add(1, lambda: bystander(1))
    scheduler.add(2, culprit)
    scheduler.add(3, second)
    with pytest.raises(ZeroDivisionError, match="first"):
        scheduler.run()
    assert (unwound, late) == ([0, 1], [])
    assert scheduler.now_ns == 5


def test_bodies_that_have_not_started_never_do() -> None:
    scheduler = Scheduler()
    started: list[int] = []

    def culprit() -> None:
        raise ZeroDivisionError

    scheduler.add(0, culprit)
    scheduler.add(1, lambda: started.append(1))
    with pytest.raises(ZeroDivisionError):
        scheduler.run()
    assert started == []


def test_a_body_that_waits_again_while_it_is_unwound_is_unwound_too() -> None:
    scheduler = Scheduler()
    unwound: list[str] = []

    def stubborn() -> None:
        try:
            scheduler.wait(0, lambda: "nothing")
        finally:
            try:
                scheduler.sleep(0, 1)
            finally:
                unwound.append("both")

    def culprit() -> None:
        raise ZeroDivisionError

    scheduler.add(0, stubborn)
    scheduler.add(1, culprit)
    with pytest.raises(ZeroDivisionError):
        scheduler.run()
    assert unwound == ["both"]


def test_errors_keep_their_class_and_traceback() -> None:
    scheduler = Scheduler()

    def body() -> None:
        raise SystemExit(3)

    scheduler.add(0, body)
    with pytest.raises(SystemExit) as error:
        scheduler.run()
    assert error.traceback[-1].name == "body"


def test_an_interrupt_ends_the_run_at_the_next_hand_over() -> None:
    scheduler = Scheduler()
    trace: Trace = []

    def body() -> None:
        scheduler.sleep(0, 10)
        scheduler.interrupt()
        trace.append((scheduler.now_ns, 0))
        scheduler.sleep(0, 10)
        trace.append((scheduler.now_ns, 0))

    scheduler.add(0, body)
    scheduler.add(1, sleeper(scheduler, trace, 1, [100]))
    with pytest.raises(Interrupted):
        scheduler.run()
    assert trace == [(0, 1), (10, 0)]


def test_five_hundred_nodes() -> None:
    scheduler = Scheduler()
    trace: Trace = []
    for node in range(500):
        scheduler.add(node, sleeper(scheduler, trace, node, [1000 - node, node + 1]))
    scheduler.run()
    assert len(trace) == 1500
    assert trace == sorted(trace)
    assert trace[-1] == (1001, 499)


def test_compute_lasts_what_the_model_says() -> None:
    scheduler = Scheduler()
    clock = InlineClock(scheduler, 0, compute_ns=1_000_000)
    seen: list[int] = []

    def body() -> None:
        assert clock.compute(lambda: "result") == "result"
        seen.append(clock.now_ns())
        with clock.paused():
            seen.append(clock.now_ns())
        clock.compute(lambda: seen.append(clock.now_ns()))
        seen.append(clock.now_ns())

    scheduler.add(0, body)
    scheduler.run()
    assert seen == [1_000_000, 1_000_000, 1_000_000, 2_000_000]


def test_a_wall_clock_stands_still_while_paused(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000]
    monkeypatch.setattr(time, "perf_counter_ns", lambda: now[0])
    clock = WallClock()
    now[0] += 5
    assert clock.now_ns() == 5
    clock.start()
    assert clock.now_ns() == 0
    now[0] += 10
    with clock.paused():
        now[0] += 70
        assert clock.now_ns() == 10, "an evaluation is stamped with the time at which it began"
    assert clock.now_ns() == 10
    now[0] += 3
    assert clock.compute(lambda: "result") == "result"
    assert clock.now_ns() == 13


def test_a_wall_clock_goes_on_after_an_evaluation_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000]
    monkeypatch.setattr(time, "perf_counter_ns", lambda: now[0])
    clock = WallClock()

    def fail() -> None:
        with clock.paused():
            now[0] += 70
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    now[0] += 13
    assert clock.now_ns() == 13
