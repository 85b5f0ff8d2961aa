"""What a node makes of messages of lost peers: payloads that come late or never, and rounds without them."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from decentral.correspondent import Correspondent
from decentral.following import Schedule, TimeIsUp
from decentral.fragments import whole_model
from decentral.inline import InlineWire, Scheduler
from decentral.live import LiveModel
from decentral.losses import Losses
from decentral.medium import Outgoing
from decentral.messages import Message
from decentral.network.model import INFINITE_NS
from decentral.queues import Traffic
from decentral.seeding import Seeds
from decentral.speech import ANY, Answer, Gone, Role, Served, Speech, Totals
from decentral.virtual import VirtualMedium
from decentral.wire import Heard
from tests.emulated import RUN, keep, message, network

NOTHING = Totals(0, 0, 0, 0)


class Told:
    """A wire that says what it is given, on a clock of its own that only waiting moves."""

    meta_bytes = 0

    def __init__(self, heard: list[Heard | float]) -> None:
        self.refused: Counter[str] = Counter()
        self.heard = heard
        self.now_s = 0.0
        self.pushed: list[Outgoing] = []
        self.spoken: list[Speech] = []

    def speak(self, speech: Speech) -> None:
        self.spoken.append(speech)

    def leave(self, node: int, at_ns: int, drop: bool) -> None:
        raise AssertionError

    def push(self, outgoing: Sequence[Outgoing]) -> None:
        self.pushed += outgoing

    def observe(self, message: Message) -> None:
        raise AssertionError

    def lost(self, peer: int) -> float:
        return 2.0

    def next(
        self, block: bool, what: Callable[[], str], *, patient: bool = False, within_s: float | None = None
    ) -> Heard | None:
        """A number in ``heard`` is how long nothing comes."""
        if not self.heard:
            assert not block, f"waits for ever for {what()}"
            return None
        if isinstance(silence := self.heard[0], float):
            if not block:
                return None
            waited = silence if within_s is None else min(within_s, silence)
            self.now_s += waited
            self.heard[:1] = [silence - waited] if silence > waited else []
            return None
        return self.heard.pop(0)  # type: ignore[return-value]


def medium_of(*heard: Heard | float, eager: bool = False) -> tuple[VirtualMedium, Told]:
    wire = Told(list(heard))
    medium = VirtualMedium(node=0, wire=wire, eager=eager)
    medium.losses = Losses(clock=lambda: wire.now_s)
    return medium, wire


def answer(at_ns: int, arrived: list[tuple[int, int]], *, complete: bool = True, **told: Any) -> Answer:
    return Answer(0, at_ns, complete, arrived, told.get("served", []), told.get("started", []), NOTHING)


def numbered(sender: int, sequence: int) -> list[Message]:
    return [message(sender, value=sequence)._replace(sequence=sequence)]


def test_a_payload_that_ended_with_its_sender_is_missed_after_the_grace() -> None:
    """Of the lost node 1 the second payload never comes; of node 2, which lives, it may take its time."""
    medium, wire = medium_of(
        answer(10, [(1, 0), (1, 1), (2, 0)]), numbered(1, 0), Gone(0, 1, 99), 60.0, numbered(2, 0)
    )
    got = medium.collect(0)
    assert [(each.sender, each.sequence) for each in got] == [(1, 0), (2, 0)]
    assert medium.missed == 1
    assert wire.now_s >= 2.0
    assert dict(medium.losses) == {1: 99}


def test_a_payload_that_comes_within_the_grace_counts() -> None:
    medium, _ = medium_of(answer(10, [(1, 0)]), Gone(0, 1, 99), 1.9, numbered(1, 0))
    assert len(medium.collect(0)) == 1
    assert medium.missed == 0


def test_a_request_that_ended_with_its_requester_holds_nobody_up() -> None:
    """Node 1 asked and ended; node 2 asked after it, and gets its answer though nothing else comes."""
    request = [message(2, value=5.0)._replace(sequence=7)]
    served = [Served(1, 3, -1, False), Served(2, 7, -2, False)]
    medium, wire = medium_of(Gone(0, 1, 99), request, answer(10, [], served=served, started=[-1, -2]), 60.0)
    medium.serve(lambda requester, message: message._replace(sender=0))  # type: ignore[union-attr]
    medium.collect(0)
    assert [(to, each.sequence) for to, each in wire.pushed] == [(2, -2)]
    assert medium.missed == 1


def test_nothing_is_pushed_to_a_lost_node() -> None:
    for eager in (False, True):
        medium, wire = medium_of(Gone(0, 1, 99), answer(10, []), answer(20, [], started=[0, 1]), eager=eager)
        medium.collect(0)
        medium.put([(1, message(0)), (2, message(0))], role=Role.KEEP)
        medium.collect(0)
        assert [to for to, _ in wire.pushed] == [2]


def test_a_wait_that_was_interrupted_promises_nothing() -> None:
    """After it the node may speak at once; after one that was only too long it rests."""
    medium, _ = medium_of(answer(10, [], complete=False), answer(40, [], complete=False))
    medium.wait(tag=ANY, count=1, until_ns=INFINITE_NS, then_ns=500, what=str)
    assert medium.interrupted
    medium.put([], role=Role.LATEST)
    medium.wait(tag=ANY, count=1, until_ns=40, then_ns=500, what=str)
    assert not medium.interrupted
    with pytest.raises(Exception, match="must fill its queue before it collects"):
        medium.put([], role=Role.LATEST)


def test_a_payload_that_is_here_counts_though_the_grace_is_over() -> None:
    """It lies unread behind another node's; of the second nothing is here, so it is missed at once."""
    medium, wire = medium_of(
        Gone(0, 1, 99),
        numbered(3, 0),
        5.0,
        answer(10, [(3, 0), (1, 0), (1, 1)]),
        numbered(2, 0),
        numbered(1, 0),
    )
    assert [each.sender for each in medium.collect(0)] == [3, 1]
    assert medium.missed == 1
    assert wire.now_s == 5.0


def test_a_request_that_is_here_is_served_though_the_grace_is_over() -> None:
    """Its requester was averaged with before it was lost."""
    served = [Served(1, 3, -1, False)]
    request = [message(1, value=5.0)._replace(sequence=3)]
    medium, _ = medium_of(Gone(0, 1, 99), 5.0, answer(10, [], served=served, started=[-1]), request)
    values: list[float] = []

    def serve(requester: int, message: Message | None) -> Message:
        assert message is not None
        values.append(float(message.values[0]))
        return message._replace(sender=0)

    medium.serve(serve)
    medium.collect(0)
    assert (values, medium.missed) == ([5.0], 0)


# Rounds


class Killed(Exception):
    """What ends a node's process in the middle."""


class Preferring(deque[int]):
    """Gives back who is first in ``order``: a node whose process is slow is the last."""

    order: Sequence[int] = ()

    def popleft(self) -> int:
        chosen = min(self, key=self.order.index)
        self.remove(chosen)
        return chosen


class Deadly(Scheduler):
    """Ends a node's process where it waits and ``strikes`` says so."""

    strikes: Callable[[int], bool]

    def next(self, node: int, block: bool, what: Callable[[], str]) -> Heard | None:
        if block and not self.pending(node) and self.strikes(node):
            raise Killed
        return super().next(node, block, what)


class Run:
    """Nodes that average a model of one parameter on a full graph, in rounds.

    Args:
        windows_ns: by node, the compute window of each round.
        order: who goes on first, where several could.
        limit_ns: time limit.
        patience_ns: as the timekeeper's.

    Attributes:
        heard: by node, the senders that it heard in each of its rounds.
    """

    def __init__(
        self,
        windows_ns: Sequence[Sequence[int]],
        *,
        order: Sequence[int],
        patience_ns: int,
        limit_ns: int = INFINITE_NS,
    ) -> None:
        n = len(windows_ns)
        self.timekeeper, _, self._ledger = keep(
            network(n), eager=True, limit_ns=limit_ns, patience_ns=patience_ns
        )
        self.heard: list[list[list[int]]] = [[] for _ in range(n)]
        self.lost: dict[int, Exception] = {}
        self._windows_ns = windows_ns
        self._schedule = Schedule(max_rounds=len(windows_ns[0]), test_after=1, limit_ns=limit_ns)
        self.scheduler = Deadly(self.timekeeper, lambda message: None, RUN, lost=self._lose)
        self.scheduler._ready = ready = Preferring()
        ready.order = order

    def play(self, strikes: Callable[[int], bool]) -> None:
        """To the end of those that ``strikes`` spares."""
        self.scheduler.strikes = strikes
        for node in range(len(self.heard)):
            self.scheduler.add(node, partial(self._live, node))
        self.scheduler.run()
        self._ledger.check()

    def _lose(self, node: int, error: Exception, at_ns: int) -> None:
        self.lost[node] = error

    def _live(self, node: int) -> None:
        wire = InlineWire(self.scheduler, node, 1 << 20)
        windows_ns, limit_ns = self._windows_ns[node], self._schedule.limit_ns
        medium = VirtualMedium(node=node, wire=wire, eager=True, limit_ns=limit_ns)
        made = Correspondent(
            id=node,
            n=len(self.heard),
            model=cast("LiveModel", SimpleNamespace(x=np.zeros(1, np.float32))),
            sizes=[1],
            seeds=Seeds(1),
            medium=medium,
            durations=windows_ns.__getitem__,
            schedule=self._schedule,
            synchronous=True,
            traffic=Traffic(),
        )
        with suppress(TimeIsUp):
            for t, window_ns in enumerate(windows_ns):
                made._round = t
                made._accept(medium.compute(lambda poll: None, window_ns)[1])
                model = Message(node, t, 0, np.zeros(1, np.float32), whole_model(1).map_hash)
                others = made.peers.tolist()
                received = made.exchange(t, [(to, model) for to in others], [(each, 0) for each in others])
                self.heard[node].append([each.sender for each in received])
        medium.leave(drop=False)
        medium.linger()


def test_what_arrived_of_a_lost_node_belongs_to_the_round_that_waits_for_it() -> None:
    """Node 1 has sent its second model, which arrives, and ends in its wait. Node 0 hears of it when it reads
    late payloads of the first round, and trains until long after node 1 was given up."""
    run = Run([[500, 2500, 1000], [1000] * 3, [1000] * 3], order=[2, 1, 0], patience_ns=500)

    def strikes(node: int) -> bool:
        return node == 1 and len(run.heard[1]) == 1 and run.timekeeper._now_ns >= 2012

    run.play(strikes)
    assert {node: type(error) for node, error in run.lost.items()} == {1: Killed}
    assert run.heard == [[[1, 2], [1, 2], [2]], [[0, 2]], [[0, 1], [0, 1], [0]]]


@pytest.mark.parametrize(("patience_ns", "counts"), [(9000, False), (900, True)])
def test_a_round_counts_without_a_lost_node_if_that_is_given_up_by_the_limit(
    patience_ns: int, counts: bool
) -> None:
    """Before, nobody in a real network would know that nothing comes of it."""
    run = Run([[100] * 3, [100] * 3, [3000] * 3], order=[2, 0, 1], patience_ns=patience_ns, limit_ns=4000)
    run.play(lambda node: node == 2)
    assert {node: type(error) for node, error in run.lost.items()} == {2: Killed}
    assert run.heard == ([[[1]] * 3, [[0]] * 3, []] if counts else [[], [], []])
