"""The observer: what can only be measured over all nodes' models at once (algorithms.md 1.6).

It takes part in no algorithm. Nodes send it a snapshot at every evaluation point. Where nodes go in step
(synchronous algorithms) it scores the snapshots of one round together; where they do not, those of one
instant of a common time grid, every node counting with its last snapshot at or before it. It scores their
uniform mean (avg_model) and the consensus distance.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from decentral.arrays import FloatArray
from decentral.checkpoint.state import Stateful
from decentral.clock import NS_PER_S
from decentral.following import Evaluation
from decentral.messages import Kind, Message
from decentral.records import Recorder


def consensus_distance(models: FloatArray) -> tuple[FloatArray, float]:
    """Mean model and ``mean_i || x_i - mean_j x_j ||_2`` (not squared) of ``models``, shape (n, d).

    Both are accumulated in float64.
    """
    mean = models.mean(axis=0, dtype=np.float64)
    # Not np.linalg.norm, whose BLAS sums in another order with another number of threads.
    distance = float(np.mean([np.sqrt(np.square(x - mean).sum()) for x in models]))
    return mean.astype(np.float32), distance


@dataclass(frozen=True)
class Grid:
    """Instants 0, ``step_ns``, 2 ``step_ns``, ...; every ``rounds`` rounds of a node of nominal speed."""

    step_ns: int
    rounds: int


class Observer(Stateful):
    """Gathers snapshots and writes ``metrics.jsonl``.

    Args:
        n: number of nodes.
        evaluation: scores the mean model.
        recorder: takes the log lines.
        grid: common instants; None for algorithms whose nodes go round by round.
    """

    GIVEN: ClassVar[str] = "_evaluation _recorder _grid"

    def __init__(
        self, *, n: int, evaluation: Evaluation, recorder: Recorder, grid: Grid | None = None
    ) -> None:
        self._evaluation = evaluation
        self._recorder = recorder
        self._grid = grid
        self._by_round: defaultdict[int, dict[int, Message]] = defaultdict(dict)
        self._by_node: list[list[Message]] = [[] for _ in range(n)]
        self._finals: dict[int, Message] = {}
        self._living = set(range(n))
        self._until_ns: dict[int, int] = {}
        self._point = 0
        self._scored: list[tuple[int, int]] = []
        self.complete = False
        """True once the final models of all nodes that are not lost have been scored."""

    def add(self, message: Message) -> None:
        """Take one snapshot; scores what it completes."""
        if message.kind not in (Kind.SNAPSHOT, Kind.FINAL):
            return  # not for an observer
        if message.sender not in self._living and message.sender not in self._finals:
            return  # a host that was given up may live on for a while
        if message.kind is Kind.FINAL:
            self._finals[message.sender] = message
        elif self._grid is None:
            self._by_round[message.round][message.sender] = message
        if self._grid is not None:
            self._by_node[message.sender].append(message)
        self._score()

    def lose(self, node: int, at_ns: int) -> None:
        """``node`` has ended at ``at_ns``: what it has shown counts, and nothing more is waited for.

        On the time grid it counts while it lived, as far as what it has shown says which model it had: up to
        its last snapshot. One whose final model is here counts to the end.
        """
        if node not in self._finals and node in self._living:
            self._living.discard(node)
            last_ns = max((snapshot.time_ns for snapshot in self._by_node[node]), default=-1)
            self._until_ns[node] = min(at_ns, last_ns)
            self._score()

    def _score(self) -> None:
        """Score what is complete."""
        if self._grid is not None:
            self._advance(self._grid)
        for round_ in sorted(self._by_round):
            if self._living <= self._by_round[round_].keys():
                self._write(self._by_round.pop(round_), final=False)
        if self._living <= self._finals.keys() and not self.complete:
            self._write(self._finals, final=True)
            self.complete = True

    def _advance(self, grid: Grid) -> None:
        """Score every instant that all nodes have passed, where any of them has changed since the last."""
        everybody_ends_ns = max((m.time_ns for m in self._finals.values()), default=-1)
        ended = self._living <= self._finals.keys()
        by_node = [(node, self._by_node[node]) for node in sorted(self._living)]
        while True:
            at_ns = self._point * grid.step_ns
            if ended and at_ns > everybody_ends_ns:
                return
            for node, snapshots in by_node:
                if node not in self._finals and (not snapshots or snapshots[-1].time_ns <= at_ns):
                    return
            counts = self._living.union(
                node for node, until_ns in self._until_ns.items() if at_ns <= until_ns
            )
            current = {node: _last(self._by_node[node], at_ns) for node in sorted(counts)}
            versions = [(message.round, message.time_ns) for message in current.values()]
            if versions != self._scored:
                self._scored = versions
                self._write(current, final=False, at_ns=at_ns, round_=self._point * grid.rounds)
            self._point += 1

    def _write(
        self,
        snapshots: Mapping[int, Message],
        *,
        final: bool,
        at_ns: int | None = None,
        round_: int | None = None,
    ) -> None:
        ordered = [snapshots[i] for i in sorted(snapshots)]
        mean, distance = consensus_distance(np.stack([snapshot.values for snapshot in ordered]))
        scores, about = self._evaluation.score(mean, final=final)
        time_ns = max(snapshot.time_ns for snapshot in ordered) if at_ns is None else at_ns
        self._recorder.write(
            "evaluation",
            round=max(snapshot.round for snapshot in ordered) if round_ is None else round_,
            time_s=time_ns / NS_PER_S,
            **about,
            final=final,
            models=len(ordered),
            consensus=distance,
            **{f"test_{name}": value for name, value in scores.items()},
        )


def _last(snapshots: list[Message], at_ns: int) -> Message:
    """The newest of ``snapshots`` at or before ``at_ns``; forgets older ones. The first is from time 0."""
    while len(snapshots) > 1 and snapshots[1].time_ns <= at_ns:
        del snapshots[0]
    return snapshots[0]
