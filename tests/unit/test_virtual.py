"""A node's half of emulated time: through the whole stack in one process, against arithmetic."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decentral.errors import Deadlock, RunFailed
from decentral.medium import Outgoing
from decentral.messages import Kind, Message
from decentral.network.model import INFINITE_NS
from decentral.payloads import Inbox, Outbox
from decentral.speech import ANY, Role
from decentral.virtual import VirtualMedium
from tests.emulated import Inline, account, message, network, to, train

JUMBLES = [None, 1, 2, 3]
jumbled = pytest.mark.parametrize("jumble", JUMBLES)


def content(messages: list[Message]) -> list[tuple[int, int, float]]:
    return [(one.sender, one.round, float(one.values[0])) for one in messages]


def words() -> str:
    return "whatever the test waits for"


def rest(duration_ns: int) -> Callable[[VirtualMedium], None]:
    """Computes for so long and takes nothing."""

    def body(medium: VirtualMedium) -> None:
        medium.compute(train, duration_ns)

    return body


# Time


def test_computing_takes_what_the_model_says_and_nothing_else_does() -> None:
    made = Inline(network(1))
    times: list[int] = []

    def body(medium: VirtualMedium) -> None:
        result, messages = medium.compute(lambda poll: "result", 700)
        assert (result, messages) == ("result", [])
        times.append(medium.now_ns())
        with medium.paused():
            medium.observe(message(0))
        times.append(medium.now_ns())
        medium.compute(train, 300)
        times.append(medium.now_ns())

    made.run(body)
    assert times == [700, 700, 1000]
    assert len(made.observed) == 1


@jumbled
def test_refills_with_a_flush(jumble: int | None) -> None:
    """DivShare: 4 fragments of 40 ns for every round of 100 ns, latency 5.

    The first two of round 1 leave at 140 and 180; the third is under way at the refill at 200 and leaves at
    220, the fourth is dropped. Of round 2 two leave, at 260 and 300; the refill of 300 comes before the
    second's end and drops the rest. Round 3 leaves whole: 340, 380, 420, 460.
    """
    made = Inline(network(2, latency_ns=5), jumble=jumble)
    seen: dict[int, list[float]] = {}

    def sender(medium: VirtualMedium) -> None:
        for t in range(1, 4):
            medium.compute(train, 100)
            fragments = [to(1, 40, sender=0, round_=t, k=k, value=10 * t + k) for k in range(4)]
            medium.put(fragments, role=Role.LATEST, flush=True)
            medium.collect(100 if t < 3 else 0)
        medium.compute(train, 100)
        assert medium.totals == (7, 280, 3, 120)
        medium.compute(train, 100)

    def receiver(medium: VirtualMedium) -> None:
        for at_ns in (144, 145, 224, 225, 305, 344, 345, 465, 500):
            _, got = medium.compute(train, at_ns - medium.now_ns())
            seen[at_ns] = [value for _, _, value in content(got)]

    made.run(sender, receiver)
    assert seen == {
        144: [],
        145: [10],
        224: [11],
        225: [12],
        305: [20, 21],
        344: [],
        345: [30],
        465: [31, 32, 33],
        500: [],
    }
    assert made.media[0].totals == (9, 360, 3, 120)
    assert made.links.busy_ns[0] == 360
    assert account(made.ledger)["dropped_flush"] == 3


@jumbled
@pytest.mark.parametrize("eager", [False, True])
def test_rounds_in_step(eager: bool, jumble: int | None) -> None:
    """Two nodes of 100 and 170 ns a round, messages of 40 bytes, latency 10: the slower starts each round."""
    made = Inline(network(2, latency_ns=10), eager=eager, jumble=jumble)
    times: dict[int, list[int]] = {0: [], 1: []}

    def node(me: int, compute_ns: int) -> Callable[[VirtualMedium], None]:
        def body(medium: VirtualMedium) -> None:
            early: dict[int, list[float]] = {}

            def keep(got: list[Message]) -> None:
                for sender, round_, value in content(got):
                    assert sender == 1 - me
                    early.setdefault(round_, []).append(value)

            for t in range(4):
                keep(medium.compute(train, compute_ns)[1])
                medium.put([to(1 - me, 40, sender=me, round_=t, value=t)], role=Role.KEEP)
                then, count = compute_ns if t < 3 else 0, int(t not in early)
                until_ns = INFINITE_NS if count else medium.now_ns()
                keep(medium.wait(tag=t, count=count, until_ns=until_ns, then_ns=then, what=words))
                assert early.pop(t) == [t]
                times[me].append(medium.now_ns())

        return body

    made.run(node(0, 100), node(1, 170), drop=False)
    ends = [(0, 0)]
    for _ in range(4):
        ready = ends[-1][0] + 100, ends[-1][1] + 170
        ends.append((max(ready[0], ready[1] + 50), max(ready[1], ready[0] + 50)))
    assert list(zip(times[0], times[1], strict=True)) == ends[1:]
    assert times[0][-1] == 760
    assert account(made.ledger)["delivered"] == 8


def test_a_wait_with_an_end() -> None:
    made = Inline(network(2))

    def impatient(medium: VirtualMedium) -> None:
        assert medium.wait(tag=ANY, count=1, until_ns=50, then_ns=0, what=words) == []
        assert medium.now_ns() == 50
        assert medium.wait(tag=ANY, count=1, until_ns=20, then_ns=0, what=words) == []
        assert medium.now_ns() == 50, "an end in the past is now"

    made.run(impatient, rest(10))


# Requests


@jumbled
def test_a_request_is_served_in_the_middle_of_a_window_from_the_model_of_then(jumble: int | None) -> None:
    """Asked at 100; 40 bytes, latency 10: there at 150, back at 200. The passive computes 60..1000."""
    made = Inline(network(2, latency_ns=10), jumble=jumble)
    model = [1.0]
    replies: list[tuple[int, float]] = []

    def serve(requester: int, request: Message | None) -> Message:
        assert request is not None
        assert (requester, request.sender, request.kind) == (0, 0, Kind.REQUEST)
        model[0] += float(request.values[0])
        return message(1, size=10, value=model[0])._replace(kind=Kind.REPLY)

    def passive(medium: VirtualMedium) -> None:
        medium.serve(serve)
        medium.compute(train, 60)
        model[0] *= 10
        medium.compute(train, 940)
        model[0] *= 100

    def active(medium: VirtualMedium) -> None:
        medium.compute(train, 100)
        request = message(0, size=10, value=5.0)._replace(kind=Kind.REQUEST)
        tag = medium.request(1, request)
        (reply,) = medium.wait(tag=tag, count=1, until_ns=INFINITE_NS, then_ns=0, what=words)
        replies.append((medium.now_ns(), float(reply.values[0])))
        assert reply.kind is Kind.REPLY

    made.run(active, passive)
    assert replies == [(200, 15.0)]
    assert model == [1500.0]
    assert made.media[1].now_ns() == 1000


@jumbled
def test_requests_are_served_in_order_also_after_leaving(jumble: int | None) -> None:
    made = Inline(network(3, latency_ns=10), jumble=jumble)
    order: list[tuple[int, float]] = []

    def serve(requester: int, request: Message | None) -> Message:
        assert request is not None
        order.append((requester, float(request.values[0])))
        return message(2)._replace(kind=Kind.REPLY)

    def passive(medium: VirtualMedium) -> None:
        medium.serve(serve)
        medium.compute(train, 5)

    def active(me: int, step: int) -> Callable[[VirtualMedium], None]:
        def body(medium: VirtualMedium) -> None:
            for t in range(4):
                medium.compute(train, step)
                tag = medium.request(2, message(me, t, value=t)._replace(kind=Kind.REQUEST))
                assert medium.wait(tag=tag, count=1, until_ns=INFINITE_NS, then_ns=0, what=words)

        return body

    made.run(active(0, 100), active(1, 235), passive)
    # A round of node 0 lasts 100 + 4 + 10 + 4 + 10 = 128, one of node 1 263; a request is there 14 before.
    arrivals = sorted([(128 * t + 114, 0, t) for t in range(4)] + [(263 * t + 249, 1, t) for t in range(4)])
    assert order == [(node, float(t)) for _, node, t in arrivals]
    assert made.media[2].now_ns() == made.timekeeper.now_ns == 263 * 4


def test_a_request_to_who_serves_none_is_an_error() -> None:
    made = Inline(network(2))

    def asks(medium: VirtualMedium) -> None:
        tag = medium.request(1, message(0)._replace(kind=Kind.REQUEST))
        medium.wait(tag=tag, count=1, until_ns=INFINITE_NS, then_ns=0, what=words)

    with pytest.raises(RunFailed, match="node 1 got a request of node 0 but serves none"):
        made.run(asks, rest(50))


@jumbled
def test_a_message_that_arrived_before_a_request_is_not_lost_to_it(jumble: int | None) -> None:
    """The request is taken when it is served; the message before it only when the node asks."""
    made = Inline(network(2, latency_ns=10), jumble=jumble)
    got: list[tuple[int, int, float]] = []

    def passive(medium: VirtualMedium) -> None:
        medium.serve(lambda requester, request: message(1)._replace(kind=Kind.REPLY))
        _, arrived = medium.compute(train, 1000)
        got.extend(content(arrived))

    def active(medium: VirtualMedium) -> None:
        medium.put([to(1, 40, sender=0, value=7.0)], role=Role.LATEST)
        tag = medium.request(1, message(0)._replace(kind=Kind.REQUEST))
        medium.wait(tag=tag, count=1, until_ns=INFINITE_NS, then_ns=0, what=words)

    made.run(active, passive)
    assert got == [(0, 0, 7.0)]


@jumbled
def test_pings_bring_back_what_the_other_makes(jumble: int | None) -> None:
    made = Inline(network(2), jumble=jumble)
    got: list[tuple[int, int, float]] = []

    def pinged(medium: VirtualMedium) -> None:
        medium.serve(lambda requester, request: message(1, value=9.0))
        _, arrived = medium.compute(train, 100)
        assert content(arrived) == [(0, 0, 3.0)]

    def pinging(medium: VirtualMedium) -> None:
        medium.put([to(1, 40, sender=0, value=3.0)], role=Role.PING)
        got.extend(content(medium.wait(tag=ANY, count=1, until_ns=500, then_ns=0, what=words)))
        assert medium.now_ns() == 40 + 40

    made.run(pinging, pinged)
    assert got == [(1, 0, 9.0)]


# Refusals


def failing(body: Callable[[VirtualMedium], None], text: str) -> None:
    with pytest.raises(RunFailed, match=text):
        Inline(network(2)).run(body, rest(1000))


def test_a_queue_is_filled_before_messages_are_collected() -> None:
    def body(medium: VirtualMedium) -> None:
        medium.compute(train, 10)
        medium.collect(90)
        medium.put([to(1, 40, sender=0)], role=Role.LATEST)

    failing(
        body, r"node 0 puts messages into its queue at 0.000000 s, after it collected those of this round"
    )


def test_messages_are_collected_once_a_round() -> None:
    def body(medium: VirtualMedium) -> None:
        medium.compute(train, 10)
        medium.collect(90)
        medium.collect(90)

    failing(body, r"node 0 speaks at .* though it promised to do nothing before")


def test_what_is_queued_for_later_is_queued_in_order() -> None:
    def body(medium: VirtualMedium) -> None:
        medium.put([to(1, 40, sender=0)], role=Role.LATEST, at_ns=50)
        medium.put([to(1, 40, sender=0)], role=Role.LATEST)

    failing(body, "queue what is sooner first")
    failing(lambda medium: medium.put([], role=Role.LATEST, at_ns=-1), "node 0 puts messages")


@jumbled
def test_messages_queued_for_the_middle_of_a_window_leave_then(jumble: int | None) -> None:
    made = Inline(network(2), jumble=jumble)

    def ticking(medium: VirtualMedium) -> None:
        for at_ns in (30, 60):
            medium.put([to(1, 20, sender=0, value=at_ns)], role=Role.LATEST, at_ns=at_ns)
        medium.compute(train, 100)

    def receiver(medium: VirtualMedium) -> None:
        for at_ns in (50, 80):
            got = medium.wait(tag=ANY, count=1, until_ns=INFINITE_NS, then_ns=0, what=words)
            assert (medium.now_ns(), content(got)) == (at_ns, [(0, 0, at_ns - 20.0)])

    made.run(ticking, receiver)


def test_waiting_for_nobody_is_a_deadlock() -> None:
    def body(medium: VirtualMedium) -> None:
        medium.wait(tag=3, count=2, until_ns=INFINITE_NS, then_ns=0, what=words)

    with pytest.raises(Deadlock, match=r"node 0 waits since 0.000000 s for 2 more messages of round 3"):
        Inline(network(2)).run(body, rest(10))


def test_at_the_limit_the_next_window_is_promised_to_nobody() -> None:
    """Both sides of a promise agree on it: what is left of the round may still be queued."""
    made = Inline(network(2), limit_ns=10)

    def body(medium: VirtualMedium) -> None:
        medium.compute(train, 10)
        medium.collect(90)
        medium.put([to(1, 4, sender=0)], role=Role.LATEST)

    made.run(body, rest(50), drop=False)
    assert account(made.ledger)["delivered"] == 1


# What is held


@pytest.mark.parametrize("loss", [0.0, 0.3])
@pytest.mark.parametrize("flush", [False, True])
@pytest.mark.parametrize("concurrency", [1, None])
@jumbled
def test_payloads_are_held_no_longer_than_they_are_needed(
    loss: float, flush: bool, concurrency: int | None, jumble: int | None
) -> None:
    """Many rounds, with a flush more than fits into them; one node leaves early and is still sent to."""
    model = network(3, latency_ns=30, loss=loss, concurrency=concurrency)
    made = Inline(model, jumble=jumble)
    sizes: list[int] = []

    def node(me: int, rounds: int) -> Callable[[VirtualMedium], None]:
        def body(medium: VirtualMedium) -> None:
            for t in range(rounds):
                medium.compute(train, 100)
                count = 6 if flush else 3
                out = [to((me + 1 + k % 2) % 3, 32, sender=me, round_=t, k=k) for k in range(count)]
                medium.put(out, role=Role.LATEST, flush=flush)
                medium.collect(100 if t + 1 < rounds else 0)
                sizes.append(len(medium._outbox) + sum(len(each._inbox) for each in made.media))

        return body

    made.run(node(0, 120), node(1, 3), node(2, 120))
    assert max(sizes) <= 40
    assert [len(medium._inbox) for medium in made.media][1] == 0, "who has left holds nothing"
    assert not any(medium._owed for medium in made.media)


def test_answers_that_were_lost_are_forgotten() -> None:
    made = Inline(network(2, loss=0.4))

    def asks(medium: VirtualMedium) -> None:
        for t in range(200):
            medium.compute(train, 10)
            tag = medium.request(1, message(0, t)._replace(kind=Kind.REQUEST))
            medium.wait(tag=tag, count=1, until_ns=medium.now_ns() + 20, then_ns=0, what=words)
            assert len(medium._outbox) <= 3 + 20
            assert len(made.media[1]._replies) <= 20

    def passive(medium: VirtualMedium) -> None:
        medium.serve(lambda requester, request: message(1)._replace(kind=Kind.REPLY))

    made.run(asks, passive)
    assert account(made.ledger)["dropped_loss"] > 50


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["put", "start", "flush"])), max_size=40))
def test_an_outbox_gives_every_payload_once_and_forgets_what_cannot_start(
    steps: list[tuple[int, str]],
) -> None:
    """Against a list: what starts takes along what was queued for the same destination before it."""
    outbox = Outbox()
    waiting: list[tuple[int, Outgoing]] = []
    sequence = 0
    for which, step in steps:
        if step == "put":
            entry = (which, message(0, sequence))
            outbox.put(sequence, entry)
            waiting.append((sequence, entry))
            sequence += 1
        elif step == "start" and waiting:
            started, entry = waiting[which % len(waiting)]
            assert outbox.take(started) is entry
            assert outbox.take(started) is None
            waiting = [each for each in waiting if each[1][0] != entry[0] or each[0] > started]
        elif step == "flush":
            before = sequence - which
            outbox.forget(before)
            waiting = [each for each in waiting if each[0] >= before]
        assert len(outbox) == len(waiting)
    for number, entry in waiting:
        assert outbox.take(number) is entry
    assert len(outbox) == 0


@pytest.mark.parametrize("concurrency", [1, None])
@jumbled
def test_what_a_flush_cuts_off_is_never_pushed(concurrency: int | None, jumble: int | None) -> None:
    """A sender so slow that none of its transfers ever ends leaves nothing with its receivers."""
    model = network(3, rates=[0.1, 1.0, 1.0], abort_on_flush=True, concurrency=concurrency, latency_ns=3)
    made = Inline(model, jumble=jumble)
    sizes: list[int] = []

    def node(me: int) -> Callable[[VirtualMedium], None]:
        def body(medium: VirtualMedium) -> None:
            for t in range(60):
                medium.compute(train, 100)
                out = [to((me + 1 + k) % 3, 40, sender=me, round_=t) for k in range(2)]
                medium.put(out, role=Role.LATEST, flush=True)
                medium.collect(100 if t < 59 else 0)
                sizes.append(len(medium._outbox) + sum(len(each._inbox) for each in made.media))

        return body

    made.run(node(0), node(1), node(2))
    assert account(made.ledger)["dropped_abort"] >= 59
    assert max(sizes) <= 12


def test_who_has_left_keeps_requests_only() -> None:
    inbox = Inbox()
    inbox.put([message(4), message(4)._replace(sequence=1, kind=Kind.REQUEST)])
    inbox.close()
    inbox.put([message(5), message(5)._replace(sequence=1, kind=Kind.REQUEST)])
    assert len(inbox) == 2
    assert inbox.take(4, 1) is not None
    assert inbox.take(5, 1) is not None


def test_what_a_message_weighs_can_be_said_otherwise() -> None:
    made = Inline(network(2))
    medium = VirtualMedium(
        node=0, wire=made.wires[0], eager=False, payload_bytes=lambda one: 1000 * one.values.size
    )
    assert medium.payload_bytes(message(0, size=3)) == 3000
    assert made.media[0].payload_bytes(message(0, size=3)) == 12
