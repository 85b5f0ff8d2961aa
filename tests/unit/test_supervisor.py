"""The job's state machine: barriers, first cause first, one stop, and no false ``done``."""

from __future__ import annotations

import signal
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launch.supervisor import Order, Phase, Supervisor

NODES = 4
OBSERVER = NODES
MEMBERS = range(NODES + 1)


def job() -> Supervisor:
    """Nodes 0 and 1 and the observer on host a, nodes 2 and 3 on host b."""
    hosts = {0: "a", 1: "a", 2: "b", 3: "b", OBSERVER: "a"}
    return Supervisor(hosts, observer=OBSERVER, max_rounds=10)


def running() -> Supervisor:
    made = job()
    orders = [made.ready(member) for member in MEMBERS]
    assert orders == [[]] * NODES + [["go"]]
    return made


def all_done() -> Supervisor:
    made = running()
    for node in range(NODES):
        made.progress(node, 10)
    orders = [made.done(member) for member in MEMBERS]
    assert orders == [[]] * NODES + [["release"]]
    return made


def exit_all(made: Supervisor, *but: int, status: int = 0) -> list[Order]:
    return [order for member in MEMBERS if member not in but for order in made.exited(member, status)]


def test_a_run_from_start_to_end() -> None:
    made = all_done()
    assert (made.state, made.over, made.cause) == ("running", False, None)
    assert exit_all(made) == []
    assert (made.state, made.over, made.cause) == ("done", True, None)


@pytest.mark.parametrize("late", MEMBERS)
def test_the_start_barrier_waits_for_everybody(late: int) -> None:
    made = job()
    assert [made.ready(member) for member in MEMBERS if member != late] == [[]] * NODES
    assert made.ready(late) == ["go"]
    assert all(member.phase is Phase.RUNNING for member in made.members.values())


@pytest.mark.parametrize("late", MEMBERS)
def test_the_end_barrier_waits_for_everybody(late: int) -> None:
    made = running()
    assert [made.done(member) for member in MEMBERS if member != late] == [[]] * NODES
    assert made.done(late) == ["release"]


def test_what_is_known_of_a_death_is_said() -> None:
    made = running()
    made.exited(3, -signal.SIGKILL, "ran out of memory (the kernel killed it)")
    assert made.cause == "node 3 on host b ran out of memory (the kernel killed it) after round 0 of 10"


def test_a_stall_ends_nothing_and_is_the_cause_of_who_waits_for_it() -> None:
    made = running()
    made.stalled(3, "is stopped (SIGSTOP)")
    assert made.state == "running"
    assert made.failed(0, "heard nothing for 60 s", waited=True) == ["stop"]
    assert made.cause == (
        "node 3 on host b is stopped (SIGSTOP) after round 0 of 10; others have waited for it in vain: "
        "node 0 on host a failed after round 0 of 10: heard nothing for 60 s"
    )


def test_who_goes_on_again_or_fails_by_itself_is_no_excuse() -> None:
    made = running()
    made.stalled(3, "is stopped (SIGSTOP)")
    made.stalled(3, None)
    made.failed(0, "heard nothing for 60 s", waited=True)
    assert made.cause == "node 0 on host a failed after round 0 of 10: heard nothing for 60 s"
    made = running()
    made.stalled(3, "is stopped (SIGSTOP)")
    made.failed(0, "ValueError: 3")
    assert made.cause == "node 0 on host a failed after round 0 of 10: ValueError: 3"


def test_the_first_cause_is_kept() -> None:
    made = running()
    made.progress(3, 6)
    assert made.exited(3, -signal.SIGKILL) == ["stop"]
    cause = made.cause
    assert cause is not None
    assert cause == "node 3 on host b was killed by SIGKILL after round 6 of 10"
    assert made.failed(0, "ConnectionError: node 3 is gone") == []
    assert made.exited(0, 4) == []
    assert made.host_lost("b", "exited with code 1") == []
    assert exit_all(made, 0, 2, 3, status=-signal.SIGTERM) == []
    assert made.interrupted() == []
    assert (made.state, made.over, made.cause) == ("failed", True, cause)


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (0, "exited early with code 0"),
        (1, "exited early with code 1"),
        (-signal.SIGSEGV, "was killed by SIGSEGV"),
        (-signal.SIGRTMIN, "was killed by SIGRTMIN"),
        (-40, "was killed by signal 40"),
    ],
)
def test_how_a_process_ended_is_said(status: int, text: str) -> None:
    made = running()
    assert made.exited(1, status) == ["stop"]
    assert made.state == "failed"
    assert made.cause == f"node 1 on host a {text} after round 0 of 10"


def test_before_the_start_barrier_no_round_is_claimed() -> None:
    made = job()
    made.ready(0)
    assert made.exited(2, 1) == ["stop"]
    assert made.cause == "node 2 on host b exited early with code 1 before round 1"
    assert [made.ready(member) for member in (1, 3, OBSERVER)] == [[]] * 3, "no start after a stop"


def test_an_exception_is_reported_with_its_text_and_place() -> None:
    made = running()
    made.progress(2, 4)
    assert made.failed(2, "ValueError: no\nTraceback ...") == ["stop"]
    assert made.cause == "node 2 on host b failed after round 4 of 10: ValueError: no\nTraceback ..."
    assert exit_all(made, 2, status=5) == []
    assert not made.over
    assert made.exited(2, 4) == []
    assert made.over


def test_the_observer_has_a_name_of_its_own() -> None:
    made = running()
    made.exited(OBSERVER, 1)
    assert made.cause == "the observer on host a exited early with code 1 (it scores the nodes' mean model)"


def test_a_lost_host_takes_its_members_with_it() -> None:
    made = running()
    assert made.host_lost("b", "was killed by signal 9") == ["stop"]
    assert made.cause == "agent on host b was killed by signal 9"
    assert not made.over
    assert exit_all(made, 2, 3, status=5) == []
    assert (made.over, made.state) == (True, "failed")


def test_losing_the_only_host_ends_the_job() -> None:
    made = Supervisor({0: "a", 1: "a"}, observer=1, max_rounds=3)
    assert made.host_lost("a", "exited with code 0") == ["stop"]
    assert (made.over, made.state) == (True, "failed")


@pytest.mark.parametrize("late", [(), (0,), (0, 2)], ids=["done", "others exit", "some of it exit"])
def test_a_job_is_not_done_before_all_that_was_written_is_here(late: tuple[int, ...]) -> None:
    made = all_done()
    exit_all(made, *late)
    assert made.state == ("running" if late else "done")
    assert made.host_lost("b", "was killed by signal 9", unsent=True) == ["stop"]
    assert made.state == "failed"
    assert made.cause == (
        "agent on host b was killed by signal 9; not all of its logs and models had arrived"
    )


def test_a_host_is_not_missed_once_all_is_here() -> None:
    made = all_done()
    exit_all(made)
    assert made.host_lost("b", "was killed by signal 9", unsent=False) == []
    assert made.state == "done"


def test_what_was_not_sent_is_no_cause_where_there_was_another() -> None:
    made = running()
    made.interrupted()
    exit_all(made, status=5)
    assert made.host_lost("b", "was ended by the user", unsent=True) == []
    assert (made.state, made.cause) == ("interrupted", "interrupted by the user")


def test_an_interrupted_job_stays_interrupted() -> None:
    made = running()
    assert made.interrupted() == ["stop"]
    assert made.interrupted() == []
    assert made.failed(0, "Interrupted") == []
    assert exit_all(made, status=5) == []
    assert (made.state, made.over, made.cause) == ("interrupted", True, "interrupted by the user")


def test_an_interrupt_during_the_start_holds_the_barrier() -> None:
    made = job()
    for member in range(NODES):
        made.ready(member)
    assert made.interrupted() == ["stop"]
    assert made.ready(OBSERVER) == []


def test_an_interrupt_before_the_last_is_done_holds_the_end_barrier() -> None:
    made = running()
    for member in range(NODES):
        made.done(member)
    assert made.interrupted() == ["stop"]
    assert made.done(OBSERVER) == []
    exit_all(made)
    assert made.state == "interrupted"


def test_who_leaves_before_the_end_barrier_fails_the_job() -> None:
    """Else the others would wait for ever for a release that needs everybody."""
    made = running()
    made.progress(0, 10)
    assert made.done(0) == []
    assert made.exited(0, 0) == ["stop"]
    assert made.cause == "node 0 on host a exited early with code 0 after round 10 of 10"


def test_dying_after_the_release_fails_the_job() -> None:
    made = all_done()
    assert exit_all(made, 1) == []
    assert made.exited(1, -signal.SIGSEGV) == ["stop"]
    assert (made.state, made.over) == ("failed", True)


def test_nothing_changes_a_job_that_is_done() -> None:
    made = all_done()
    exit_all(made)
    assert made.interrupted() == []
    assert made.host_lost("a", "exited with code 0") == []
    assert (made.state, made.cause) == ("done", None)


MEMBER = st.sampled_from(list(MEMBERS))
EVENTS = st.one_of(
    st.tuples(st.just("ready"), MEMBER),
    st.tuples(st.just("progress"), MEMBER),
    st.tuples(st.just("done"), MEMBER),
    st.tuples(st.just("failed"), MEMBER),
    st.tuples(st.just("exited"), MEMBER, st.sampled_from([0, 0, 0, 1, -9])),
    st.tuples(st.just("host_lost"), st.sampled_from(["a", "b"])),
    st.tuples(st.just("interrupted")),
)


def apply(made: Supervisor, event: tuple[Any, ...]) -> list[Order]:
    more: dict[str, tuple[Any, ...]] = {
        "progress": (1,),
        "failed": ("ValueError",),
        "host_lost": ("exited with code 1",),
    }
    name, *arguments = event
    orders: list[Order] | None = getattr(made, name)(*arguments, *more.get(name, ()))
    return orders or []


def good_run() -> list[tuple[Any, ...]]:
    phases: list[list[tuple[Any, ...]]] = [
        [("ready", m) for m in MEMBERS],
        [("done", m) for m in MEMBERS],
        [("exited", m, 0) for m in MEMBERS],
    ]
    return [event for phase in phases for event in phase]


@given(st.lists(st.tuples(st.integers(0, 15), EVENTS), max_size=4), st.lists(st.integers(0, 14), max_size=3))
@settings(max_examples=500)
def test_disturbed_runs_are_never_falsely_done(
    inserted: list[tuple[int, tuple[Any, ...]]], removed: list[int]
) -> None:
    """A good run with events inserted and taken out: ``done`` only if all were done, then exited with 0."""
    good = good_run()
    events = [event for at, event in enumerate(good) if at not in removed]
    for at, event in inserted:
        events.insert(at, event)
    made = job()
    orders: Counter[Order] = Counter()
    done: set[Any] = set()
    left: set[Any] = set()
    bad = False
    for event in events:
        before = made.state
        for order in apply(made, event):
            orders[order] += 1
        if event[0] == "done":
            done.add(event[1])
        if event[0] == "exited" and before == "running":
            bad |= event[2] != 0 or event[1] not in done
            left.add(event[1])
        bad |= event[0] in ("failed", "host_lost", "interrupted") and before == "running"
        assert before in ("running", made.state), "a verdict is final"
        assert (made.cause is not None) == (made.state in ("failed", "interrupted"))
    assert max(orders.values(), default=0) <= 1
    assert orders["stop"] == (made.state in ("failed", "interrupted"))
    if bad:
        assert made.state in ("failed", "interrupted")
    if made.state == "done":
        assert done == left == set(MEMBERS)
        assert orders == {"go": 1, "release": 1}
    if not inserted and not removed:
        assert made.state == "done"


def with_timekeeper() -> Supervisor:
    hosts = dict.fromkeys(range(NODES), "b") | {OBSERVER: "a", OBSERVER + 1: "a"}
    return Supervisor(hosts, observer=OBSERVER, max_rounds=10, timekeeper=OBSERVER + 1)


def test_the_timekeeper_is_a_member_like_any_other() -> None:
    made = with_timekeeper()
    everybody = range(NODES + 2)
    assert [made.ready(member) for member in everybody] == [[]] * (NODES + 1) + [["go"]]
    assert [made.done(member) for member in reversed(everybody)] == [[]] * (NODES + 1) + [["release"]]
    assert [made.exited(member, 0) for member in everybody] == [[]] * (NODES + 2)
    assert made.state == "done"


@pytest.mark.parametrize("begun", [False, True])
def test_the_timekeeper_has_a_name_of_its_own(begun: bool) -> None:
    made = with_timekeeper()
    for member in range(NODES + 2) if begun else ():
        made.ready(member)
    assert made.failed(OBSERVER + 1, "deadlock: 2 nodes wait") == ["stop"]
    assert made.cause == "the timekeeper on host a failed (it keeps emulated time): deadlock: 2 nodes wait"
    assert made.exited(OBSERVER + 1, 4) == []
    assert made.state == "failed"


def test_without_a_number_of_rounds_none_is_named() -> None:
    made = Supervisor({0: "a", 1: "a", 2: "a"}, observer=2, max_rounds=None)
    for member in range(3):
        made.ready(member)
    made.progress(1, 7)
    made.exited(1, 3)
    assert made.cause == "node 1 on host a exited early with code 3 after round 7"
