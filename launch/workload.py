"""What all nodes of one (arm, seed) share, made once per host before any process is forked."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass, field, replace
from math import prod
from statistics import median

import numpy as np

from decentral.arrays import FloatArray, IntArray
from decentral.config import Arm
from decentral.errors import ConfigError
from decentral.fragments import whole_model
from decentral.records import Value
from decentral.tasks.base import Learner, LoadedTask, Resumable, Scores, Split, size_of
from decentral.tasks.untrained import LoadedUntrained
from launch.compose import Composition, compose
from launch.rows import evaluation_rows, shards

PERTURBATION = 0.005
"""Half-width of Shatter's uniform noise on the initial model, per unit of m (algorithms.md 3.5)."""
FLOAT_BYTES = 4
_MEASURED_ROUNDS = 5


@dataclass(frozen=True)
class TaskEvaluation:
    """Scores models on a fixed subset for curves and on the whole split at the end."""

    loaded: LoadedTask
    curve: tuple[Split, IntArray | None]
    whole: tuple[Split, IntArray | None]
    split_name: str
    common: tuple[FloatArray, Scores] | None = None
    """A model that all nodes start from and its scores on the curve's rows, found once for all of them."""

    def score(self, x: FloatArray, *, final: bool) -> tuple[Scores, dict[str, Value]]:
        """Scores of ``x`` and what to log beside them."""
        split, rows = self.whole if final else self.curve
        samples = self.loaded.rows(split) if rows is None else int(rows.size)
        about: dict[str, Value] = {"split": self.split_name, "samples": samples}
        if self.common is not None and not final and np.array_equal(x, self.common[0]):
            return self.common[1], about
        return self.loaded.evaluate(x, split, rows), about


@dataclass(frozen=True)
class Workload:
    """What all nodes of one (arm, seed) share."""

    composition: Composition
    loaded: LoadedTask
    shards: list[IntArray]
    common: FloatArray = field(repr=False)
    common_scores: Scores | None = None

    @property
    def arm(self) -> Arm:
        """The arm's settings."""
        return self.composition.arm

    @property
    def d(self) -> int:
        """Number of parameters."""
        return size_of(self.composition.task.shapes())

    def evaluation(self, node: int | None) -> TaskEvaluation:
        """How node ``node`` is scored; None is the observer, which always sees the global split."""
        shard = None if node is None else self.shards[node]
        return TaskEvaluation(
            self.loaded,
            evaluation_rows(self.composition, self.loaded, shard, final=False),
            evaluation_rows(self.composition, self.loaded, shard, final=True),
            self.arm.evaluate.split,
            None if self.common_scores is None else (self.common, self.common_scores),
        )

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of entries of every tensor of what nodes hold: a model, or the vector that stands for it."""
        if isinstance(self.loaded, LoadedUntrained):
            return self.loaded.sizes
        return tuple(prod(shape) for _, shape in self.composition.task.shapes())

    @property
    def batch_bytes(self) -> int:
        """Most payload that really travels together: all that a node holds."""
        return FLOAT_BYTES * sum(self.sizes)

    def initial(self, node: int) -> FloatArray:
        """Node ``node``'s model before round 0 (algorithms.md D12)."""
        if isinstance(self.loaded, LoadedUntrained):
            vector: FloatArray = self.loaded.vectors[node]
            return vector
        seeds = self.composition.seeds
        init = self.arm.run.init
        if init == "common":
            return self.common
        if init == "independent":
            return self.loaded.initial(seeds.integer("model", node))
        width = PERTURBATION * (self.arm.run.perturbation or 0.0)
        noise = seeds.rng("perturb", node).uniform(-width, width, size=self.common.size)
        return self.common + noise.astype(np.float32)

    def header(self, node: int | None) -> dict[str, Value]:
        """The header event of a node's log, or of the observer's."""
        arm, metric = self.arm, self.composition.task.metric
        shared: dict[str, Value] = {
            "arm": arm.name,
            "seed": self.composition.seeds.run_seed,
            "algorithm": arm.algorithm.name,
            "nodes": arm.nodes,
            "d": self.d,
            "metric": metric.name,
            "higher_is_better": metric.higher_is_better,
        }
        if node is None:
            return shared
        about: dict[str, Value] = {"node": node, "host": platform.node(), "pid": os.getpid()}
        return {**shared, **about, "shard": int(self.shards[node].size), "start_unix_s": time.time()}


def load_workload(
    arm: Arm, seed: int, tasks: dict[str, LoadedTask], measured_ns: int | None = None
) -> Workload:
    """Compose (arm, seed), load its data (once per distinct data table, kept in ``tasks``) and partition it.

    Args:
        arm: the arm.
        seed: of the run.
        tasks: what is loaded already.
        measured_ns: nominal time of a round where it is to be measured and another host has measured it, or
            this one before the run was resumed.

    Raises:
        ConfigError: the data cannot be partitioned as asked, or checkpoints cannot be made.
        DataError: the data is missing or damaged.
    """
    composition = compose(arm, seed)
    key = repr(composition.task)
    if key not in tasks:
        tasks[key] = composition.task.load()
    loaded = tasks[key]
    common = loaded.initial(composition.seeds.integer("model"))
    dealt = shards(composition, loaded)
    if composition.measured:
        composition = composition.timed(measured_ns or _measured_ns(composition, loaded, dealt[0], common))
    if arm.checkpoint.asked:
        _check_resumable(arm, loaded.learner(dealt[0], composition.sgd))
    workload = Workload(composition, loaded, dealt, common)
    # Made here, the maps are kept and shared by all nodes that are forked afterwards.
    composition.fragmenter.split(workload.sizes)
    whole_model(sum(workload.sizes))
    if composition.untrained or arm.run.init != "common" or arm.evaluate.scope != "global":
        return workload
    scores, _ = workload.evaluation(None).score(common, final=False)
    return replace(workload, common_scores=scores)


def _check_resumable(arm: Arm, learner: Learner) -> None:
    if not isinstance(learner, Resumable):
        raise ConfigError(
            f"checkpoint: the learner {type(learner).__name__} of task {arm.data.name} cannot be resumed; "
            f"give it state() and restore(state) (decentral.tasks.base.Resumable), or remove the checkpoint "
            f"table"
        )


def _measured_ns(composition: Composition, loaded: LoadedTask, shard: IntArray, common: FloatArray) -> int:
    """CPU time of one node's local round here and now, alone on its core: median of several after a first.

    Nodes that share cores would measure each other; so it is found once, before they are started, and holds
    for the whole run.
    """
    learner = loaded.learner(shard, composition.sgd)
    steps = composition.local_steps(int(shard.size))
    taken_ns = []
    for number in range(1 + _MEASURED_ROUNDS):
        learner.x[:] = common
        before_ns = time.thread_time_ns()
        learner.train(steps, composition.seeds.rng("measure", number))
        taken_ns.append(time.thread_time_ns() - before_ns)
    return round(median(taken_ns[1:]))
