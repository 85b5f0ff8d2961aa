"""The observer: what can only be measured over all nodes' models at once (algorithms.md 1.6).

It takes part in no algorithm. Nodes send it a snapshot at every evaluation point; when all n of a round are
here it scores their uniform mean (avg_model) and the consensus distance.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from decentral.arrays import FloatArray
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


class Observer:
    """Gathers snapshots and writes ``metrics.jsonl``.

    Args:
        n: number of nodes.
        evaluation: scores the mean model.
        recorder: takes the log lines.
    """

    def __init__(self, *, n: int, evaluation: Evaluation, recorder: Recorder) -> None:
        self._n = n
        self._evaluation = evaluation
        self._recorder = recorder
        self._waiting: defaultdict[tuple[int, Kind], dict[int, Message]] = defaultdict(dict)
        self.complete = False
        """True once the final models of all nodes have been scored."""

    def add(self, message: Message) -> None:
        """Take one snapshot; scores its round when it is the last one missing."""
        key = (message.round, message.kind)
        self._waiting[key][message.sender] = message
        if len(self._waiting[key]) < self._n:
            return
        snapshots = self._waiting.pop(key)
        final = message.kind is Kind.FINAL
        mean, distance = consensus_distance(np.stack([snapshots[i].values for i in sorted(snapshots)]))
        scores, about = self._evaluation.score(mean, final=final)
        self._recorder.write(
            "evaluation",
            round=message.round,
            time_s=max(snapshot.time_ns for snapshot in snapshots.values()) / NS_PER_S,
            **about,
            final=final,
            models=self._n,
            consensus=distance,
            **{f"test_{name}": value for name, value in scores.items()},
        )
        self.complete = final
