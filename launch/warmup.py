"""A little training before the fork, and what it tells: whether hosts would compute the same."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from decentral.arrays import IntArray
from launch.agreement import Sample
from launch.build import Workload

_STEPS = 2
_ROWS = 64


class Samples:
    """What warming up told, once per task and seed: arms of them differ in the rows of nodes at most."""

    def __init__(self) -> None:
        self._known: dict[str, Sample] = {}

    def take(self, workload: Workload) -> Sample:
        """Warm up for ``workload``, unless that has been done."""
        key = repr((workload.composition.task, workload.composition.seeds, workload.arm.train))
        if key not in self._known:
            self._known[key] = _warm_up(workload)
        return self._known[key]._replace(shards=_shards_digest(workload.shards))


def _warm_up(workload: Workload) -> Sample:
    """Train and evaluate a little: torch's lazy imports would cost every forked child 1.1 s and 110 MB."""
    learner = workload.loaded.learner(workload.shards[0], workload.composition.sgd)
    learner.x[:] = workload.common
    learner.train(_STEPS, workload.composition.seeds.rng("warm-up"))
    split, rows = workload.evaluation(None).curve
    held = workload.loaded.rows(split) if rows is None else int(rows.size)
    first = np.arange(min(_ROWS, held)) if rows is None else rows[:_ROWS]
    scores = workload.loaded.evaluate(learner.x, split, first)
    digest = hashlib.blake2b(learner.x.tobytes(), digest_size=8)
    digest.update(repr(sorted(scores.items())).encode())
    return Sample(float(scores["loss"]), digest.hexdigest(), _shards_digest(workload.shards))


def _shards_digest(shards: Sequence[IntArray]) -> str:
    """The same for the same rows, in the same order, of every node."""
    digest = hashlib.blake2b(digest_size=8)
    for shard in shards:
        digest.update(shard.size.to_bytes(8, "little") + shard.tobytes())
    return digest.hexdigest()
