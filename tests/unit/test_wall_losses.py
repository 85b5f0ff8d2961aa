"""Lost nodes in real time: how long they are waited for, what counts of them, what is sent to them."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from decentral.accounts import link_rows
from decentral.clock import NS_PER_S
from decentral.downlink import Downlink
from decentral.errors import RunFailed, StalledError
from decentral.fidelity import NOT_CHECKED, merge
from decentral.losses import Patience
from decentral.messages import Kind
from decentral.network.model import INFINITE_NS
from decentral.pacing import Pacer
from decentral.speech import ANY, Role
from decentral.transports.receiving import GONE, REST
from launch.supervisor import Supervisor
from tests.real_time import (
    LONG_S,
    MS,
    Make,
    Open,
    Told,
    fragment,
    mailbox,
    make,
    network,
    open_transport,
    start,
    told,
)
from tests.unit import test_pacing as paced

FOR_EVER: dict[str, Any] = {"until_ns": INFINITE_NS, "then_ns": 0, "what": lambda: "a message"}
__all__ = ["make", "open_transport", "told"]  # fixtures


# The parts without sockets


def test_who_has_ended_is_waited_for_as_long_as_was_asked_and_given_up_once() -> None:
    patience = Patience(100)
    assert patience.next_ns() == INFINITE_NS
    patience.begin([(3, 50), (1, 20)])
    assert patience.next_ns() == 120
    assert patience.over(119) == []
    assert patience.over(120) == [1]
    assert patience.next_ns() == 150
    patience.begin([(2, 60)])
    assert sorted(patience.over(1000)) == [2, 3]
    assert patience.over(INFINITE_NS) == []


def test_what_is_here_of_a_lost_sender_counts_and_what_comes_later_does_not() -> None:
    box = mailbox(by_round=True)
    box.deliver([fragment(1, t=0), fragment(2, t=0)], 0)
    box.lose(1, 7)
    assert box.take_ended() == [(1, 7)]
    assert box.take_ended() == []
    box.deliver([fragment(1, k=1)], 0)  # not given up yet
    box.shut_out(1)
    box.deliver([fragment(1, k=2), fragment(2, k=2)], 0)
    assert box.holds(0, 4)
    assert not box.holds(0, 5)
    assert [(each.sender, each.fragment) for each in box.take()] == [(1, 0), (2, 0), (1, 1), (2, 2)]
    assert dict(box.received) == {1: [2, 8], 2: [2, 8]}, "what nobody takes is in flight for good"


def test_a_loss_wakes_who_waits_and_nobody_else() -> None:
    box = mailbox()
    box.lose(2, 0)
    assert not box.wait(ANY, 1, None, str), "it is to be seen to first"
    box.take_ended()
    assert box.wait(ANY, 1, 0.001, str), "the time is over"


@pytest.mark.parametrize("latency_ms", [0, 5])
def test_what_is_sent_to_a_lost_node_uses_the_link_and_arrives_at_nobody(latency_ms: int) -> None:
    pacer = Pacer(node=0, model=paced.network(latency_ns=latency_ms * MS))
    pacer.put(0, paced.entries(0, (1, 0, 1250), (2, 1, 1250), (1, 2, 1250)))  # 40 ms each
    assert paced.told(pacer.advance(50 * MS)) == [((40 + latency_ms) * MS, 1, 0)]
    pacer.lose(1, 50 * MS)
    pacer.put(60 * MS, paced.entries(0, (2, 3, 1250)))
    later = paced.told(pacer.advance(200 * MS))
    assert later == [((80 + latency_ms) * MS, 2, 1), ((160 + latency_ms) * MS, 2, 3)], "as before"
    pacer.close(200 * MS)
    (row,) = [row for row in pacer.links.ledger.rows() if row["node"] == 0]
    at = row["to"].index(1)
    assert (row["made"][at], row["delivered"][at], row["dropped_lost_node"][at]) == (2, 1, 1)
    assert row["dropped_lost_node_bytes"][at] == 5000
    assert pacer.totals.sent == 4


def test_nothing_is_handed_to_a_lost_node_where_links_ask_nothing() -> None:
    pacer = Pacer(node=0, model=paced.network(up=float("inf")))
    pacer.lose(1, 0)
    pacer.put(0, paced.entries(0, (1, 0, 10), (2, 1, 10)))
    assert paced.told(pacer.advance(MS)) == [(0, 2, 1)]
    pacer.close(MS)


@pytest.mark.parametrize("began", ["before", "after"])
def test_who_has_ended_grants_nothing_and_holds_nothing_up(began: str) -> None:
    model = paced.network(up=1e6, down=1e6, contention="both")
    pacer = Pacer(node=0, model=model)
    assert pacer.granted is not None
    if began == "after":
        pacer.lose(1, 0)
    pacer.put(0, paced.entries(0, (1, 0, 1250), (2, 1, 1250)))
    assert pacer.advance(20 * MS) == []
    if began == "before":
        assert pacer.advance(70 * MS) == [], "it waits for the grant, though its uplink is through"
        pacer.lose(1, 70 * MS)
    assert pacer.advance(75 * MS) == []
    offered = [offer.destination for offer in pacer.granted.offers]
    assert offered == ([1, 2] if began == "before" else [2])
    start_ns = (70 if began == "before" else 40) * MS
    assert pacer.granted.offers[-1].start_ns == start_ns, "the slot was free from then on"
    pacer.grant(1, start_ns + 40 * MS, 40 * MS)
    assert paced.told(pacer.advance(200 * MS)) == [(start_ns + 40 * MS, 2, 1)]
    pacer.close(200 * MS)


def test_what_a_lost_sender_had_on_offer_takes_nothing_of_the_downlink() -> None:
    downlink = Downlink(3, paced.network(up=2e6, down=1e6, contention="both"))
    for sender, sequence in ((0, 0), (0, 1), (1, 0)):
        downlink.offer(sender, sequence, 0, 5000)
    downlink.lose(0, 60 * MS)  # each has a third of its 40 ms by then, half of it in bits
    (grant,) = downlink.advance(1000 * MS)
    assert (grant.sender, grant.end_ns) == (1, 80 * MS)
    assert downlink.next_ns() == INFINITE_NS


def test_what_a_dead_receiver_held_up_is_no_error_of_the_links() -> None:
    pacer = Pacer(node=0, model=paced.network(up=1e6, down=1e6, contention="both"))
    pacer.put(0, paced.entries(0, (1, 0, 1250)))
    pacer.advance(60 * MS)
    pacer.lose(1, 6000 * MS)
    pacer.advance(6000 * MS)
    ((to, link),) = pacer.transfers
    assert (to, link.asked_ns) == (1, 6000 * MS), "as long as it took, since nobody knows better"
    pacer.close(6000 * MS)


def test_no_account_is_missed_of_lost_nodes() -> None:
    assert merge([], 2)["verdict"] == NOT_CHECKED
    assert merge([], 2, 2)["reasons"] == merge([], 0)["reasons"]


def test_silence_is_nobodys_fault_while_a_lost_node_is_waited_for() -> None:
    box = mailbox(by_round=True, timeout_s=0.05)
    assert box.wait(0, 1, 0.3, str, patient=True), "the time is over"
    with pytest.raises(StalledError):
        box.wait(0, 1, 0.3, str)
    box.lose(1, 0)
    assert box.take_ended() == [(1, 0)]
    assert box.wait(0, 1, 0.01, str), "the time is over"


# Media over sockets


def test_who_waits_is_interrupted_when_the_lost_node_is_given_up(make: Make, told: Told) -> None:
    model = network()
    a = make(0, model, by_round=True, orders=told, patience_ns=200 * MS)
    b = make(1, model, by_round=True)
    start(a, b)
    b.put([(0, fragment(1, t=0)), (0, fragment(1, t=1))], role=Role.KEEP)
    assert len(a.wait(tag=0, count=1, **FOR_EVER)) >= 1
    told.tell([GONE, 2])
    began_ns = a.now_ns()
    a.wait(tag=0, count=5, **FOR_EVER)
    assert a.interrupted
    assert a.now_ns() - began_ns >= 190 * MS
    assert a.losses.by(a.now_ns()) == {2}
    a.wait(tag=0, count=1, until_ns=a.now_ns() + 10 * MS, then_ns=0, what=str)
    assert not a.interrupted, "once for each loss"


def test_who_waits_for_a_lost_node_for_longer_than_for_a_silent_one_is_not_stalled(
    make: Make, told: Told
) -> None:
    a = make(0, network(), by_round=True, orders=told, patience_ns=400 * MS, timeout_s=0.15)
    start(a)
    told.tell([GONE, 1, 2])
    a.wait(tag=0, count=1, **FOR_EVER)
    assert a.interrupted
    assert set(a.losses) == {1, 2}
    with pytest.raises(StalledError):
        a.wait(tag=0, count=1, **FOR_EVER)


def test_who_has_all_it_waits_for_is_not_interrupted(make: Make, told: Told) -> None:
    a = make(0, network(), by_round=True, orders=told, patience_ns=round(LONG_S * NS_PER_S))
    b = make(1, network(), by_round=True)
    start(a, b)
    told.tell([GONE, 2])
    timer = threading.Timer(0.2, lambda: b.put([(0, fragment(1))], role=Role.KEEP))
    timer.start()
    (message,) = a.wait(tag=0, count=1, **FOR_EVER)
    timer.join()
    assert message.sender == 1
    assert not a.interrupted
    assert not a.losses, "it is still waited for"
    assert a.now_ns() < LONG_S / 2 * NS_PER_S


def test_nothing_of_a_node_that_was_given_up_comes_after_all(make: Make, told: Told) -> None:
    a, b = make(0, network(), orders=told), make(1, network())
    start(a, b)
    told.tell([GONE, 1])
    a.wait(tag=ANY, count=1, **FOR_EVER)
    assert a.interrupted
    b.put([(0, fragment(1))], role=Role.LATEST)
    assert b.totals.sent == 1
    assert a.wait(tag=ANY, count=1, until_ns=a.now_ns() + 100 * MS, then_ns=0, what=str) == []
    a.put([(1, fragment(0))], role=Role.LATEST)
    assert a.totals.sent == 1
    for medium in (a, b):
        medium.close()
    rows = link_rows([a.report(), b.report()])
    for row, fate in zip(rows, ("dropped_lost_node", "in_flight"), strict=True):
        at = row["to"].index(1 - row["node"])
        assert (row["made"][at], row[fate][at]) == (1, 1)


def test_collecting_and_computing_take_note_of_losses_too(make: Make, told: Told) -> None:
    a = make(0, network(), orders=told)
    start(a)
    told.tell([GONE, 1])
    while not a.losses:
        a.compute(lambda poll: None, 0)
    told.tell([GONE, 2])
    while len(a.losses) < 2:
        a.collect(0)
    assert set(a.losses) == {1, 2}


def test_all_that_are_left_have_left(make: Make, told: Told) -> None:
    a = make(0, network(), orders=told)
    start(a)
    body = threading.Thread(target=a.rest)
    body.start()
    told.tell([GONE, 1])
    body.join(0.2)
    assert body.is_alive()
    told.tell(REST)
    told.tell("release")
    body.join(LONG_S)
    assert not body.is_alive()
    a.close()
    assert told.read() == "release", "what comes afterwards is not the links' to read"


def test_an_order_that_nobody_knows_ends_the_node(make: Make, told: Told) -> None:
    a = make(0, network(), orders=told)
    start(a)
    told.tell(["dance", 1])
    with pytest.raises(RunFailed, match=r"ordered to 'dance', expected 'rest' or 'gone'"):
        a.wait(tag=ANY, count=1, **FOR_EVER)


def test_snapshots_still_reach_the_observer(make: Make, told: Told, open_transport: Open) -> None:
    a, observer = make(0, network(), orders=told), open_transport(3)
    start(a)
    told.tell([GONE, 1])
    a.wait(tag=ANY, count=1, **FOR_EVER)
    a.observe(fragment(0, 5.0)._replace(kind=Kind.SNAPSHOT))
    (snapshot,) = observer.receive(lambda: "a snapshot")
    assert snapshot.values[0] == 5.0


# The launcher


def test_all_that_are_not_lost_have_left() -> None:
    """The last whose rounds were not over is lost, or the last that is left comes to its end."""
    for last in ("lost", "left"):
        made = Supervisor(dict.fromkeys(range(5), "a"), observer=4, max_rounds=10, goes_on=True)
        for member in range(5):
            made.ready(member)
        assert made.left(0) == made.left(1) == []
        if last == "lost":
            assert made.left(2) == []
            assert made.exited(3, -9) == [("gone", 3), "rest"]
        else:
            assert made.exited(3, -9) == [("gone", 3)]
            assert made.left(2) == ["rest"]
        assert [order for member in (0, 1, 2, 4) for order in made.done(member)] == ["release"]
        assert [order for member in (0, 1, 2, 4) for order in made.exited(member, 0)] == []
        assert made.state == "done"


def test_one_that_has_left_and_is_lost_then_does_not_make_the_others_rest_twice() -> None:
    made = Supervisor(dict.fromkeys(range(4), "a"), observer=3, max_rounds=10, goes_on=True)
    for member in range(4):
        made.ready(member)
    assert [order for node in range(3) for order in made.left(node)] == ["rest"]
    assert made.exited(2, -9) == [("gone", 2)]
