"""A node in real time: its clock, its mailbox, and two or three media over real sockets."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from decentral.accounts import link_rows
from decentral.clock import NS_PER_S, WallClock
from decentral.errors import DecentralError, RunFailed, StalledError
from decentral.fidelity import NOT_TRUSTWORTHY, merge
from decentral.messages import Kind, Message
from decentral.network.model import INFINITE_NS, Transfer
from decentral.speech import ANY, Role
from decentral.transports.batches import Batch
from decentral.transports.receiving import REST
from decentral.transports.zeromq import ZmqTransport
from tests.real_time import (
    LONG_S,
    MS,
    NODES,
    OBSERVER,
    Make,
    Open,
    Told,
    fragment,
    mailbox,
    make,
    network,
    open_transport,
    receive,
    start,
    told,
)

__all__ = ["make", "open_transport", "told"]  # fixtures

# The clock


def test_the_clock_runs_from_start_and_stands_still_while_paused(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000]
    monkeypatch.setattr(time, "monotonic_ns", lambda: now[0])
    clock = WallClock()
    now[0] += 5
    assert clock.now_ns() == 5
    clock.start()
    assert clock.now_ns() == 0
    now[0] += 10
    with clock.paused():
        now[0] += 70
        assert (clock.now_ns(), clock.running) == (10, False), "an evaluation is stamped with its beginning"
    assert (clock.now_ns(), clock.running) == (10, True)

    def fail() -> None:
        with clock.paused():
            now[0] += 70
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    now[0] += 3
    assert clock.now_ns() == 13


# The mailbox


def test_messages_are_waited_for_by_round_or_whatever_comes() -> None:
    box = mailbox(by_round=True)
    box.deliver([fragment(1, t=1), fragment(2, t=0), fragment(3, t=0)], 0)
    assert box.wait(0, 2, None, str)
    assert [message.sender for message in box.take(0)] == [1, 2, 3]
    box.deliver([fragment(2, t=1)], 0)
    assert box.wait(1, 1, None, str)
    assert [message.sender for message in box.take(1)] == [2]
    for t in (0, 1):
        assert box.wait(t, 1, 0.001, str), "the time is over"
        assert box.take(t) == [], "what was taken does not count again, whenever it was waited for"
    box = mailbox()
    box.deliver([fragment(1, t=7)], 0)
    assert box.wait(ANY, 1, None, str)
    assert len(box.take()) == 1
    assert box.wait(ANY, 1, 0.001, str), "the time is over"
    assert box.take() == []


def test_a_newer_message_supersedes_one_that_was_not_taken() -> None:
    box = mailbox()
    box.deliver([fragment(1, k=0), fragment(1, k=1), fragment(2, k=0)], 0)
    box.deliver([fragment(1, k=0, floats=2)], 0)
    assert len(box.take()) == 4, "the node counts them; it knows which is the newest"
    box.deliver([fragment(1, k=0)], 0)
    assert dict(box.replaced) == {1: [1, 4]}
    assert {sender: tuple(tally) for sender, tally in box.received.items()} == {1: (4, 20), 2: (1, 4)}


def test_requests_wake_a_wait_and_answers_count_only_while_expected() -> None:
    box = mailbox()
    request = fragment(2)._replace(kind=Kind.REQUEST)
    box.deliver([request], 0)
    assert not box.wait(ANY, 1, None, str)
    assert box.requests.popleft() is request
    assert box.take() == [], "a request is served, not aggregated"
    box.expect(-5)
    late, answer = (fragment(1)._replace(kind=Kind.REPLY, sequence=tag) for tag in (-4, -5))
    box.deliver([late, answer], 0)
    assert box.wait(-5, 1, None, str)
    assert box.take(-5) == [late, answer], "the node knows what is late"
    assert box.wait(-4, 1, 0.0, str)


def test_silence_ends_a_wait_and_news_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    box = mailbox(by_round=True, timeout_s=0.05)
    with pytest.raises(StalledError, match=r"node 0 heard nothing for 0\.05 s while it waited for a sign"):
        box.wait(0, 1, None, lambda: "a sign")

    now_s = [time.monotonic()]
    monkeypatch.setattr(time, "monotonic", lambda: now_s[0])

    def news(timeout_s: float) -> None:
        assert timeout_s == pytest.approx(0.05)
        now_s[0] += 0.04
        box.deliver([fragment(1, t=0)], 0)

    monkeypatch.setattr(box._news, "wait", news)
    assert box.wait(0, 4, None, str), "each of them came within the timeout of the one before"


def test_the_end_of_a_thread_is_not_waited_out() -> None:
    box = mailbox()
    box.fail(ZeroDivisionError("why"))
    box.fail(KeyError("later"))
    for call in (box.check, box.take, box.await_release, lambda: box.wait(ANY, 1, None, str)):
        with pytest.raises(RunFailed, match="why") as caught:
            call()
        assert isinstance(caught.value.__cause__, ZeroDivisionError)


# Media over sockets


@pytest.mark.parametrize("contention", ["uplink", "both"])
def test_a_link_carries_what_it_should_when_it_should_or_says_that_it_did_not(
    make: Make, contention: str
) -> None:
    model = network(up=20e6, latency_ms=5, contention=contention)
    a, b = make(0, model), make(1, model)
    start(a, b)
    before_ns = a.now_ns()
    a.put([(1, fragment(0, value=k, floats=12_500, k=k)) for k in range(25)], role=Role.LATEST)  # 20 ms each
    messages = receive(b, 25)
    took_ns = a.now_ns() - before_ns
    assert [message.fragment for message in messages] == list(range(25))
    assert all((message.values == message.fragment).all() for message in messages)
    assert took_ns >= 505 * MS, "never faster than the link"
    a.close()
    b.close()
    reports = [medium.report() for medium in (a, b)]
    json.dumps(reports)
    merged = merge([report["fidelity"] for report in reports], 2)
    (link,) = merged["links"]
    assert link["transfers"] == 25
    assert link["asked_bps"] == pytest.approx(20e6)
    assert link["asked_latency_s"] == pytest.approx(0.005)
    if merged["verdict"] != NOT_TRUSTWORTHY:
        assert link["achieved_bps"] == pytest.approx(20e6, rel=0.05)
        assert link["achieved_latency_s"] == pytest.approx(0.005, abs=0.002)
        assert took_ns < 560 * MS
    row, _ = link_rows(reports)
    assert row["to"] == [1]
    assert row["made"] == [25]
    assert row["made_bytes"] == [25 * 50_000]
    assert row["delivered"][0] + row["replaced"][0] == 25
    assert row["in_flight"] == [0]


def test_a_refill_replaces_what_has_not_started(make: Make) -> None:
    transfers: list[Transfer] = []
    model = network(up=1e6)
    a, b = make(0, model, trace=transfers.append), make(1, model)
    start(a, b)
    stale = [(1, fragment(0, -1.0, floats=1250, k=k)) for k in range(50)]  # 40 ms each
    for t in range(20):
        a.put(stale, role=Role.LATEST, flush=True)
        a.put([(1, fragment(0, float(t), floats=1250, t=t))], role=Role.LATEST, flush=True)
    totals = a.totals
    assert totals.sent + totals.dropped >= 20 * 50 + 19 - 1, "all but what is in progress and the last refill"
    while receive(b)[-1].values[0] != 19:
        pass
    starts = [transfer.item.sequence for transfer in transfers]
    assert starts == sorted(starts)
    assert len(starts) <= 3, "B7: nothing of an older refill starts after a flush"
    a.close()
    row, *_ = link_rows([a.report()])
    assert row["dropped_flush"][0] + row["delivered"][0] + row["in_flight"][0] == row["made"][0] == 20 * 51


def test_unlimited_links_keep_order_and_send_at_once(make: Make) -> None:
    a, b = make(0, network()), make(1, network(), by_round=True)
    start(a, b)
    for t in range(3):
        a.put([(1, fragment(0, t=t, k=k)) for k in (2, 0, 1)], role=Role.KEEP)
        got = b.wait(tag=t, count=3, until_ns=INFINITE_NS, then_ns=0, what=str)
        assert [(message.round, message.fragment) for message in got] == [(t, 2), (t, 0), (t, 1)]
    assert a.totals == (9, 36, 0, 0)
    assert a.meta_bytes > 0
    assert not b.refused


def test_a_request_is_answered_while_its_receiver_trains(make: Make) -> None:
    model = network(up=50e6, latency_ms=1)
    a, b = make(0, model), make(1, model)
    served = threading.Event()

    def serve(requester: int, message: Message | None) -> Message:
        assert (requester, message is not None) == (0, True)
        assert message is not None
        served.set()
        return fragment(1, 2 * float(message.values[0]), t=message.round)._replace(kind=Kind.REPLY)

    b.serve(serve)
    start(a, b)

    def train(poll: Callable[[], None] | None) -> str:
        assert poll is not None
        deadline = time.monotonic() + LONG_S
        while not served.is_set() and time.monotonic() < deadline:
            poll()
            time.sleep(0.001)
        return "trained"

    body = threading.Thread(target=lambda: results.append(b.compute(train, 5 * MS)))
    results: list[tuple[str, list[Message]]] = []
    body.start()
    request = fragment(0, 21.0, t=4)._replace(kind=Kind.REQUEST)
    tag = a.request(1, request)
    (reply,) = a.wait(tag=tag, count=1, until_ns=INFINITE_NS, then_ns=0, what=lambda: "the answer")
    body.join()
    assert (reply.kind, reply.sender, reply.round, reply.values[0]) == (Kind.REPLY, 1, 4, 42.0)
    assert results == [("trained", [])]
    until_ns = a.now_ns() + 5 * MS
    assert a.wait(tag=tag, count=1, until_ns=until_ns, then_ns=0, what=str) == []
    assert a.now_ns() >= until_ns


def test_a_ping_arrives_and_is_answered_for_the_other_mailbox(make: Make) -> None:
    a, b = make(0, network()), make(1, network())
    asked: list[Message | None] = []

    def pong(requester: int, message: Message | None) -> Message:
        asked.append(message)
        return fragment(1, 7.0)

    b.serve(pong)
    start(a, b)
    a.put([(1, fragment(0, 3.0))], role=Role.PING)
    messages: list[Message] = []
    while not messages:
        messages += b.wait(tag=ANY, count=1, until_ns=b.now_ns() + MS, then_ns=0, what=str)
    (answer,) = receive(a)
    assert asked == [None]
    assert [(m.kind, m.values[0]) for m in (*messages, answer)] == [
        (Kind.FRAGMENT, 3.0),
        (Kind.FRAGMENT, 7.0),
    ]


def test_messages_for_later_leave_at_their_time(make: Make) -> None:
    a, b = make(0, network()), make(1, network())
    start(a, b)
    at_ns = a.now_ns() + 60 * MS
    a.put([(1, fragment(0, 1.0))], role=Role.LATEST, at_ns=at_ns)
    a.put([(1, fragment(0, 0.0))], role=Role.LATEST)
    assert [message.values[0] for message in receive(b, 2)] == [0.0, 1.0]
    assert a.now_ns() >= at_ns


def test_transfers_stand_still_while_the_clock_is_paused(make: Make) -> None:
    model = network(up=1e6)
    a, b = make(0, model), make(1, model)
    start(a, b)
    a.put([(1, fragment(0, floats=1250))], role=Role.LATEST)  # 40 ms
    with a.paused():
        until_ns = b.now_ns() + 150 * MS
        assert b.wait(tag=ANY, count=1, until_ns=until_ns, then_ns=0, what=str) == []
    receive(b)
    assert 40 * MS <= a.now_ns() < 40 * MS + LONG_S * NS_PER_S


def test_snapshots_pass_the_queue(make: Make, open_transport: Open) -> None:
    model = network(up=1e6)
    a, observer = make(0, model), open_transport(OBSERVER)
    start(a)
    a.put([(1, fragment(0, floats=125_000))], role=Role.LATEST)  # 4 s
    a.observe(fragment(0, 5.0)._replace(kind=Kind.SNAPSHOT))
    (snapshot,) = observer.receive(lambda: "a snapshot")
    assert (snapshot.kind, snapshot.values[0]) == (Kind.SNAPSHOT, 5.0)
    assert a.now_ns() < 4 * NS_PER_S
    assert a.totals == (0, 0, 0, 0)


def test_who_serves_stays_until_all_have_left(make: Make, told: Told) -> None:
    said: list[str] = []
    a, b = make(0, network()), make(1, network(), orders=told, left=lambda: said.append("left"))
    b.serve(lambda requester, message: fragment(1, 9.0)._replace(kind=Kind.REPLY))
    start(a, b)
    a.linger()  # serves nothing: returns
    b.leave(drop=True)
    assert said == ["left"]
    body = threading.Thread(target=b.linger)
    body.start()
    for _ in range(3):
        tag = a.request(1, fragment(0)._replace(kind=Kind.REQUEST))
        (reply,) = a.wait(tag=tag, count=1, until_ns=INFINITE_NS, then_ns=0, what=str)
        assert reply.values[0] == 9.0
    assert body.is_alive()
    told.tell(REST)
    body.join(LONG_S)
    assert not body.is_alive()


def test_leaving_drops_the_queue_or_still_sends_it(make: Make) -> None:
    model = network(up=1e6)
    a, b, c = (make(i, model) for i in range(3))
    start(a, b, c)
    outgoing = [(2, fragment(i, floats=1250, k=k)) for i in range(2) for k in range(3)]
    a.put(outgoing[:3], role=Role.LATEST)
    a.leave(drop=True)
    assert a.totals.dropped == 2
    b.put(outgoing[3:], role=Role.LATEST)
    b.leave(drop=False)
    assert sorted(message.sender for message in receive(c, 4)) == [0, 1, 1, 1]


def test_accounts_are_exact_whenever_the_run_is_cut(make: Make) -> None:
    model = network(up=1e6, latency_ms=30, loss=0.2, jitter_ns=20 * MS)
    media = [make(i, model) for i in range(NODES)]
    start(*media)
    for k in range(10):
        for i, medium in enumerate(media):
            others = [j for j in range(NODES) if j != i]
            medium.put(
                [(j, fragment(i, floats=100 * (k + 1), k=k)) for j in others],
                role=Role.LATEST,
                flush=k % 3 == 0,
            )
            medium.wait(tag=ANY, count=1, until_ns=medium.now_ns() + 3 * MS, then_ns=0, what=str)
    for medium in media:
        medium.close()
    rows = link_rows([medium.report() for medium in media])
    fates = (
        "delivered",
        "replaced",
        "dropped_flush",
        "dropped_abort",
        "dropped_loss",
        "dropped_end",
        "in_flight",
    )
    assert [row["node"] for row in rows] == [0, 1, 2]
    for row in rows:
        for unit, made in (("", 20), ("_bytes", 4 * 2 * 5500)):
            assert sum(row[f"made{unit}"]) == made
            for k in range(len(row["to"])):
                assert sum(row[f"{fate}{unit}"][k] for fate in fates) == row[f"made{unit}"][k]
                assert all(row[f"{fate}{unit}"][k] >= 0 for fate in fates)


def test_what_was_handed_over_and_not_received_is_in_flight() -> None:
    def report(node: int, received: list[list[int]], **links: list[int]) -> dict[str, Any]:
        names = ("delivered", "in_flight", "replaced", "delivered_bytes", "in_flight_bytes", "replaced_bytes")
        row = {"node": node, "to": [1 - node], **{name: [0] for name in names}, **links}
        return {"node": node, "links": row, "received": received, "replaced": [[1 - node, 1, 4]]}

    sender = report(0, [[1, 1, 4]], delivered=[5], delivered_bytes=[20])
    receiver = report(1, [[0, 3, 12]], delivered=[1], delivered_bytes=[4])
    row, _ = link_rows([sender, receiver])
    assert (row["delivered"], row["in_flight"], row["replaced"]) == ([2], [2], [1])
    assert (row["delivered_bytes"], row["in_flight_bytes"], row["replaced_bytes"]) == ([8], [8], [4])
    assert link_rows([sender])[0]["delivered"] == [5], "all that is known without the receiver"
    with pytest.raises(DecentralError, match="6 messages received, expected at most the 5"):
        link_rows([sender, report(1, [[0, 6, 24]])])


def test_an_error_of_the_sending_thread_reaches_the_node(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """B4: a sender that dies must not do so without a trace."""
    a = make(0, network())

    def send(self: ZmqTransport, batches: list[Batch]) -> int:
        raise ZeroDivisionError("the cable is cut")

    monkeypatch.setattr(ZmqTransport, "send", send)
    start(a)
    a.put([(1, fragment(0))], role=Role.LATEST)
    with pytest.raises(RunFailed, match="the cable is cut"):
        a.wait(tag=ANY, count=1, until_ns=INFINITE_NS, then_ns=0, what=str)
    assert a.totals.sent == 1, "it does not wait for a thread that is gone"
    a.close()
    with pytest.raises(RunFailed, match="the cable is cut"):
        a.report()


def test_a_medium_that_never_started_can_be_closed(make: Make) -> None:
    make(0, network()).close()
