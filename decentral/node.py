"""A node as its algorithm sees it: a model, rounds, training, messages, aggregation.

``Node`` is the verbs; it owns no socket and no process. The same object runs under the inline scheduler and
in a process of its own, with another clock and transport.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar, Protocol

import numpy as np

from decentral.arrays import FloatArray, IntArray
from decentral.clock import NS_PER_S, Clock
from decentral.errors import WireError
from decentral.following import Evaluation, Listener, Schedule
from decentral.fragments import Fragmenter, Fragments, whole_model
from decentral.messages import Kind, Message
from decentral.mixing import Mixer, Part
from decentral.queues import InQueue, Key, Outgoing, OutQueue, Traffic
from decentral.records import Recorder, Value
from decentral.seeding import Seeds
from decentral.tasks.base import Learner
from decentral.transports.base import Transport


class Algorithm(Protocol):
    """A frozen dataclass of hyper-parameters and one straight-line ``run`` (CONTRIBUTING.md)."""

    synchronous: ClassVar[bool]
    """True where a node waits for all messages of its round; False where the newest that came counts."""

    def run(self, node: Node) -> None:
        """What one node does from the start barrier to the end of its rounds."""
        ...


class Node:
    """One participant; used by one thread. Its model ``x`` changes in ``train`` and ``update`` only.

    Args:
        id: 0..n-1.
        n: number of nodes.
        learner: trains ``learner.x``, which is this node's live model.
        sizes: number of parameters of every tensor, in state-dict order.
        seeds: the run's streams.
        clock: this node's clock.
        transport: carries its messages; node ``n`` is the observer.
        recorder: takes its log lines.
        evaluation: scores its model.
        listener: hears of its progress.
        schedule: rounds and evaluation points.
        synchronous: whether messages are kept by round (algorithms that wait) or the newest kept.
    """

    def __init__(
        self,
        *,
        id: int,
        n: int,
        learner: Learner,
        sizes: Sequence[int],
        seeds: Seeds,
        clock: Clock,
        transport: Transport,
        recorder: Recorder,
        evaluation: Evaluation,
        listener: Listener,
        schedule: Schedule,
        synchronous: bool,
    ) -> None:
        self.id = id
        self.n = n
        self.x: FloatArray = learner.x
        self.d = int(self.x.size)
        self.sizes = tuple(sizes)
        self.peers: IntArray = np.delete(np.arange(n), id)
        self.traffic = Traffic()
        self.outqueue = OutQueue(self.traffic, batch_bytes=self.x.nbytes)
        self.inqueue = InQueue(self.traffic, keep_rounds=synchronous)
        self._learner = learner
        self._seeds = seeds
        self._clock = clock
        self._transport = transport
        self._recorder = recorder
        self._evaluation = evaluation
        self._listener = listener
        self._schedule = schedule
        self._round = 0
        self._complete = False
        self._train_loss: float | None = None
        self._train_ns = 0
        self._wait_ns = 0
        self._extra: dict[str, Value] = {}
        self._map_hash: bytes | None = None
        self._snapshot: tuple[Fragments, FloatArray] | None = None
        self._ages: list[int] = []
        self._made: dict[int, Message] = {}
        self._origin_ns = time.perf_counter_ns()
        self._off_clock_ns = 0

    def rounds(self) -> Iterator[int]:
        """Local rounds 0, 1, ... T-1; closes each round: log line, evaluation when due, progress."""
        self._origin_ns = time.perf_counter_ns()
        self._evaluate(final=False)
        for t in range(self._schedule.max_rounds):
            self._train_ns = self._wait_ns = 0
            self._extra = {}
            self._ages = []
            yield t
            self._round = t + 1
            self._recorder.write(
                "round",
                **self._stamp(),
                train_s=self._train_ns / NS_PER_S,
                wait_s=self._wait_ns / NS_PER_S,
                train_loss=self._train_loss,
                staleness=sum(self._ages) / len(self._ages) if self._ages else None,
                **self._counters(),
                **self._extra,
            )
            self._listener.progress(self.id, self._round, self._train_loss)
            last = self._round == self._schedule.max_rounds
            if last or self._round % self._schedule.test_after == 0:
                self._evaluate(final=last)
        self._complete = True

    @property
    def max_rounds(self) -> int:
        """T."""
        return self._schedule.max_rounds

    @property
    def complete(self) -> bool:
        """True once all T rounds are finished and the final model has been evaluated."""
        return self._complete

    def rng(self, name: str, *counters: int) -> np.random.Generator:
        """This node's stream ``name`` at ``counters``; other nodes draw other numbers."""
        return self._seeds.rng(f"node/{name}", self.id, *counters)

    def record(self, **fields: Value) -> None:
        """Add ``fields`` to the log line of the present round."""
        self._extra.update(fields)

    def fragments(self, fragmenter: Fragmenter | None = None) -> Fragments:
        """The fragment map for this node's model; without an argument the whole model is one fragment.

        Messages with any other map are refused from now on.
        """
        made = whole_model(self.d) if fragmenter is None else fragmenter.split(self.sizes)
        self._map_hash = made.map_hash
        return made

    def train(self, *, steps: int) -> None:
        """H local SGD steps on the live model, within one compute window."""
        rng = self.rng("batch", self._round)
        before = self._clock.now_ns()
        self._train_loss = self._clock.compute(lambda: self._learner.train(steps, rng))
        self._train_ns += self._clock.now_ns() - before
        self._forget_snapshot()

    def message(self, t: int, k: int, fragments: Fragments) -> Message:
        """Fragment ``k`` of the model as it is now, for round ``t``; equal calls give the same object."""
        ordered = self._ordered(fragments)
        made = self._made.get(k)
        if made is None or made.round != t:
            values = ordered[fragments.slice(k)]
            made = Message(self.id, t, k, values, fragments.map_hash, self._clock.now_ns())
            self._made[k] = made
        return made

    def exchange(self, t: int, outgoing: Iterable[Outgoing], expected: Iterable[Key]) -> list[Message]:
        """Send ``outgoing``, wait until all ``expected`` (sender, fragment) of round ``t`` are here.

        Blocks. Messages of later rounds that arrive meanwhile are kept for them.

        Returns:
            The messages of round ``t``, sorted by (sender, fragment).

        Raises:
            StalledError: a real transport heard nothing for the liveness timeout.
            Deadlock: inline, nobody can send what is missing.
            WireError: a message of round ``t`` that nobody was expected to send, or of another map.
        """
        self.outqueue.extend(outgoing)
        self.traffic.total_meta += self._transport.send(self.outqueue.pop_all())
        wanted = Counter(expected)
        number = wanted.total()
        before = self._clock.now_ns()
        while self.inqueue.arrived(t) < number:
            for message in self._transport.receive(lambda: self._missing_text(t, wanted)):
                self._accept(message)
        self._wait_ns += self._clock.now_ns() - before
        missing = self.inqueue.missing(t, wanted)
        received = self.inqueue.take_round(t)
        if missing or len(received) != number:
            surplus = Counter((message.sender, message.fragment) for message in received) - wanted
            raise WireError(
                "unexpected", f"node {self.id}, round {t}: got {dict(surplus)} instead of {dict(missing)}"
            )
        return received

    def update(self, mix: Mixer, received: Sequence[Message], fragments: Fragments) -> None:
        """Aggregate: ``x = mix(x, received)``, parameter by parameter (in fragment order)."""
        ordered = self._ordered(fragments).copy()
        parts = [Part(m.sender, m.fragment, fragments.slice(m.fragment), m.values) for m in received]
        fragments.scatter(mix(ordered, parts), self.x)
        self._ages += [self._round - message.round for message in received]
        self._forget_snapshot()

    def finish(self, reason: str) -> None:
        """Write the end of this node's log: ``done``, ``failed`` or ``interrupted``."""
        digest = hashlib.sha256(self.x.tobytes()).hexdigest()
        refused: dict[str, Value] = {f"refused_{why}": n for why, n in self._transport.refused.items()}
        self._recorder.write(
            "end", **self._stamp(), reason=reason, model_sha256=digest, **self._counters(), **refused
        )

    def _accept(self, message: Message) -> None:
        if message.map_hash != self._map_hash:
            raise WireError(
                "map",
                f"node {message.sender} cuts its model by another fragment map than node {self.id}; "
                f"give both the same fragments table, data and run seed",
            )
        self.inqueue.put(message)

    def _ordered(self, fragments: Fragments) -> FloatArray:
        if self._snapshot is None or self._snapshot[0] is not fragments:
            self._forget_snapshot()
            self._snapshot = (fragments, fragments.gather(self.x))
        return self._snapshot[1]

    def _forget_snapshot(self) -> None:
        self._snapshot = None
        self._made.clear()

    def _evaluate(self, *, final: bool) -> None:
        with self._clock.paused():
            before = time.perf_counter_ns()
            scores, about = self._evaluation.score(self.x, final=final)
            stamp = self._stamp_at(before)
            logged = {f"test_{name}": value for name, value in scores.items()}
            self._recorder.write(
                "evaluation", **stamp, **about, final=final, total_bytes=self.traffic.total_bytes, **logged
            )
            self._listener.evaluated(self.id, self._round, scores)
            kind = Kind.FINAL if final else Kind.SNAPSHOT
            whole = Message(self.id, self._round, 0, self.x.copy(), bytes(8), self._clock.now_ns(), kind)
            self._transport.send([(self.n, [whole])])
            self._off_clock_ns += time.perf_counter_ns() - before

    def _stamp(self) -> dict[str, Value]:
        return self._stamp_at(time.perf_counter_ns())

    def _stamp_at(self, wall_now_ns: int) -> dict[str, Value]:
        return {
            "node": self.id,
            "round": self._round,
            "time_s": self._clock.now_ns() / NS_PER_S,
            "wall_s": (wall_now_ns - self._origin_ns - self._off_clock_ns) / NS_PER_S,
        }

    def _counters(self) -> dict[str, Value]:
        traffic = self.traffic
        return {
            "total_bytes": traffic.total_bytes,
            "total_meta": traffic.total_meta,
            "made": traffic.made,
            "sent": traffic.sent,
            "received": traffic.received,
            "aggregated": traffic.aggregated,
            "replaced": traffic.replaced,
            "dropped": traffic.dropped,
        }

    def _missing_text(self, t: int, wanted: Counter[Key]) -> str:
        missing = self.inqueue.missing(t, wanted)
        senders = sorted({sender for sender, _ in missing})
        return f"{missing.total()} messages of round {t} from nodes {', '.join(map(str, senders))}"
