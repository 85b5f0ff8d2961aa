"""The timekeeper against arithmetic: arrivals, ties, requests, refusals, deadlocks, the end, memory."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decentral.errors import RunFailed
from decentral.network.model import INFINITE_NS
from decentral.speech import ANY, Answer, Notice, Put, Role, Served, Speech, Stop, Telling
from decentral.timekeeper import Timekeeper
from tests.emulated import Leave, Script, account, forever, item, keep, network, play, until


def silent(node: int, until_ns: int) -> Script:
    """Does nothing until ``until_ns``, then leaves."""
    yield until(node, 0, until_ns)
    yield Leave(until_ns)


def once(node: int, put: Put, until_ns: int, *, drop: bool = True) -> Script:
    """One change of its queue, then nothing until ``until_ns``."""
    yield until(node, 0, until_ns, put)
    yield Leave(until_ns, drop)


def waiter(node: int, at_ns: int = 0, count: int = 1, tag: int = ANY) -> Script:
    """Computes until ``at_ns``, waits for messages, leaves when it has them."""
    if at_ns:
        yield until(node, 0, at_ns)
    answer = yield forever(node, at_ns, tag=tag, count=count)
    yield Leave(answer.at_ns)


# Arrivals


@pytest.mark.parametrize(("latency_ns", "arrives"), [(0, 110), (5, 115)])
def test_a_message_wakes_its_receiver_when_it_arrives(latency_ns: int, arrives: int) -> None:
    """100 bytes from 10 on: the last leaves at 110."""
    timekeeper, _, _ = keep(network(2, latency_ns=latency_ns))
    heard, _ = play(timekeeper, [once(0, Put(10, False, [item(1, 100, 0)]), 500), waiter(1)])
    assert [answer[:3] for answer in heard[1].answers] == [(arrives, True, ((0, 0),))]
    assert timekeeper.over
    assert timekeeper.now_ns == 500
    assert [each.stop and each.stop[0] for each in heard] == [500, 500]


@pytest.mark.parametrize(
    ("latency_ns", "looks", "sees"),
    [(0, 109, False), (0, 110, False), (0, 111, True), (5, 114, False), (5, 115, True), (5, 116, True)],
)
def test_who_looks_at_the_very_instant(latency_ns: int, looks: int, sees: bool) -> None:
    """Arrived by t: the transfer ended before t, and end + latency <= t."""
    timekeeper, _, _ = keep(network(2, latency_ns=latency_ns))
    heard, _ = play(timekeeper, [once(0, Put(10, False, [item(1, 100, 0)]), 500), silent(1, looks)])
    assert [answer[:3] for answer in heard[1].answers] == [(looks, True, ((0, 0),) if sees else ())]


def test_messages_leave_one_after_the_other_and_are_counted() -> None:
    timekeeper, _, ledger = keep(network(3))
    queue = [item(1, 100, 0), item(2, 50, 1), item(1, 25, 2)]

    def sender() -> Script:
        for now, then in ((0, 101), (101, 150), (150, 1000)):
            yield until(0, now, then, *([Put(0, False, queue)] if not now else []))
        yield Leave(1000)

    heard, _ = play(timekeeper, [sender(), waiter(1, count=2), waiter(2)])
    assert [answer[0] for answer in heard[0].answers] == [101, 150, 1000]
    assert [answer[3][:2] for answer in heard[0].answers] == [(1, 100), (1, 100), (3, 175)]
    assert [each.answers[-1][:3] for each in heard[1:]] == [
        (175, True, ((0, 0), (0, 2))),
        (150, True, ((0, 1),)),
    ]
    assert heard[0].started == [0, 1, 2]
    assert account(ledger)["delivered"] + account(ledger)["replaced"] == 3


def test_a_flush_drops_what_has_not_started_to_the_nanosecond() -> None:
    """Transfers of 100 ns from 0 on, a refill at 250: the third is under way, the fourth is dropped."""
    timekeeper, links, ledger = keep(network(3))

    def sender() -> Script:
        yield until(0, 0, 250, Put(0, False, [item(1 + k % 2, 100, k, k=k) for k in range(5)]))
        yield until(0, 250, 250, Put(250, True, [item(2, 100, 5, k=9)]), then_ns=750)
        yield until(0, 1000, 1000)
        yield Leave(1000)

    heard, _ = play(timekeeper, [sender(), silent(1, 1000), silent(2, 1000)])
    assert heard[0].started == [0, 1, 2, 5]
    assert [answer[3] for answer in heard[0].answers] == [
        (2, 200, 0, 0),
        (2, 200, 0, 0),
        (4, 400, 2, 200),
    ]
    assert heard[1].answers[0][2] == ((0, 0), (0, 2))
    assert heard[2].answers[0][2] == ((0, 1), (0, 5))
    assert account(ledger)["dropped_flush"] == 2
    assert links.busy_ns[0] == 400


def test_a_flush_at_the_end_of_a_transfer_comes_first() -> None:
    """The next in the queue would start at 100, when the first ends: it is dropped."""
    timekeeper, _, ledger = keep(network(2))
    puts = [Put(0, False, [item(1, 100, 0), item(1, 100, 1)]), Put(100, True, [])]

    def sender() -> Script:
        yield until(0, 0, 1000, *puts)
        yield Leave(1000)

    heard, _ = play(timekeeper, [sender(), silent(1, 1000)])
    assert heard[1].answers[0][2] == ((0, 0),)
    assert account(ledger)["dropped_flush"] == 1


@pytest.mark.parametrize("first", [0, 1])
def test_what_is_put_at_an_instant_changes_nothing_else_at_it(first: int) -> None:
    """Both look at 100 and put at 100; neither sees more for speaking later."""
    timekeeper, _, _ = keep(network(2))

    def both(node: int) -> Script:
        yield until(node, 0, 100, Put(0, False, [item(1 - node, 100, 0)]))
        yield until(node, 100, 100, Put(100, True, [item(1 - node, 10, 1)]), then_ns=50)
        answer = yield until(node, 150, 150)
        assert answer.arrived == [(1 - node, 0), (1 - node, 1)]
        yield Leave(150)

    heard, _ = play(timekeeper, [both(0), both(1)], lambda count: first % count)
    for node in range(2):
        assert [answer[2] for answer in heard[node].answers[:2]] == [(), ()]


@given(
    st.integers(2, 5).flatmap(
        lambda n: st.tuples(
            st.just(n),
            st.integers(1, n - 1),
            st.lists(st.lists(st.integers(1, 300), min_size=n, max_size=n), min_size=1, max_size=5),
            st.integers(1, 60),
            st.sampled_from([0, 7, 100]),
        )
    ),
    st.randoms(use_true_random=False),
)
def test_synchronous_rounds_follow_their_recursion(
    case: tuple[int, int, list[list[int]], int, int], chance: object
) -> None:
    """Node i ends round r when it has computed and all of its sources' messages are here.

    Of the ``degree`` messages, all of ``size`` bytes, the m-th leaves m * size after the queue is free.
    """
    n, degree, computes, size, latency = case
    ends = [[0] * n]
    free = [0] * n
    for compute in computes:
        ready = [ends[-1][i] + compute[i] for i in range(n)]
        arrived = list(ready)
        for i in range(n):
            free[i] = max(free[i], ready[i])
            for m in range(1, degree + 1):
                free[i] += size
                j = (i + m) % n
                arrived[j] = max(arrived[j], free[i] + latency)
        ends.append(arrived)

    def rounds(i: int) -> Script:
        now = 0
        missing = [degree] * len(computes)  # messages of a round that are still to come

        def note(answer: Answer) -> int:
            for _, sequence in answer.arrived:
                missing[(sequence - 1) // degree] -= 1
            return answer.at_ns

        for t, compute in enumerate(computes):
            now = note((yield until(i, now, now + compute[i])))
            out = [
                item((i + m) % n, size, t * degree + m, Role.KEEP, tag=t, k=m) for m in range(1, degree + 1)
            ]
            then = computes[t + 1][i] if t + 1 < len(computes) else 0
            wake = INFINITE_NS if missing[t] else now
            speech = Speech(i, now, [Put(now, False, out)], t, missing[t], wake, then)
            now = note((yield speech))
        yield Leave(now, False)

    def skipping(script: Script) -> Script:
        """Drops the words that promise what the answer before has promised already."""
        answer = yield next(script)
        while True:
            word = script.send(answer)
            if isinstance(word, Speech) and not word.puts:
                word = script.send(Answer(word.node, word.wake_ns, True, [], [], [], answer.totals))
            answer = yield word

    timekeeper, _, ledger = keep(network(n, latency_ns=latency), eager=True)
    heard, deadlock = play(timekeeper, [skipping(rounds(i)) for i in range(n)], chance.randrange)  # type: ignore[attr-defined]
    assert deadlock is None
    for i in range(n):
        assert [answer[0] for answer in heard[i].answers[1:]] == [end[i] for end in ends[1:]]
        assert all(answer[1] for answer in heard[i].answers)
    assert account(ledger)["delivered"] == n * degree * len(computes)
    assert timekeeper.now_ns == max(ends[-1])


# Requests


def served_ns(timekeeper: Timekeeper, passive: Script, at_ns: int = 100) -> tuple[int, list[Telling]]:
    """When the answer to a request of 50 bytes arrives that node 0 queues at ``at_ns``."""
    log: list[Telling] = []

    def requester() -> Script:
        yield until(0, 0, at_ns)
        tag = -2 - 7
        put = Put(at_ns, False, [item(1, 50, 7, Role.REQUEST)])
        answer = yield forever(0, at_ns, put, tag=tag)
        assert answer.complete
        assert answer.arrived == [(1, -1)]
        yield Leave(answer.at_ns)

    heard, _ = play(timekeeper, [requester(), passive], log=log)
    assert heard[1].served == [Served(0, 7, -1, False)]
    return heard[0].answers[-1][0], log


def test_a_request_is_answered_in_the_middle_of_a_compute_window() -> None:
    """There 100..150, +10; back 160..210, +10. Both sides are told what to push before the window ends."""
    timekeeper, _, ledger = keep(network(2, latency_ns=10))
    at_ns, log = served_ns(timekeeper, silent(1, 1000))
    assert at_ns == 220
    kinds = [(type(telling), telling.node) for telling in log]
    assert kinds.index((Notice, 1)) < kinds.index((Answer, 1))
    assert account(ledger)["delivered"] == 2


def test_an_answer_queues_behind_what_its_sender_sends() -> None:
    """There until 160; the passive's own 300 bytes of 0..300 go first; then 300..350, +10."""
    timekeeper, _, _ = keep(network(3, latency_ns=10))

    def passive() -> Script:
        yield until(1, 0, 1000, Put(0, False, [item(2, 300, 0)]))
        yield Leave(1000)

    log: list[Telling] = []

    def requester() -> Script:
        yield until(0, 0, 100)
        answer = yield forever(0, 100, Put(100, False, [item(1, 50, 7, Role.REQUEST)]), tag=-9)
        assert answer.at_ns == 360
        yield Leave(360)

    play(timekeeper, [requester(), passive(), silent(2, 10)], log=log)
    assert timekeeper.over


def test_a_node_that_has_left_goes_on_serving() -> None:
    timekeeper, _, _ = keep(network(2, latency_ns=10))
    at_ns, log = served_ns(timekeeper, silent(1, 20))
    assert at_ns == 220
    assert [telling.at_ns for telling in log if isinstance(telling, Stop)] == [220, 220]


def test_without_latency_nothing_takes_longer_than_its_bytes() -> None:
    timekeeper, _, _ = keep(network(2))
    assert served_ns(timekeeper, silent(1, 1000))[0] == 200


def test_a_request_that_arrives_when_the_run_ends_is_still_served() -> None:
    timekeeper, _, _ = keep(network(2, latency_ns=10))

    def requester() -> Script:
        yield until(0, 0, 105, Put(0, False, [item(1, 50, 0, Role.REQUEST)]), tag=-2, count=1)
        yield Leave(105)

    heard, _ = play(timekeeper, [requester(), silent(1, 20)])
    assert heard[0].answers[0][:3] == (105, False, ())
    assert heard[1].served == [Served(0, 0, -1, False)]
    assert heard[0].started == [0]


def test_an_answer_that_comes_too_late_is_no_answer_to_the_next_request() -> None:
    timekeeper, _, _ = keep(network(2, latency_ns=10))

    def requester() -> Script:
        answer = yield until(0, 0, 50, Put(0, False, [item(1, 50, 0, Role.REQUEST)]), tag=-2, count=1)
        assert not answer.complete
        answer = yield forever(0, 50, Put(50, False, [item(1, 20, 1, Role.REQUEST)]), tag=-3)
        # There 50..70, +10; back behind the first answer, 60..110: 110..130, +10.
        assert (answer.at_ns, answer.arrived) == (140, [(1, -1), (1, -2)])
        yield Leave(140)

    play(timekeeper, [requester(), silent(1, 1000)])
    assert timekeeper.over
    assert timekeeper._nodes[0].counts == {}


def test_a_ping_is_a_message_and_brings_one_back() -> None:
    """There 0..40; back 40..80, into the mailbox, where anybody's message counts."""
    timekeeper, _, _ = keep(network(2))
    heard, _ = play(
        timekeeper, [once(0, Put(0, False, [item(1, 40, 3, Role.PING)]), 100), waiter(1, tag=ANY)]
    )
    assert heard[1].answers[0][:3] == (40, True, ((0, 3),))
    assert heard[1].served == [Served(0, 3, -1, True)]
    assert heard[0].answers[0][2] == ((1, -1),)


def test_eager_nodes_are_not_told_what_they_have_pushed_but_of_their_answers() -> None:
    timekeeper, _, _ = keep(network(2, latency_ns=10), eager=True)

    def requester() -> Script:
        answer = yield forever(0, 0, Put(0, False, [item(1, 50, 0, Role.REQUEST)]), tag=-2)
        yield Leave(answer.at_ns)

    timekeeper._nodes[1].eager = True
    scripts = [requester(), silent(1, 1000)]
    told: list[Telling] = []
    for script in scripts:
        word = next(script)
        assert isinstance(word, Speech)
        timekeeper.speak(word)
        told += timekeeper.advance()
    assert [(telling.node, list(telling.started)) for telling in told if telling.started] == [(1, [-1])]


# Waiting


@pytest.mark.parametrize(
    ("until_ns", "complete", "answered"), [(114, False, 114), (115, True, 115), (200, True, 115)]
)
def test_a_wait_ends_at_the_message_or_at_its_time(until_ns: int, complete: bool, answered: int) -> None:
    timekeeper, _, _ = keep(network(2, latency_ns=5))

    def impatient() -> Script:
        answer = yield until(1, 0, until_ns, tag=ANY, count=1)
        assert (answer.at_ns, answer.complete) == (answered, complete)
        yield Leave(answer.at_ns)

    play(timekeeper, [once(0, Put(10, False, [item(1, 100, 0)]), 500), impatient()])
    assert timekeeper.over


def test_a_wait_for_what_has_arrived_is_over_at_once() -> None:
    timekeeper, _, _ = keep(network(2))

    def early() -> Script:
        yield until(1, 0, 300)
        answer = yield forever(1, 300, tag=4, count=2)
        assert (answer.at_ns, answer.arrived) == (300, [])
        yield Leave(300)

    queue = [item(1, 10, k, Role.KEEP, tag=4, k=k) for k in range(2)]
    heard, _ = play(timekeeper, [once(0, Put(0, False, queue), 500), early()])
    assert heard[1].answers[0][2] == ((0, 0), (0, 1)), "handed over when asked, whatever was waited for"


def test_a_woken_node_acts_before_anything_later() -> None:
    """Woken at 10 it sends at once: 10 more bytes arrive at 20, though others promised silence until 500."""
    timekeeper, _, _ = keep(network(3))

    def relay() -> Script:
        answer = yield forever(1, 0)
        yield until(1, answer.at_ns, 400, Put(answer.at_ns, False, [item(2, 10, 0)]))
        yield Leave(400)

    heard, _ = play(timekeeper, [once(0, Put(0, False, [item(1, 10, 0)]), 500), relay(), waiter(2)])
    assert heard[2].answers[0][0] == 20


def test_newer_messages_replace_older_ones_until_they_are_taken() -> None:
    timekeeper, _, ledger = keep(network(2))
    queue = [item(1, 10, k, k=k % 2) for k in range(5)]

    def taker() -> Script:
        answer = yield until(1, 0, 25)
        assert [sequence for _, sequence in answer.arrived] == [0, 1]
        answer = yield until(1, 25, 100)
        assert [sequence for _, sequence in answer.arrived] == [2, 3, 4]
        yield Leave(100)

    play(timekeeper, [once(0, Put(0, False, queue), 100), taker()])
    assert account(ledger)["replaced"] == 1, "2 by 4; 0 and 1 were taken"
    assert account(ledger)["delivered"] == 4


# Promises


def started(n: int = 2) -> Timekeeper:
    timekeeper, _, _ = keep(network(n))
    for node in range(n):
        timekeeper.speak(until(node, 0, 10, then_ns=90))
    timekeeper.advance()
    return timekeeper


def test_who_acts_before_its_promise_is_refused_by_name() -> None:
    timekeeper = started()
    with pytest.raises(RunFailed) as error:
        timekeeper.speak(until(1, 99, 99))
    assert str(error.value) == (
        "node 1 speaks at 0.000000 s though it promised to do nothing before 0.000000 s: an algorithm fills "
        "its queue before it collects messages, once per local round"
    )
    with pytest.raises(RunFailed, match=r"node 0 leaves at .* though it promised"):
        timekeeper.leave(0, 99, drop=True)
    timekeeper.speak(until(1, 100, 100))


def test_who_speaks_twice_is_refused() -> None:
    timekeeper = started()
    timekeeper.speak(until(0, 100, 200))
    with pytest.raises(
        RunFailed, match=r"node 0 speaks at .* has not heard the answer to what it told before"
    ):
        timekeeper.speak(until(0, 200, 200))
    with pytest.raises(RunFailed, match=r"node 0 leaves at .* has not heard the answer"):
        timekeeper.leave(0, 200, drop=False)


def test_who_has_left_does_not_come_back() -> None:
    timekeeper = started()
    timekeeper.leave(0, 100, drop=True)
    with pytest.raises(RunFailed, match=r"node 0 speaks at .* though it has left"):
        timekeeper.speak(until(0, 200, 200))
    with pytest.raises(RunFailed, match=r"node 0 leaves at .* though it has left"):
        timekeeper.leave(0, 200, drop=True)


@pytest.mark.parametrize(
    ("speech", "text"),
    [
        (until(0, 100, 200, Put(99, False, [])), "puts messages .* expected not before"),
        (until(0, 100, 300, Put(200, False, []), Put(199, True, [])), "puts messages .* in order of time"),
        (until(0, 100, 150, Put(151, False, [])), "wants an answer at"),
        (until(0, 100, 99), "wants an answer at"),
        (until(0, 100, 200, then_ns=-1), "wants an answer at"),
        (until(0, 100, INFINITE_NS), "wants an answer at no time at all .* may wait for ever"),
    ],
)
def test_times_out_of_order_are_refused(speech: Speech, text: str) -> None:
    with pytest.raises(RunFailed, match=f"node 0 {text}"):
        started().speak(speech)


def test_at_the_limit_no_compute_window_follows() -> None:
    timekeeper, _, _ = keep(network(1), limit_ns=50)
    timekeeper.speak(until(0, 0, 49, then_ns=100))
    timekeeper.advance()
    timekeeper.speak(until(0, 149, 149, then_ns=100))
    timekeeper.advance()
    timekeeper.leave(0, 149, drop=True)
    assert [type(telling) for telling in timekeeper.advance()] == [Stop]


def test_nothing_happens_before_everybody_has_spoken() -> None:
    timekeeper, _, _ = keep(network(3))
    for node in range(2):
        timekeeper.speak(until(node, 0, 10))
        assert timekeeper.advance() == []
    timekeeper.speak(until(2, 0, 5))
    assert [telling.node for telling in timekeeper.advance()] == [2]


# Deadlocks


def test_a_deadlock_names_who_waits_for_what() -> None:
    timekeeper, _, _ = keep(network(4), limit_ns=10_000)

    def asks() -> Script:
        yield until(2, 0, 1_500_000_000)
        yield forever(2, 1_500_000_000, tag=-7)

    scripts = [
        waiter(0, count=3, tag=4),
        waiter(1),
        asks(),
        once(3, Put(0, False, [item(0, 5, 0, Role.KEEP, tag=4)]), 9),
    ]
    heard, deadlock = play(timekeeper, scripts)
    assert deadlock is not None
    assert deadlock.splitlines() == [
        "deadlock: 3 nodes wait for messages and none is under way",
        "  node 0 waits since 0.000000 s for 2 more messages of round 4",
        "  node 1 waits since 0.000000 s for 1 more messages",
        "  node 2 waits since 1.500000 s for the answer to its request",
    ]
    assert [len(each.answers) for each in heard] == [0, 0, 1, 1]


def test_a_deadlock_of_many_is_told_briefly() -> None:
    timekeeper, _, _ = keep(network(30))
    _, deadlock = play(timekeeper, [waiter(node) for node in range(30)])
    assert deadlock is not None
    assert len(deadlock.splitlines()) == 22
    assert deadlock.endswith("and 10 more")


def test_after_a_deadlock_the_accounts_can_be_closed_at_the_last_event() -> None:
    """A lost request: 0..100 on the link, nothing comes. It is 0.0000001 s then, not the end of time."""
    timekeeper, links, ledger = keep(network(2, loss=0.999))

    def requester() -> Script:
        yield forever(0, 0, Put(0, False, [item(1, 100, 0, Role.REQUEST)]), tag=-2)

    _, deadlock = play(timekeeper, [requester(), silent(1, 20)])
    assert deadlock is not None
    assert timekeeper.now_ns == 100
    links.close(timekeeper.now_ns)
    ledger.check()
    assert account(ledger)["dropped_loss"] == 1


def test_a_time_limit_is_no_deadlock() -> None:
    timekeeper, _, _ = keep(network(1))

    def limited() -> Script:
        answer = yield until(0, 0, 700, tag=3, count=2)
        assert not answer.complete
        yield Leave(700)

    play(timekeeper, [limited()])
    assert timekeeper.now_ns == 700


# The end


@pytest.mark.parametrize("latency_ns", [0, 1, 30])
@pytest.mark.parametrize("end_ns", [99, 100, 101, 129, 130, 131])
def test_the_run_ends_when_the_last_leaves(end_ns: int, latency_ns: int) -> None:
    """What ends or arrives at that instant still does; nothing later does, not even by a nanosecond."""
    timekeeper, links, ledger = keep(network(2, latency_ns=latency_ns))
    queue = [item(1, 100, 0), item(1, 100, 1)]
    heard, _ = play(timekeeper, [once(0, Put(0, False, queue), end_ns, drop=False), silent(1, 1)])
    ledger.check()
    assert timekeeper.now_ns == end_ns
    total = account(ledger)
    assert total["delivered"] == (100 + latency_ns <= end_ns)
    assert links.sent[0] == (end_ns >= 100)
    assert total["in_flight"] == 2 - total["delivered"] - total["dropped_end"]
    assert total["dropped_end"] == (end_ns < 100)
    stop = heard[0].stop
    assert stop is not None
    assert stop[0] == end_ns
    assert stop[1].sent == links.sent[0]


def test_leaving_can_empty_the_queue() -> None:
    for drop in (False, True):
        timekeeper, _, ledger = keep(network(2))
        queue = [item(1, 100, k, k=k) for k in range(4)]
        play(timekeeper, [once(0, Put(0, False, queue), 150, drop=drop), silent(1, 1000)])
        assert account(ledger)["dropped_end"] == (2 if drop else 0)
        assert account(ledger)["delivered"] == (2 if drop else 4)


def test_after_the_end_nothing_is_told() -> None:
    timekeeper, _, _ = keep(network(1))
    play(timekeeper, [silent(0, 5)])
    assert timekeeper.advance() == []


@settings(max_examples=30)
@given(st.integers(0, 60))
def test_accounts_can_be_closed_at_any_moment(words: int) -> None:
    timekeeper, links, ledger = keep(network(3, latency_ns=40))
    play(timekeeper, [gossiping(node, rounds=30) for node in range(3)], words=words)
    links.close(timekeeper.now_ns)
    ledger.check()
    total = account(ledger)
    fates = sum(total[fate] for fate in total if fate not in ("made", "node"))
    assert total["made"] == fates


def gossiping(node: int, rounds: int, n: int = 3) -> Script:
    """Refills with a flush every 100 ns, more than it can send."""
    yield until(node, 0, 100)
    sequence = 0
    for t in range(rounds):
        now = 100 * (t + 1)
        out = [item((node + 1 + k % (n - 1)) % n, 45, sequence + k, k=k, tag=t) for k in range(4)]
        sequence += 4
        yield until(node, now, now, Put(now, True, out), then_ns=100 if t + 1 < rounds else 0)
    yield Leave(100 * rounds)


def test_what_is_kept_stays_bounded() -> None:
    """Hundreds of rounds of flushes, losses and impatient requests, and a left node that is still sent to."""
    timekeeper, links, _ = keep(network(3, latency_ns=40, loss=0.1))

    def asking(rounds: int) -> Script:
        yield until(2, 0, 100)
        now = 100
        for t in range(rounds):
            put = Put(now, True, [item(t % 2, 45, t, Role.REQUEST)])
            now = (yield until(2, now, now + 100, put, tag=-2 - t, count=1)).at_ns
        yield Leave(now)

    sizes = []
    scripts = [gossiping(0, 3), gossiping(1, 400), asking(400)]

    def choose(count: int) -> int:
        nodes = timekeeper._nodes
        kept = [len(each.counts) + len(each.arrived) + len(each.mailbox) + len(each.served) for each in nodes]
        started = sum(map(len, links.started.values()))
        sizes.append(sum(kept) + started + len(timekeeper._agenda) + len(timekeeper._promises))
        return 0

    play(timekeeper, scripts, choose)
    assert timekeeper.over
    middle = len(sizes) // 2
    assert max(sizes[middle:]) <= max(sizes[:middle]) + 10
    assert max(sizes) < 60
