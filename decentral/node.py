"""A node as its algorithm sees it: a model, rounds, training, messages, aggregation.

``Node`` is the verbs; it owns no socket and no process. The same object runs inline and in a process of its
own, in emulated and in real time, with another ``Medium``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, Protocol

from decentral.arrays import FloatArray
from decentral.correspondent import Correspondent, TimeIsUp
from decentral.errors import RunFailed
from decentral.following import Schedule
from decentral.fragments import Fragments
from decentral.journal import Journal
from decentral.live import LiveModel
from decentral.medium import Medium, Poll
from decentral.messages import Kind, Message
from decentral.mixing import Mixer, Part
from decentral.network.model import INFINITE_NS
from decentral.queues import Traffic
from decentral.records import Value
from decentral.resampled import ResampledFragments
from decentral.seeding import Seeds
from decentral.tasks.base import Learner

__all__ = ["Algorithm", "Node", "TimeIsUp"]


class Algorithm(Protocol):
    """A frozen dataclass of hyper-parameters and one straight-line ``run`` (CONTRIBUTING.md)."""

    synchronous: ClassVar[bool]
    """True where a node waits for all messages of its round; False where the newest that came counts."""

    def run(self, node: Node) -> None:
        """What one node does from the start barrier to the end of its rounds."""
        ...


class Node(Correspondent):
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
        model = LiveModel(id, learner)
        super().__init__(
            id=id,
            n=n,
            model=model,
            sizes=sizes,
            seeds=seeds,
            medium=medium,
            durations=durations,
            schedule=schedule,
            synchronous=synchronous,
            traffic=traffic,
        )
        self._learner = learner
        self._journal = journal
        self._exhausted = False
        self._complete = False
        self._train_loss: float | None = None
        self._train_ns = 0
        self._extra: dict[str, Value] = {}
        self._ages: list[int] = []
        self._before: FloatArray | None = None

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
            began_ns = self._now()
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
            due = self._schedule.due(self._round, self._now(), began_ns)
            if due and self._round != self._schedule.max_rounds:
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

    # The model

    def train(self, *, steps: int) -> None:
        """H local SGD steps in one compute window.

        The steps run on a snapshot; their update is added to the live model at the end of the window, after
        whatever requests that arrived meanwhile did to it. Where none can arrive, this is training in place.
        """
        if self._rule is not None:
            self._model.begin()
        self._compute(steps)
        self._model.settle()

    def local_update(self, *, steps: int) -> FloatArray:
        """The sum of H local SGD steps from the present model, shape (d,), which stays as it is."""
        self._model.begin()
        self._compute(steps)
        return self._model.take_back()

    def apply(self, update: FloatArray) -> None:
        """``x += update``."""
        self.x += update
        self._model.changed()

    def update(
        self, mix: Mixer, received: Sequence[Message], fragments: Fragments | ResampledFragments
    ) -> None:
        """Aggregate: ``x = mix(x, received)``, parameter by parameter (in fragment order)."""
        if not received:
            return
        ordered = self._model.ordered(fragments).copy()
        where = fragments.where
        parts = [Part(m.sender, m.fragment, where(m.round, m.fragment), m.values, m.round) for m in received]
        fragments.scatter(mix(ordered, parts), self.x)
        # An answer to a request is the model of the moment; its round is the request's.
        self._ages += [self._round - each.round for each in received if each.kind is not Kind.REPLY]
        self._model.changed()

    def _compute(self, steps: int) -> None:
        """Run H steps in place."""
        rng = self.rng("batch", self._round)
        duration_ns = self._durations(self._round)
        before_ns = self._now()
        self._tick(before_ns + self._medium.foreseen_ns(duration_ns))

        def work(poll: Poll | None) -> float:
            return self._learner.train(steps, rng, poll)

        self._train_loss, arrived = self._medium.compute(work, duration_ns)
        self._train_ns += self._now() - before_ns
        self._tick(self._now())
        self._accept(arrived)
