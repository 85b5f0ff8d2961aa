"""The job's state machine where the others go on without lost nodes; and checkpoints, which then end."""

from __future__ import annotations

import signal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decentral.checkpoint.leader import Leader
from decentral.checkpoint.words import Freeze, Frozen, Present, Saved, Thaw
from launch.supervisor import Order, Supervisor

NODES = 5
OBSERVER, TIMEKEEPER = NODES, NODES + 1
MEMBERS = range(NODES + 2)
KILLED = -signal.SIGKILL


def job() -> Supervisor:
    """Nodes 0 to 2 on host a with observer and timekeeper, nodes 3 and 4 on host b."""
    hosts = {member: "b" if member in (3, 4) else "a" for member in MEMBERS}
    return Supervisor(hosts, observer=OBSERVER, timekeeper=TIMEKEEPER, max_rounds=10, goes_on=True)


def running() -> Supervisor:
    made = job()
    orders = [order for member in MEMBERS for order in made.ready(member)]
    assert orders == ["go"]
    return made


def finish(made: Supervisor, *but: int) -> list[Order]:
    """All ``but`` some come to their end; returns what follows."""
    left = [member for member in MEMBERS if member not in but]
    orders = [order for member in left for order in made.done(member)]
    return orders + [order for member in left for order in made.exited(member, 0)]


def test_the_others_go_on_and_the_job_is_done() -> None:
    made = running()
    made.progress(3, 4)
    assert made.exited(3, KILLED, "was killed by SIGKILL") == [("gone", 3)]
    made.lost_at(3, 1.5)
    assert made.state == "running"
    assert finish(made, 3) == ["release"]
    assert (made.state, made.cause) == ("done", None)
    (loss,) = made.lost.values()
    assert (loss.node, loss.host, loss.round, loss.time_s) == (3, "b", 4, 1.5)
    assert loss.cause == "was killed by SIGKILL after round 4 of 10"


def test_the_last_that_was_not_done_is_lost() -> None:
    """The end barrier falls by the loss itself."""
    made = running()
    assert [order for member in MEMBERS if member != 2 for order in made.done(member)] == []
    assert made.exited(2, KILLED) == [("gone", 2), "release"]


def test_a_failure_is_a_loss_once() -> None:
    made = running()
    assert made.failed(1, "ValueError: x") == [("gone", 1)]
    assert made.exited(1, 1) == []
    assert made.lost[1].cause == "failed after round 0 of 10: ValueError: x"


def test_who_dies_at_the_end_barrier_is_lost() -> None:
    made = running()
    made.done(1)
    assert made.exited(1, KILLED) == [("gone", 1)]
    assert finish(made, 1) == ["release"]
    assert made.state == "done"


def test_what_lost_nodes_wrote_is_not_missed() -> None:
    made = running()
    made.exited(3, KILLED)
    assert made.host_lost("b", "is lost: nothing has been heard", unsent=True) == [("gone", 4)]
    assert finish(made, 3, 4) == ["release"]
    assert made.state == "done"


@pytest.mark.parametrize("exited", [(3, 4), (3,)])
def test_what_nodes_wrote_that_came_to_their_end_is_missed(exited: tuple[int, ...]) -> None:
    """In the middle of the end: others of that host, or of others, are still about to exit."""
    made = running()
    assert [order for member in MEMBERS for order in made.done(member)] == ["release"]
    for member in exited:
        assert made.exited(member, 0) == []
    assert made.host_lost("b", "is lost: nothing has been heard", unsent=True) == ["stop"]
    assert made.state == "failed"
    assert made.cause is not None
    assert made.cause.endswith("; not all of its logs and models had arrived")


def test_a_refusal_is_no_loss() -> None:
    made = running()
    assert made.refused("host b: cannot start the nodes") == ["stop"]
    assert (made.state, made.cause, made.lost) == ("failed", "host b: cannot start the nodes", {})


def test_a_lost_host_is_the_loss_of_its_nodes() -> None:
    made = running()
    assert made.host_lost("b", "is lost: nothing has been heard") == [("gone", 3), ("gone", 4)]
    assert made.lost[4].cause == "was lost: agent on host b is lost: nothing has been heard"
    assert finish(made, 3, 4) == ["release"]
    assert made.state == "done"


def test_a_host_that_is_lost_after_the_release_is_the_end_of_it() -> None:
    made = running()
    for member in MEMBERS:
        made.done(member)
    for member in MEMBERS:
        if member not in (3, 4):
            made.exited(member, 0)
    assert made.host_lost("b", "was killed by signal 9") == [("gone", 3), ("gone", 4)]
    assert (made.over, made.state) == (True, "done")
    assert set(made.lost) == {3, 4}


@pytest.mark.parametrize(("member", "who"), [(OBSERVER, "the observer"), (TIMEKEEPER, "the timekeeper")])
def test_observer_and_timekeeper_are_needed(member: int, who: str) -> None:
    made = running()
    assert made.exited(member, KILLED) == ["stop"]
    assert made.cause is not None
    assert made.cause.startswith(f"{who} on host a was killed by SIGKILL")
    made = running()
    assert made.host_lost("a", "exited with code 1") == ["stop"]
    assert made.cause == "agent on host a exited with code 1"
    assert not made.lost


def test_before_the_start_barrier_every_member_is_needed() -> None:
    made = job()
    made.ready(1)
    assert made.exited(1, KILLED) == ["stop"]
    assert made.cause == "node 1 on host a was killed by SIGKILL before round 1"
    made = job()
    assert made.host_lost("b", "could not start its nodes: no space") == ["stop"]
    assert made.state == "failed"


def test_two_nodes_are_needed() -> None:
    """The first cause is the one that is named."""
    made = running()
    for node in (2, 0, 4):
        assert made.exited(node, KILLED, f"died of {node}") == [("gone", node)]
    assert made.exited(1, KILLED) == ["stop"]
    assert made.cause == (
        "node 2 on host a died of 2 after round 0 of 10; 4 of 5 nodes are lost, and a run needs 2"
    )
    assert made.exited(3, 5) == []
    assert 3 not in made.lost, "it was stopped"


@pytest.mark.parametrize("how", ["waited", "shared"])
def test_who_waits_in_vain_is_no_loss(how: str) -> None:
    """A stall or a deadlock is not over once one of those who report it is left out."""
    made = running()
    assert made.failed(1, "it waits", **{how: True}) == ["stop"]
    assert made.state == "failed"


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("done"), st.sampled_from(list(MEMBERS))),
            st.tuples(st.just("exited"), st.sampled_from(list(MEMBERS)), st.sampled_from([0, 1, -9])),
            st.tuples(st.just("failed"), st.sampled_from(list(MEMBERS)), st.just("ValueError")),
            st.tuples(st.just("host_lost"), st.sampled_from(["a", "b"]), st.just("is gone")),
        ),
        max_size=30,
    )
)
@settings(max_examples=300)
def test_never_falsely_done_and_never_released_twice(events: list[tuple[str, int]]) -> None:
    made = running()
    orders: list[Order] = []
    done: set[int] = set()
    exited: set[int] = set()
    for name, member, *more in events:
        if name == "host_lost":
            exited |= {m for m in MEMBERS if made.members[m].host == member}
        elif member in exited:
            continue  # nothing is heard of who has ended
        if name == "exited":
            exited.add(member)
        if name == "done":
            done.add(member)
        orders += getattr(made, name)(member, *more)
    assert orders.count("release") <= 1
    assert orders.count("stop") <= 1
    gone = [order[1] for order in orders if isinstance(order, tuple)]
    assert len(set(gone)) == len(gone), "each is told of once"
    assert {OBSERVER, TIMEKEEPER}.isdisjoint(made.lost)
    if "release" in orders:
        assert {OBSERVER, TIMEKEEPER} <= done
    if made.state == "done":
        assert exited == set(MEMBERS)
        assert NODES - len(made.lost) >= 2
        assert set(MEMBERS) - done <= set(made.lost)


# Checkpoints


def test_a_checkpoint_is_given_up_for_a_lost_member() -> None:
    for heard in (0, 1, 2):  # members that stand still by then
        leader = Leader(range(3))
        for member in range(3):
            leader.hear(Present(member))
        leader.ask(7, 0)
        assert leader.freeze() == [(member, Freeze(7)) for member in range(3)]
        for member in range(heard):
            leader.hear(Frozen(member, ()))
        assert leader.lose(2) == [(0, Thaw(7)), (1, Thaw(7))]
        assert not leader.holds
        leader.ask(8, 7)
        assert not leader.holds, "no other is made"


def test_a_checkpoint_that_is_being_saved_is_given_up() -> None:
    leader = Leader(range(2))
    for member in range(2):
        leader.hear(Present(member))
    leader.ask(1, 0)
    leader.freeze()
    assert [member for member, _ in leader.hear(Frozen(0, ())) + leader.hear(Frozen(1, ()))] == [0, 1]
    leader.hear(Saved(0, "a", 1, "b", 1))
    assert leader.lose(1) == [(0, Thaw(1))]
    assert not leader.complete


def test_nobody_waits_for_the_presence_of_a_lost_member() -> None:
    leader = Leader(range(3))
    leader.hear(Present(0))
    leader.hear(Present(2))
    assert not leader.all_present
    assert leader.lose(1) == []
    assert leader.all_present
