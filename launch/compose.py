"""The only place where algorithms, topologies, fragments, tasks and networks meet.

``compose`` makes the parts of one run and reads no data; ``check`` does so for every arm and seed and tells
all that is wrong. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from math import ceil, prod
from typing import Any, TypeVar

from decentral.config import Arm, Experiment, Part
from decentral.config.problems import common, sentence, shown
from decentral.errors import ConfigError
from decentral.fragments import Fragmenter
from decentral.network.compute import ComputeModel
from decentral.network.model import NetworkModel
from decentral.seeding import Seeds
from decentral.tasks.base import Partitioner, Sgd, Task, size_of
from decentral.tasks.untrained import Untrained
from decentral.topology import Topology
from launch import parts
from launch.algorithms import build_algorithm, build_topology, check_algorithm, sent_models, takes_topology
from launch.emulation import build_compute, build_network, check_compute, check_untrained
from launch.files import contents

T = TypeVar("T")

POSITIVE_METRICS = frozenset(["rmse", "loss", "distance"])


@dataclass(frozen=True)
class Composition:
    """All parts of one run: an arm under one seed.

    Attributes:
        topology: None where the algorithm chooses recipients itself.
        task: as ``decentral.tasks.untrained`` has it where nothing is trained.
        network: the emulated network.
        compute: emulated cost of computing; its nominal time is a placeholder while ``measured``.
    """

    arm: Arm
    seeds: Seeds
    topology: Topology | None
    fragmenter: Fragmenter
    task: Task
    partitioner: Partitioner
    network: NetworkModel
    compute: ComputeModel

    @property
    def sgd(self) -> Sgd:
        """The settings of local training."""
        train = self.arm.train
        return Sgd(lr=train.lr, batch=train.batch, momentum=train.momentum, weight_decay=train.weight_decay)

    @property
    def untrained(self) -> bool:
        """Whether nodes hold random vectors and nothing is trained."""
        return self.arm.train.mode == "none"

    @property
    def measured(self) -> bool:
        """Whether the nominal time of a round is still to be measured on this machine (``timed``)."""
        return self.arm.compute.time_per_round == "measured"

    def timed(self, nominal_ns: int) -> Composition:
        """This run with ``nominal_ns`` as the nominal time of a local round."""
        return replace(self, compute=replace(self.compute, nominal_ns=nominal_ns))

    def local_steps(self, rows: int) -> int:
        """H of a node whose shard has ``rows`` rows: as given, or full epochs of ceil(rows / b) steps."""
        train = self.arm.train
        if train.local_steps is not None:
            return train.local_steps
        # Where nothing is trained there are no rows, but an algorithm that divides by its steps.
        return (train.full_epochs or 0) * max(1, ceil(rows / train.batch))

    def algorithm(self, local_steps: int) -> Any:
        """The algorithm for a node that trains ``local_steps`` steps a round.

        Raises:
            ConfigError: its settings are impossible, or do not go with the topology.
        """
        return build_algorithm(self.arm, local_steps, self.topology, self.fragmenter)

    @cached_property
    def volume(self) -> float | None:
        """Whole models that a node sends per round, mean over nodes; None if the algorithm does not tell."""
        return sent_models(self.algorithm(local_steps=1), self.topology, self.arm)


def compose(arm: Arm, seed: int) -> Composition:
    """The parts of ``arm`` under ``seed``.

    Raises:
        ConfigError: a part is unknown or impossible, all problems of all parts at once.
    """
    seeds = Seeds(seed)
    problems: list[str] = []
    task = _attempt(problems, lambda: _task(arm))
    fragmenter = Fragmenter(count=arm.fragments.count, map=arm.fragments.map, seeds=seeds)
    topology = _attempt(problems, lambda: build_topology(arm, seeds))
    partitioner = _attempt(problems, lambda: parts.build("partition", arm.data.partition, {}))
    network = _attempt(problems, lambda: build_network(arm.network, arm.nodes, seeds))
    _attempt(problems, lambda: check_compute(arm))
    _attempt(problems, lambda: check_untrained(arm))
    _attempt(problems, lambda: _check_checkpoint(arm))
    _attempt(problems, lambda: parts.settings("algorithm", arm.algorithm))
    if task is None or partitioner is None or network is None or problems:
        raise ConfigError(list(dict.fromkeys(problems)))  # an unknown algorithm hinders more than one part
    _attempt(problems, lambda: _fragments_fit(arm, task))
    algorithm = _attempt(problems, lambda: build_algorithm(arm, 1, topology, fragmenter))
    if algorithm is None:
        raise ConfigError(problems)
    _attempt(problems, lambda: check_algorithm(arm, algorithm, network))
    d = size_of(task.shapes())
    compute = _attempt(
        problems, lambda: build_compute(arm, seeds, d, lambda: sent_models(algorithm, topology, arm))
    )
    if compute is None or problems:
        raise ConfigError(problems)
    bare = arm.train.mode == "none"
    held: Task = Untrained(task=task, n=arm.nodes, fragmenter=fragmenter, seeds=seeds) if bare else task
    return Composition(arm, seeds, topology, fragmenter, held, partitioner, network, compute)


def check(experiment: Experiment, executor: str = "processes") -> None:
    """Compose every arm under every seed, without loading data, and look whether the data is there.

    Args:
        experiment: what would be run.
        executor: ``processes`` or ``inline``.

    Raises:
        ConfigError: all problems of all arms, each once.
    """
    arms = settled(experiment).arms
    found = {f'arm "{arm.name}"': _problems(arm, experiment, executor) for arm in arms}
    if problems := common(found):
        raise ConfigError(problems)


def settled(experiment: Experiment) -> Experiment:
    """``experiment`` without graphs that an arm inherited and cannot use.

    A graph that all arms share is meant for those that take one, so others ignore it; a graph that an arm
    asked for itself, or that no arm can use, is left for ``compose`` to refuse.
    """
    takers = {arm.name for arm in experiment.arms if takes_topology(arm)}
    ignoring = {
        name for name, keys in experiment.inherited.items() if "topology" in keys and takers - {name}
    } - takers
    arms = [
        arm.model_copy(update={"topology": None}) if arm.name in ignoring else arm for arm in experiment.arms
    ]
    return experiment.model_copy(update={"arms": tuple(arms)})


def _problems(arm: Arm, experiment: Experiment, executor: str) -> list[str]:
    problems: list[str] = []
    _attempt(problems, lambda: _executor_fits(arm, executor))
    for number, seed in enumerate(experiment.seeds):
        composition = _attempt(problems, partial(compose, arm, seed))
        if composition is None:
            break  # the other seeds would tell the same again
        if number == 0:  # neither data nor the sizes of fragments depend on the seed
            _attempt(problems, partial(_check_data, composition))
            _attempt(problems, partial(_check_target, composition, experiment.target))
            _attempt(problems, partial(contents, arm))
    return problems


def complete(experiment: Experiment) -> Experiment:
    """``experiment`` with every hyper-parameter of every part, defaults filled in: what is recorded of a run.

    A target is a score of the task, so it is left out where nothing is trained.

    Raises:
        ConfigError: a part is unknown or its settings are impossible; call ``check`` first for all problems.
    """
    arms = tuple(map(_complete_arm, settled(experiment).arms))
    trained = any(arm.train.mode != "none" for arm in arms)
    return experiment.model_copy(update={"arms": arms, "target": experiment.target if trained else None})


def _complete_arm(arm: Arm) -> Arm:
    task = parts.completed("task", _task_part(arm))
    partition = parts.completed("partition", arm.data.partition)
    return arm.model_copy(
        update={
            "algorithm": parts.completed("algorithm", arm.algorithm),
            "topology": arm.topology and parts.completed("topology", arm.topology),
            "network": parts.completed("network", arm.network),
            "data": arm.data.model_copy(update={"settings": task.settings, "partition": partition}),
        }
    )


def _attempt(problems: list[str], step: Callable[[], T]) -> T | None:
    """What ``step`` returns; or None, its problems added to ``problems``."""
    try:
        return step()
    except ConfigError as error:
        problems += error.problems
        return None


def _task_part(arm: Arm) -> Part:
    return Part(name=arm.data.name, settings=arm.data.settings)


def _task(arm: Arm) -> Task:
    task: Task = parts.build("task", _task_part(arm), {})
    return task


def _fragments_fit(arm: Arm, task: Task) -> None:
    d, count = size_of(task.shapes()), arm.fragments.count
    if count > d:
        excess = f"is more than the d = {d} parameters of task {shown(arm.data.name)}"
        raise ConfigError(sentence("fragments.count", count, excess, f"use at most {d} fragments"))


def _check_checkpoint(arm: Arm) -> None:
    if arm.checkpoint.asked and arm.run.clock == "wall":
        expectation = "real time cannot be resumed, only emulated time can"
        step = "remove the checkpoint table or use the virtual clock"
        raise ConfigError(sentence("run.clock", "wall", expectation, step))


def _executor_fits(arm: Arm, executor: str) -> None:
    if executor == "inline" and arm.run.clock == "wall":
        expectation = "inline nodes take turns in one process, so real time means nothing"
        step = "use --executor processes or the virtual clock"
        raise ConfigError(sentence("run.clock", "wall", expectation, step))


def _check_target(composition: Composition, target: float | None) -> None:
    """Refuse a ``target`` that no score can reach; metrics of third parties may have any range."""
    if target is None or composition.untrained:
        return
    name = composition.task.metric.name
    if name == "acc" and not 0 < target <= 1:
        expectation = "accuracy lies between 0 and 1"
        raise ConfigError(sentence("target", target, expectation, "use for example 0.8"))
    if name in POSITIVE_METRICS and target <= 0:
        raise ConfigError(sentence("target", target, f"{name} is above 0", "use for example 1.25"))


def _check_data(composition: Composition) -> None:
    problems: list[str] = []
    task = composition.task
    sizes = [prod(shape) for _, shape in task.shapes()]
    _attempt(problems, lambda: composition.fragmenter.split(sizes))
    _attempt(problems, task.check)
    if problems:
        raise ConfigError([parts.located("data", text) for text in problems])
