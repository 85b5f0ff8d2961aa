"""From a composition to nodes that can run: shared by all executors, so that they cannot differ.

``Workload`` is everything that the nodes of one (arm, seed) share and that is made once per host, before
any process is forked: data, shards, initial model.
"""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass, field, replace
from functools import partial
from math import prod
from operator import attrgetter
from statistics import median

import numpy as np

from decentral.arrays import FloatArray, IntArray
from decentral.checkpoint.memory import Memory
from decentral.clock import NS_PER_S
from decentral.config import Arm
from decentral.following import Listener, Schedule
from decentral.fragments import whole_model
from decentral.journal import Journal
from decentral.medium import Medium
from decentral.network.model import INFINITE_NS
from decentral.node import Algorithm, Node, RoundsAreOver, TimeIsUp
from decentral.observer import Grid, Observer
from decentral.queues import Traffic
from decentral.records import Recorder, Value
from decentral.tasks.base import LoadedTask, Scores, Split, size_of
from decentral.tasks.untrained import LoadedUntrained
from decentral.virtual import VirtualMedium
from decentral.wire import Wire
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
        measured_ns: nominal time of a round where it is to be measured and another host has measured it.

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
    dealt = shards(composition, loaded)
    if composition.measured:
        composition = composition.timed(measured_ns or _measured_ns(composition, loaded, dealt[0], common))
    workload = Workload(composition, loaded, dealt, common)
    # Made here, the maps are kept and shared by all nodes that are forked afterwards.
    composition.fragmenter.split(workload.sizes)
    whole_model(sum(workload.sizes))
    if composition.untrained or arm.run.init != "common" or arm.evaluate.scope != "global":
        return workload
    scores, _ = workload.evaluation(None).score(common, final=False)
    return replace(workload, common_scores=scores)


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
        try:
            self.algorithm.run(self.node)
        except TimeIsUp:
            self.node.end(early=True)
        except RoundsAreOver:
            self.node.linger()
        else:
            self.node.end()


def synchronous(workload: Workload) -> bool:
    """Whether the workload's nodes wait for all messages of a round."""
    answer: bool = workload.composition.algorithm(local_steps=1).synchronous
    return answer


def limit_ns(workload: Workload) -> int:
    """The time limit in nanoseconds; ``INFINITE_NS`` without one."""
    limit_s = workload.arm.run.time_limit_s
    return INFINITE_NS if limit_s is None else round(limit_s * NS_PER_S)


def build_medium(workload: Workload, node: int, wire: Wire) -> VirtualMedium:
    """Emulated time and network as node ``node`` of ``workload`` has them over ``wire``."""
    loaded = workload.loaded
    return VirtualMedium(
        node=node,
        wire=wire,
        eager=synchronous(workload),
        limit_ns=limit_ns(workload),
        payload_bytes=loaded.payload_bytes if isinstance(loaded, LoadedUntrained) else attrgetter("nbytes"),
    )


def grid_step_ns(workload: Workload) -> int | None:
    """Emulated time between two evaluations of asynchronous nodes: ``test_after`` nominal rounds.

    None where evaluations go by rounds: for synchronous algorithms, and in real time.
    """
    if synchronous(workload) or workload.arm.run.clock == "wall":
        return None
    return workload.arm.run.test_after * workload.composition.compute.nominal_ns


def build_participant(
    workload: Workload,
    node: int,
    *,
    medium: Medium,
    recorder: Recorder,
    listener: Listener,
    memory: Memory | None = None,
) -> Participant:
    """Node ``node`` of ``workload``, with its initial model, and its algorithm.

    Args:
        workload: the run.
        node: its id.
        medium: time and network.
        recorder: takes its log.
        listener: hears of its progress.
        memory: of a run with checkpoints: the wire of ``medium``, which is then a ``VirtualMedium``.
    """
    arm, composition = workload.arm, workload.composition
    shard = workload.shards[node]
    learner = workload.loaded.learner(shard, composition.sgd)
    learner.x[:] = workload.initial(node)
    algorithm: Algorithm = composition.algorithm(composition.local_steps(int(shard.size)))
    traffic = Traffic()
    journal = Journal(
        node=node,
        medium=medium,
        traffic=traffic,
        recorder=recorder,
        evaluation=workload.evaluation(node),
        listener=listener,
    )
    run = arm.run
    made = Node(
        id=node,
        n=arm.nodes,
        learner=learner,
        sizes=workload.sizes,
        seeds=composition.seeds,
        medium=medium,
        durations=partial(composition.compute.duration_ns, node),
        schedule=Schedule(
            max_rounds=run.max_rounds,
            test_after=run.test_after,
            limit_ns=limit_ns(workload),
            test_every_ns=grid_step_ns(workload),
        ),
        synchronous=algorithm.synchronous,
        traffic=traffic,
        journal=journal,
        memory=memory,
    )
    if memory is not None:
        assert isinstance(medium, VirtualMedium), "checkpoints need emulated time"
        memory.ties(node=made, medium=medium, journal=journal)
    return Participant(made, algorithm)


def build_observer(workload: Workload, recorder: Recorder, *, resumed: bool = False) -> Observer:
    """The observer of ``workload``; writes the header, unless the log has one from before it was resumed."""
    if not resumed:
        recorder.write("header", **workload.header(None))
    arm, step_ns = workload.arm, grid_step_ns(workload)
    grid = None if step_ns is None else Grid(step_ns, arm.run.test_after)
    return Observer(n=arm.nodes, evaluation=workload.evaluation(None), recorder=recorder, grid=grid)
