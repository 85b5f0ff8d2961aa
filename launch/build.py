"""From a composition to nodes that can run: shared by all executors, so that they cannot differ."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from operator import attrgetter

from decentral.checkpoint.memory import Memory
from decentral.clock import NS_PER_S
from decentral.following import Listener, Schedule
from decentral.journal import Journal
from decentral.medium import Medium
from decentral.network.model import INFINITE_NS
from decentral.node import Algorithm, Node, RoundsAreOver, TimeIsUp
from decentral.observer import Grid, Observer
from decentral.queues import Traffic
from decentral.records import Recorder
from decentral.tasks.untrained import LoadedUntrained
from decentral.virtual import VirtualMedium
from decentral.wire import Wire
from launch.workload import Workload, load_workload

WALL_DEADLINE_S = 1.0
"""How long a lost node is waited for in real time where nobody says."""

__all__ = ["Participant", "Workload", "load_workload"]


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


def failure_deadline_ns(workload: Workload) -> int:
    """For how long on the run's clock nodes wait for a lost one."""
    run = workload.arm.run
    if run.failure_deadline_s is None and run.clock == "virtual":
        return workload.composition.compute.nominal_ns
    return max(1, round((run.failure_deadline_s or WALL_DEADLINE_S) * NS_PER_S))


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
