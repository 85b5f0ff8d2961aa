"""What a node does with messages: makes them, sends them, waits for them, answers them.

The half of ``decentral.node.Node`` that concerns others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TypeAlias

import numpy as np

from decentral.arrays import FloatArray, IntArray
from decentral.clock import NS_PER_S
from decentral.errors import RunFailed, WireError
from decentral.following import Schedule, TimeIsUp
from decentral.fragments import Fragmenter, Fragments, whole_model
from decentral.live import LiveModel
from decentral.medium import Medium, Outgoing
from decentral.messages import Kind, Message
from decentral.network.model import INFINITE_NS
from decentral.queues import InQueue, Key, OutQueue, Traffic
from decentral.resampled import ResampledFragments
from decentral.seeding import Seeds
from decentral.speech import ANY, Role

Rule: TypeAlias = Callable[[FloatArray, FloatArray], FloatArray]
"""(live model, received model) -> the model to answer with; changes the live model in place."""


class Correspondent:
    """Base of ``Node``, which documents the arguments."""

    def __init__(
        self,
        *,
        id: int,
        n: int,
        model: LiveModel,
        sizes: Sequence[int],
        seeds: Seeds,
        medium: Medium,
        durations: Callable[[int], int],
        schedule: Schedule,
        synchronous: bool,
        traffic: Traffic,
    ) -> None:
        self.id = id
        self.n = n
        self.x: FloatArray = model.x
        self.d = int(self.x.size)
        self.sizes = tuple(sizes)
        self.peers: IntArray = np.delete(np.arange(n), id)
        self.traffic = traffic
        self.outqueue = OutQueue(medium, traffic, node=id, n=n)
        self.inqueue = InQueue(traffic, keep_rounds=synchronous, fetch=self._collect)
        self._model = model
        self._seeds = seeds
        self._medium = medium
        self._durations = durations
        self._schedule = schedule
        self._synchronous = synchronous
        self._round = 0
        self._wait_ns = 0
        self._heard_out: frozenset[int] = frozenset()
        self._maps: Fragments | ResampledFragments = whole_model(self.d)
        self._rule: Rule | None = None
        self._pong: Callable[[], Message] | None = None
        self._asked: tuple[int, int, int] | None = None
        self._reply: Message | None = None
        self._timer: tuple[int, int, Callable[[int], Outgoing]] | None = None
        self._ticks = 0

    @property
    def lost(self) -> frozenset[int]:
        """Peers that have ended and are given up by now; they stay in ``peers``, so that draws stay the same.

        A message to one is aggregated by nobody; the answer to a request to one is None.
        """
        losses = self._medium.losses
        return losses.by(self._now()) if losses else frozenset()

    def rng(self, name: str, *counters: int) -> np.random.Generator:
        """This node's stream ``name`` at ``counters``; other nodes draw other numbers."""
        return self._seeds.rng(f"node/{name}", self.id, *counters)

    def shared_rng(self, name: str, *counters: int) -> np.random.Generator:
        """The algorithm's stream ``name`` at ``counters``; all nodes draw the same numbers."""
        return self._seeds.rng(f"shared/{name}", *counters)

    def stretch(self, factor: Callable[[int], float]) -> None:
        """From now on local round k computes ``factor(k)`` times as long; before the first ``train``."""
        durations = self._durations
        self._durations = lambda k: max(1, round(durations(k) * factor(k)))

    def fragments(self, fragmenter: Fragmenter | None = None) -> Fragments:
        """The fragment map for this node's model; without an argument the whole model is one fragment.

        Messages with any other map are refused from now on.
        """
        made = whole_model(self.d) if fragmenter is None else fragmenter.split(self.sizes)
        self._maps = made
        return made

    def resampled_fragments(self, fragmenter: Fragmenter) -> ResampledFragments:
        """Another map for every round of a sender; messages with any other map are refused from now on."""
        self._maps = ResampledFragments(fragmenter, self.sizes)
        return self._maps

    def message(self, t: int, k: int, fragments: Fragments, *, age: int = 0) -> Message:
        """Fragment ``k`` of the model as it is now, for round ``t``; equal calls give the same object."""
        return self._model.message(t, k, fragments, age=age, now_ns=self._now())

    def model_message(self, t: int, values: FloatArray) -> Message:
        """A whole model, shape (d,), for round ``t``: a copy of ``values`` as they are now."""
        return Message(self.id, t, 0, values.copy(), whole_model(self.d).map_hash, self._now())

    def shuffled(self, outgoing: Sequence[Outgoing], k: int) -> list[Outgoing]:
        """``outgoing`` in this node's random order of round ``k`` (DivShare's OutQueue)."""
        return [outgoing[i] for i in self.rng("shuffle", k).permutation(len(outgoing))]

    def exchange(self, t: int, outgoing: Iterable[Outgoing], expected: Iterable[Key]) -> list[Message]:
        """Send ``outgoing``, wait until all ``expected`` (sender, fragment) of round ``t`` are here.

        Blocks; messages of later rounds are kept. What takes time next must be the next round's training.

        Returns:
            The messages of round ``t``, sorted by (sender, fragment). Those of ``lost`` peers may be missing.

        Raises:
            StalledError, Deadlock: what is missing cannot come (``Medium.wait``).
            TimeIsUp: the round is not over by the time limit.
            RunFailed: the algorithm says that it is not synchronous.
            WireError: a message of round ``t`` that nobody was expected to send, or of another map.
        """
        if not self._synchronous:
            raise RunFailed(
                "exchange() in an algorithm with synchronous = False: its messages are not kept by round; "
                "use outqueue and inqueue, or set synchronous = True"
            )
        self.outqueue.put(outgoing, role=Role.KEEP)
        wanted = Counter(expected)
        while True:
            wanted = self.inqueue.due(t, wanted, self._given_up())
            missing_now = max(0, wanted.total() - self.inqueue.arrived(t))
            until_ns = self._schedule.limit_ns if missing_now else self._now()
            self._wait(t, missing_now, until_ns, partial(self._missing_text, t, wanted))
            if not self._medium.interrupted:
                break
        if self._now() < self._schedule.limit_ns:  # what is missing has arrived, but without its content
            wanted = self.inqueue.due(t, wanted, self._medium.losses)
        if self.inqueue.arrived(t) < (number := wanted.total()) or self._now() > self._schedule.limit_ns:
            raise TimeIsUp
        missing = self.inqueue.missing(t, wanted)
        received = self.inqueue.take_round(t)
        if missing or len(received) != number:
            surplus = Counter((message.sender, message.fragment) for message in received) - wanted
            raise WireError(
                "unexpected", f"node {self.id}, round {t}: got {dict(surplus)} instead of {dict(missing)}"
            )
        return received

    def ask(self, destination: int, message: Message) -> None:
        """Send a request; ``answer`` waits for what comes back. At most one at a time."""
        self.outqueue.count([(destination, message)])
        self._reply = None
        tag = self._medium.request(destination, message._replace(kind=Kind.REQUEST))
        self._asked = (tag, destination, message.round)

    def answer(self, timeout_s: float | None = None, *, more: bool = False) -> Message | None:
        """Wait for the answer to the last request; None if it takes longer than ``timeout_s`` or never comes.

        Args:
            timeout_s: from now on.
            more: the node may ask or queue something before its next training; else training must be next.
        """
        assert self._asked is not None, "answer() without ask()"
        tag, destination, _ = self._asked
        until_ns = INFINITE_NS if timeout_s is None else self._now() + round(timeout_s * NS_PER_S)
        waits, what = self._reply is None, f"the answer of node {destination}"
        while waits and destination not in self.lost:
            self._wait(tag, 1, until_ns, lambda: what, then_ns=0 if more else None)
            waits = self._medium.interrupted and self._reply is None
        reply, self._reply, self._asked = self._reply, None, None
        if reply is not None:
            self.traffic.aggregated += 1
        return reply

    def serve(self, rule: Rule) -> None:
        """From now on answer requests by ``rule``, at the instant they arrive, also while training."""
        self._rule = rule
        self._medium.serve(self._serve)

    def answer_pings(self, make: Callable[[], Message]) -> None:
        """From now on answer every ping with what ``make`` gives, at the instant it arrives."""
        self._pong = make
        self._medium.serve(self._serve)

    def every(self, period_s: float, phase_s: float, make: Callable[[int], Outgoing]) -> None:
        """From now on queue ``make(0), make(1), ...`` at ``phase_s``, ``phase_s + period_s``, ...

        They are made from the live model, also in the middle of a compute window.
        """
        self._timer = (round(period_s * NS_PER_S), round(phase_s * NS_PER_S), make)

    def hear(self) -> Message:
        """Wait until a message has arrived and return the newest; those that it passed are discarded.

        Raises:
            TimeIsUp: the time limit came first.
        """
        while (newest := self.inqueue.take_newest()) is None:
            if self._now() >= self._schedule.limit_ns:
                raise TimeIsUp
            until_ns = min(self._schedule.limit_ns, self._next_tick_ns())
            self._wait(ANY, 1, until_ns, lambda: "any message", then_ns=0)
            self._tick(self._now())
        return newest

    def _now(self) -> int:
        return self._medium.now_ns()

    def _then_ns(self) -> int:
        """The next compute window: nothing will be put before it is over."""
        last = self._round + 1 == self._schedule.max_rounds
        return 0 if last or self._timer is not None else self._durations(self._round + 1)

    def _collect(self) -> None:
        self._accept(self._medium.collect(self._then_ns()))

    def _wait(
        self, tag: int, count: int, until_ns: int, what: Callable[[], str], then_ns: int | None = None
    ) -> None:
        """Wait for ``count`` more messages of ``tag``. Counts as waiting time."""
        before_ns = self._now()
        then_ns = self._then_ns() if then_ns is None else then_ns
        self._accept(self._medium.wait(tag=tag, count=count, until_ns=until_ns, then_ns=then_ns, what=what))
        self._wait_ns += self._now() - before_ns

    def _given_up(self) -> frozenset[int]:
        """``lost``, once all that has arrived of them is here: who waits must not be told of it later."""
        while (lost := self.lost) != self._heard_out:
            self._accept(self._medium.collect(0))
            self._heard_out = lost
        return lost

    def _accept(self, messages: Iterable[Message]) -> None:
        for message in messages:
            if message.map_hash != self._maps.at(message.round).map_hash:
                raise WireError(
                    "map",
                    f"node {message.sender} cuts its model by another fragment map than node {self.id}; "
                    f"give both the same fragments table, data and run seed",
                )
            if message.kind is not Kind.REPLY:
                self.inqueue.put(message)
                continue
            self.traffic.received += 1
            if self._asked is not None and self._asked[1:] == (message.sender, message.round):
                self._reply = message
            else:  # it came after the node had given up
                self.traffic.discarded += 1

    def _serve(self, requester: int, request: Message | None) -> Message:
        if request is None:
            assert self._pong is not None
            reply = self._pong()
            self.outqueue.count([(requester, reply)])
            return reply
        if self._rule is None or request.map_hash != self._maps.at(request.round).map_hash:
            raise WireError("request", f"node {self.id} cannot answer a request of node {requester}")
        values = self._rule(self._model.touch(), request.values)
        self.traffic.received += 1
        self.traffic.aggregated += 1
        reply = Message(self.id, request.round, 0, values, request.map_hash, self._now(), Kind.REPLY)
        self.outqueue.count([(requester, reply)])
        return reply

    def _next_tick_ns(self) -> int:
        if self._timer is None:
            return INFINITE_NS
        period_ns, phase_ns, _ = self._timer
        return phase_ns + self._ticks * period_ns

    def _tick(self, until_ns: int) -> None:
        """Queue what the timer makes up to ``until_ns`` from the model as it is now."""
        while self._timer is not None and self._next_tick_ns() <= until_ns:
            outgoing = self._timer[2](self._ticks)
            self.outqueue.put([outgoing], role=Role.LATEST, at_ns=self._next_tick_ns())
            self._ticks += 1

    def _missing_text(self, t: int, wanted: Counter[Key]) -> str:
        missing = self.inqueue.missing(t, wanted)
        senders = sorted({sender for sender, _ in missing})
        return f"{missing.total()} messages of round {t} from nodes {', '.join(map(str, senders))}"
