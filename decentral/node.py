"""A node as its algorithm sees it: a model, rounds, training, messages, aggregation.

``Node`` is the verbs; it owns no socket and no process. The same object runs inline and in a process of its
own, in emulated and in real time, with another ``Medium``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import ClassVar, Protocol, TypeAlias

import numpy as np

from decentral.arrays import FloatArray, IntArray
from decentral.clock import NS_PER_S
from decentral.errors import RunFailed, WireError
from decentral.following import Schedule
from decentral.fragments import Fragmenter, Fragments, whole_model
from decentral.journal import Journal
from decentral.medium import Medium, Outgoing, Poll
from decentral.messages import Kind, Message
from decentral.mixing import Mixer, Part
from decentral.network.model import INFINITE_NS
from decentral.queues import InQueue, Key, OutQueue, Traffic
from decentral.records import Value
from decentral.resampled import ResampledFragments
from decentral.seeding import Seeds
from decentral.speech import ANY, Role
from decentral.tasks.base import Learner

Rule: TypeAlias = Callable[[FloatArray, FloatArray], FloatArray]
"""(live model, received model) -> the model to answer with; changes the live model in place."""


class Algorithm(Protocol):
    """A frozen dataclass of hyper-parameters and one straight-line ``run`` (CONTRIBUTING.md)."""

    synchronous: ClassVar[bool]
    """True where a node waits for all messages of its round; False where the newest that came counts."""

    def run(self, node: Node) -> None:
        """What one node does from the start barrier to the end of its rounds."""
        ...


class TimeIsUp(Exception):
    """The run's time limit was reached inside a round, which therefore does not count. Not an error."""


class Node:
    """One participant; used by one thread. Its model ``x`` changes in the verbs below only.

    Args:
        id: 0..n-1.
        n: number of nodes.
        learner: trains ``learner.x``, which is this node's live model.
        sizes: number of parameters of every tensor, in state-dict order.
        seeds: the run's streams.
        medium: time and network.
        durations: nanoseconds of emulated time that local round k = 0, 1, ... computes.
        schedule: rounds, time limit and evaluation points.
        synchronous: whether messages are kept by round (algorithms that wait) or the newest kept.
        traffic: this node's counters.
        journal: writes its log.
    """

    def __init__(
        self,
        *,
        id: int,
        n: int,
        learner: Learner,
        sizes: Sequence[int],
        seeds: Seeds,
        medium: Medium,
        durations: Callable[[int], int],
        schedule: Schedule,
        synchronous: bool,
        traffic: Traffic,
        journal: Journal,
    ) -> None:
        self.id = id
        self.n = n
        self.x: FloatArray = learner.x
        self.d = int(self.x.size)
        self.sizes = tuple(sizes)
        self.peers: IntArray = np.delete(np.arange(n), id)
        self.traffic = traffic
        self.outqueue = OutQueue(medium, traffic)
        self.inqueue = InQueue(traffic, keep_rounds=synchronous, fetch=self._collect)
        self._learner = learner
        self._seeds = seeds
        self._medium = medium
        self._durations = durations
        self._schedule = schedule
        self._synchronous = synchronous
        self._journal = journal
        self._round = 0
        self._exhausted = False
        self._complete = False
        self._train_loss: float | None = None
        self._train_ns = 0
        self._wait_ns = 0
        self._extra: dict[str, Value] = {}
        self._ages: list[int] = []
        self._maps: Fragments | ResampledFragments = whole_model(self.d)
        self._snapshot: tuple[Fragments | ResampledFragments, FloatArray] | None = None
        self._made: dict[int, Message] = {}
        self._before: FloatArray | None = None
        self._rule: Rule | None = None
        self._pong: Callable[[], Message] | None = None
        self._training_from: FloatArray | None = None
        self._live: FloatArray | None = None
        self._asked: tuple[int, int, int] | None = None
        self._reply: Message | None = None
        self._timer: tuple[int, int, Callable[[int], Outgoing]] | None = None
        self._ticks = 0

    # Rounds and the log

    def rounds(self) -> Iterator[int]:
        """Local rounds 0, 1, ... until T rounds are done or a round would start after the time limit.

        Closes each round: log line, evaluation when due, progress.
        """
        self._journal.start()
        self._journal.evaluate(0, self.x, final=False)
        limited = self._schedule.limit_ns < INFINITE_NS
        while self._round != self._schedule.max_rounds and self._now() < self._schedule.limit_ns:
            self._train_ns = self._wait_ns = 0
            self._extra = {}
            self._ages = []
            if limited and self._synchronous:
                self._before = self.x.copy()
            yield self._round
            self._round += 1
            self._journal.round(
                self._round,
                train_ns=self._train_ns,
                wait_ns=self._wait_ns,
                train_loss=self._train_loss,
                staleness=sum(self._ages) / len(self._ages) if self._ages else None,
                extra=self._extra,
            )
            if self._round % self._schedule.test_after == 0 and self._round != self._schedule.max_rounds:
                self._journal.evaluate(self._round, self.x, final=False)
        self._exhausted = True

    def end(self, *, early: bool = False) -> None:
        """After the last round: leave, be evaluated on everything, serve until all others have left.

        Args:
            early: the last round was cut off by the time limit: the model of before it is the node's last
                (in asynchronous algorithms a node that waits then has not changed it yet).

        Raises:
            RunFailed: the algorithm returned before its last round; its neighbors would wait for ever.
        """
        if early:
            if self._before is not None:
                self.x[:] = self._before
        elif not self._exhausted:
            raise RunFailed(
                f"the algorithm returned after {self._round} rounds; let it iterate over node.rounds() to "
                f"the end"
            )
        serving = self._rule is not None
        # Answers that are queued stay queued: their requesters wait for them.
        self._medium.leave(drop=not self._synchronous and not serving)
        if not serving:
            self._journal.evaluate(self._round, self.x, final=True)
        self._medium.linger()
        if serving:  # others still averaged with it
            self._journal.evaluate(self._round, self.x, final=True)
        self._complete = True

    @property
    def complete(self) -> bool:
        """True once all rounds are finished and the final model has been evaluated."""
        return self._complete

    def finish(self, reason: str) -> None:
        """Write the end of this node's log: ``done``, ``failed`` or ``interrupted``."""
        self.inqueue.discard()
        self._journal.finish(self._round, self.x, reason)

    def record(self, **fields: Value) -> None:
        """Add ``fields`` to the log line of the present round."""
        self._extra.update(fields)

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

    # The model

    def train(self, *, steps: int) -> None:
        """H local SGD steps in one compute window.

        The steps run on a snapshot; their update is added to the live model at the end of the window, after
        whatever requests that arrived meanwhile did to it. Where none arrived, this is training in place.
        """
        start = self._compute(steps)
        if self._live is not None:
            assert start is not None
            self.x -= start
            self.x += self._live
        self._training_from = self._live = None

    def local_update(self, *, steps: int) -> FloatArray:
        """The sum of H local SGD steps from the present model, shape (d,), which stays as it is."""
        start = self.x.copy()
        self._compute(steps)
        update = self.x - start
        self.x[:] = start if self._live is None else self._live
        self._training_from = self._live = None
        return update

    def apply(self, update: FloatArray) -> None:
        """``x += update``."""
        self.x += update
        self._forget_snapshot()

    def update(
        self, mix: Mixer, received: Sequence[Message], fragments: Fragments | ResampledFragments
    ) -> None:
        """Aggregate: ``x = mix(x, received)``, parameter by parameter (in fragment order)."""
        if not received:
            return
        ordered = self._ordered(fragments).copy()
        where = fragments.where
        parts = [Part(m.sender, m.fragment, where(m.round, m.fragment), m.values, m.round) for m in received]
        fragments.scatter(mix(ordered, parts), self.x)
        self._ages += [self._round - message.round for message in received]
        self._forget_snapshot()

    # Messages

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
        ordered = self._ordered(fragments)
        made = self._made.get(k)
        if made is None or made.round != t or made.age != age:
            values = ordered[fragments.slice(k)]
            made = Message(self.id, t, k, values, fragments.map_hash, self._now(), age=age)
            self._made[k] = made
        return made

    def model_message(self, t: int, values: FloatArray) -> Message:
        """A whole model, shape (d,), for round ``t``: a copy of ``values`` as they are now."""
        return Message(self.id, t, 0, values.copy(), whole_model(self.d).map_hash, self._now())

    def shuffled(self, outgoing: Sequence[Outgoing], k: int) -> list[Outgoing]:
        """``outgoing`` in this node's random order of round ``k`` (DivShare's OutQueue)."""
        return [outgoing[i] for i in self.rng("shuffle", k).permutation(len(outgoing))]

    def exchange(self, t: int, outgoing: Iterable[Outgoing], expected: Iterable[Key]) -> list[Message]:
        """Send ``outgoing``, wait until all ``expected`` (sender, fragment) of round ``t`` are here.

        Blocks. Messages of later rounds that arrive meanwhile are kept for them. The next thing that takes
        time must be the training of the next round.

        Returns:
            The messages of round ``t``, sorted by (sender, fragment).

        Raises:
            StalledError, Deadlock: what is missing cannot come (``Medium.wait``).
            TimeIsUp: the time limit came first.
            WireError: a message of round ``t`` that nobody was expected to send, or of another map.
        """
        self.outqueue.put(outgoing, role=Role.KEEP)
        wanted = Counter(expected)
        number = wanted.total()
        # What came early was taken with an earlier round's; the medium still counts it under its tag.
        arrived = self._wait(t, number, self._schedule.limit_ns, lambda: self._missing_text(t, wanted))
        if arrived < number:
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
        """Wait for the answer to the last request; None if it takes longer than ``timeout_s``.

        Args:
            timeout_s: from now on.
            more: the node may ask or queue something before its next training; else training must be next.
        """
        assert self._asked is not None, "answer() without ask()"
        tag, destination, _ = self._asked
        if self._reply is None:
            until_ns = INFINITE_NS if timeout_s is None else self._now() + round(timeout_s * NS_PER_S)
            what = f"the answer of node {destination}"
            self._wait(tag, 1, until_ns, lambda: what, then_ns=0 if more else None)
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

    # How it is done

    def _now(self) -> int:
        return self._medium.now_ns()

    def _compute(self, steps: int) -> FloatArray | None:
        """Run H steps in place; the model before them where requests may change it meanwhile."""
        rng = self.rng("batch", self._round)
        duration_ns = self._durations(self._round)
        before_ns = self._now()
        self._training_from = self.x.copy() if self._rule is not None else None
        self._tick(before_ns + duration_ns)

        def work(poll: Poll | None) -> float:
            return self._learner.train(steps, rng, poll)

        self._train_loss, arrived = self._medium.compute(work, duration_ns)
        self._train_ns += self._now() - before_ns
        self._accept(arrived)
        self._forget_snapshot()
        return self._training_from

    def _then_ns(self) -> int:
        """The next compute window: nothing will be put before it is over."""
        last = self._round + 1 == self._schedule.max_rounds
        return 0 if last or self._timer is not None else self._durations(self._round + 1)

    def _collect(self) -> None:
        self._accept(self._medium.collect(self._then_ns()))

    def _wait(
        self, tag: int, count: int, until_ns: int, what: Callable[[], str], then_ns: int | None = None
    ) -> int:
        """Wait for ``count`` messages of ``tag``; how many are here. Counts as waiting time."""
        before_ns = self._now()
        then_ns = self._then_ns() if then_ns is None else then_ns
        self._accept(
            self._medium.wait(tag=tag, count=count, until_ns=until_ns, then_ns=then_ns, what=what)
        )
        self._wait_ns += self._now() - before_ns
        return self.inqueue.arrived(tag)

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
        if self._training_from is not None and self._live is None:
            self._live = self._training_from.copy()
        live = self.x if self._live is None else self._live
        values = self._rule(live, request.values)
        self._forget_snapshot()
        self.traffic.received += 1
        self.traffic.aggregated += 1
        reply = Message(
            self.id, request.round, 0, values, request.map_hash, self._now(), Kind.REPLY
        )
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

    def _ordered(self, fragments: Fragments | ResampledFragments) -> FloatArray:
        if self._snapshot is None or self._snapshot[0] is not fragments:
            self._forget_snapshot()
            self._snapshot = (fragments, fragments.gather(self.x))
        return self._snapshot[1]

    def _forget_snapshot(self) -> None:
        self._snapshot = None
        self._made.clear()

    def _missing_text(self, t: int, wanted: Counter[Key]) -> str:
        missing = self.inqueue.missing(t, wanted)
        senders = sorted({sender for sender, _ in missing})
        return f"{missing.total()} messages of round {t} from nodes {', '.join(map(str, senders))}"
