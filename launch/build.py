"""From a composition to nodes that can run: shared by all executors, so that they cannot differ.

``Workload`` is everything that the nodes of one (arm, seed) share and that is made once per host, before
any process is forked: data, shards, initial model.
"""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass, field, replace

import numpy as np

from decentral.arrays import FloatArray, IntArray
from decentral.clock import Clock
from decentral.config import Arm
from decentral.errors import RunFailed
from decentral.following import Listener, Schedule
from decentral.fragments import whole_model
from decentral.node import Algorithm, Node
from decentral.observer import Observer
from decentral.records import Recorder, Value
from decentral.tasks.base import LoadedTask, Scores, Split, size_of
from decentral.transports.base import Transport
from launch.compose import Composition, compose, evaluation_rows, shards

PERTURBATION = 0.005
"""Half-width of Shatter's uniform noise on the initial model, per unit of m (algorithms.md 3.5)."""


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

    def initial(self, node: int) -> FloatArray:
        """Node ``node``'s model before round 0 (algorithms.md D12)."""
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


def load_workload(arm: Arm, seed: int, tasks: dict[str, LoadedTask]) -> Workload:
    """Compose (arm, seed), load its data (once per distinct data table, kept in ``tasks``) and partition it.

    Raises:
        ConfigError: the data cannot be partitioned as asked.
        DataError: the data is missing or damaged.
    """
    composition = compose(arm, seed)
    key = repr(composition.task)
    if key not in tasks:
        tasks[key] = composition.task.load()
    loaded = tasks[key]
    common = loaded.initial(composition.seeds.integer("model"))
    # Made here, the maps are kept and shared by all nodes that are forked afterwards.
    sizes = [int(np.prod(shape)) for _, shape in composition.task.shapes()]
    composition.fragmenter.split(sizes)
    whole_model(sum(sizes))
    workload = Workload(composition, loaded, shards(composition, loaded), common)
    if arm.run.init != "common" or arm.evaluate.scope != "global":
        return workload
    scores, _ = workload.evaluation(None).score(common, final=False)
    return replace(workload, common_scores=scores)


@dataclass(frozen=True)
class Participant:
    """A node together with the algorithm that it runs."""

    node: Node
    algorithm: Algorithm

    def run(self) -> None:
        """Run the algorithm to its end.

        Raises:
            RunFailed: it returned before its last round; its neighbors would wait for it for ever.
        """
        self.algorithm.run(self.node)
        if not self.node.complete:
            raise RunFailed(
                f"algorithm {type(self.algorithm).__name__} returned before round {self.node.max_rounds}; "
                f"let it iterate over node.rounds() to the end"
            )


def build_participant(
    workload: Workload,
    node: int,
    *,
    clock: Clock,
    transport: Transport,
    recorder: Recorder,
    listener: Listener,
) -> Participant:
    """Node ``node`` of ``workload``, with its initial model, and its algorithm."""
    arm, composition = workload.arm, workload.composition
    shard = workload.shards[node]
    learner = workload.loaded.learner(shard, composition.sgd)
    learner.x[:] = workload.initial(node)
    algorithm: Algorithm = composition.algorithm(composition.local_steps(int(shard.size)))
    made = Node(
        id=node,
        n=arm.nodes,
        learner=learner,
        sizes=[int(np.prod(shape)) for _, shape in composition.task.shapes()],
        seeds=composition.seeds,
        clock=clock,
        transport=transport,
        recorder=recorder,
        evaluation=workload.evaluation(node),
        listener=listener,
        schedule=Schedule(max_rounds=arm.run.max_rounds, test_after=arm.run.test_after),
        synchronous=algorithm.synchronous,
    )
    return Participant(made, algorithm)


def build_observer(workload: Workload, recorder: Recorder) -> Observer:
    """The observer of ``workload``; writes its header."""
    recorder.write("header", **workload.header(None))
    return Observer(n=workload.arm.nodes, evaluation=workload.evaluation(None), recorder=recorder)
