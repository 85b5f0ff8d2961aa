"""A node as its algorithm sees it: a model, rounds, training, messages, aggregation.

``Node`` is the verbs; it owns no socket and no process. The same object runs inline and in a process of its
own, in emulated and in real time, with another ``Medium``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any, ClassVar, Protocol

from decentral.arrays import FloatArray
from decentral.checkpoint.memory import Memory
from decentral.errors import RunFailed
from decentral.following import RoundsAreOver, Schedule, TimeIsUp
from decentral.journal import Journal
from decentral.medium import Medium
from decentral.network.model import INFINITE_NS
from decentral.queues import Traffic
from decentral.records import Value
from decentral.seeding import Seeds
from decentral.tasks.base import Learner
from decentral.trainee import Trainee

__all__ = ["Algorithm", "Node", "RoundsAreOver", "TimeIsUp"]


class Algorithm(Protocol):
    """A frozen dataclass of hyper-parameters and one straight-line ``run`` (CONTRIBUTING.md)."""

    synchronous: ClassVar[bool]
    """True where a node waits for all messages of its round; False where the newest that came counts."""

    def run(self, node: Node) -> None:
        """What one node does from the start barrier to the end of its rounds."""
        ...


class Node(Trainee):
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
        memory: remembers for checkpoints; the medium's wire. None: none are made.
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
        memory: Memory | None = None,
    ) -> None:
        super().__init__(
            id=id,
            n=n,
            learner=learner,
            sizes=sizes,
            seeds=seeds,
            medium=medium,
            durations=durations,
            schedule=schedule,
            synchronous=synchronous,
            traffic=traffic,
        )
        self._journal = journal
        self._exhausted = False
        self._complete = False
        self._extra: dict[str, Value] = {}
        self._before: FloatArray | None = None
        self._memory = memory

    # Rounds and the log

    def rounds(self) -> Iterator[int]:
        """Local rounds 0, 1, ... until T rounds are done or a round would start after the time limit.

        Closes each round: log line, evaluation when due, progress.
        """
        if not self._resumed():
            self._journal.start()
            self._journal.evaluate(0, self.x, final=False)
            self._remember()
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
            self._remember()
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
        if self._memory is not None:
            self._memory.lingers()
        self.linger()

    def linger(self) -> None:
        """Serve until all others have left; the rest of ``end``, also of a node that is resumed there."""
        serving = self._rule is not None
        self._medium.linger()
        if serving:  # others still averaged with it
            self._journal.evaluate(self._round, self.x, final=True)
        self._complete = True

    @property
    def finished(self) -> int:
        """Local rounds that are over."""
        return self._round

    @property
    def complete(self) -> bool:
        """True once all rounds are finished and the final model has been evaluated."""
        return self._complete

    def finish(self, reason: str) -> None:
        """Write the end of this node's log: ``done``, ``failed`` or ``interrupted``."""
        self.inqueue.discard()
        self._journal.finish(self._round, self.x, reason)

    def keep(self, **first: Any) -> SimpleNamespace:
        """What the algorithm carries from round to round besides the model, with its first values.

        Call it before ``rounds``. The attributes of what it returns are part of a checkpoint: arrays,
        messages, plain numbers, and lists, tuples, sets and dicts of them; a run with checkpoints refuses
        other classes. In a run that is resumed they are what they were at the beginning of the round in which
        the node goes on. Messages are never changed in place.
        """
        vars(self._kept).update(first if self._memory is None else self._memory.kept(first))
        return self._kept

    def record(self, **fields: Value) -> None:
        """Add ``fields`` to the log line of the present round."""
        self._extra.update(fields)

    # Checkpoints (decentral.checkpoint.memory)

    def _remember(self) -> None:
        if self._memory is not None:
            self._memory.boundary()

    def _resumed(self) -> bool:
        """Whether the node's state is that of a checkpoint now.

        Raises:
            RoundsAreOver: in that, the node had ended its rounds.
        """
        if self._memory is None or not self._memory.resuming:
            return False
        if self._memory.resume():
            raise RoundsAreOver
        return True
