"""What experiments can be made of, and what one of them would do: plain data for the command line."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass

from decentral.config import SHIPPED, Arm, Experiment
from decentral.errors import ConfigError
from decentral.network.compute import NS_PER_S
from decentral.tasks.base import size_of
from launch import parts
from launch.compose import compose, settled

FLOAT_BYTES = 4
KINDS: tuple[tuple[str, parts.Kind], ...] = (
    ("algorithms", "algorithm"),
    ("topologies", "topology"),
    ("networks", "network"),
    ("tasks", "task"),
    ("partitions", "partition"),
)


def catalogue() -> dict[str, dict[str, str]]:
    """One line on every shipped part and experiment, by section and name."""
    return {**{title: parts.described(kind) for title, kind in KINDS}, "experiments": experiments()}


def experiments() -> dict[str, str]:
    """The description of every shipped experiment by name.

    Raises:
        ConfigError: a file in the folder is no TOML.
    """
    found = {}
    for path in sorted(SHIPPED.glob("*.toml")):
        try:
            document = tomllib.loads(path.read_text(encoding="utf-8"))
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{path}: {error}; correct or remove the file") from error
        found[path.stem] = str(document.get("description", ""))
    return found


@dataclass(frozen=True)
class ArmPlan:
    """What one run of an arm does.

    Attributes:
        arm: the arm.
        parameters: d, model size.
        messages: sent per node and round, mean over nodes in round 0; None where the algorithm does not tell.
        bytes: payload sent per node and round likewise, every fragment taken as d/K parameters.
        compute_s: shortest and longest emulated time that a node computes in a round, without jitter; None
            where it is real or yet to be measured.
    """

    arm: Arm
    parameters: int
    messages: float | None
    bytes: float | None
    compute_s: tuple[float, float] | None

    @property
    def total_bytes(self) -> float | None:
        """Payload that all nodes send in a whole run; None where that or the number of rounds is unknown."""
        rounds = self.arm.run.max_rounds
        return None if self.bytes is None or rounds is None else self.bytes * self.arm.nodes * rounds


def arm_plan(arm: Arm, seed: int) -> ArmPlan:
    """The plan of ``arm`` under ``seed``; reads no data.

    Raises:
        ConfigError: the arm is impossible.
    """
    composition = compose(arm, seed)
    d, volume = size_of(composition.task.shapes()), composition.volume
    compute_s = None
    if arm.run.clock == "virtual" and not composition.measured:
        times_ns = [composition.compute.nominal_of_ns(node) for node in range(arm.nodes)]
        compute_s = min(times_ns) / NS_PER_S, max(times_ns) / NS_PER_S
    if volume is None:
        return ArmPlan(arm, d, None, None, compute_s)
    return ArmPlan(arm, d, volume * arm.fragments.count, volume * d * FLOAT_BYTES, compute_s)


PLAN_HEADER = (
    *("arm", "algorithm", "topology", "n", "ends after", "compute"),
    *("K", "d", "messages", "sent", "sent in a run"),
)


def plan_rows(experiment: Experiment) -> list[list[str]]:
    """A row per arm under ``PLAN_HEADER``; messages and sent are per node and round.

    Raises:
        ConfigError: an arm is impossible.
    """
    rows = []
    for arm in settled(experiment).arms:
        plan = arm_plan(arm, experiment.seeds[0])
        graph = arm.topology.name if arm.topology else "-"
        messages = "-" if plan.messages is None else f"{plan.messages:.4g}"
        traffic = [
            messages,
            *("-" if count is None else size(count) for count in (plan.bytes, plan.total_bytes)),
        ]
        numbers = [arm.nodes, _length(arm), _compute(plan), arm.fragments.count, plan.parameters]
        rows.append([arm.name, arm.algorithm.name, graph, *map(str, numbers), *traffic])
    return rows


def _length(arm: Arm) -> str:
    rounds, limit_s = arm.run.max_rounds, arm.run.time_limit_s
    ends = [_counted(rounds, "round")] if rounds is not None else []
    return " or ".join(ends + ([f"{limit_s:g} s"] if limit_s is not None else []))


def _compute(plan: ArmPlan) -> str:
    if plan.compute_s is None:
        return "real" if plan.arm.run.clock == "wall" else "measured"
    shortest, longest = (f"{time_s:.4g}" for time_s in plan.compute_s)
    return f"{shortest} s" if shortest == longest else f"{shortest} to {longest} s"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def processes(experiment: Experiment, executor: str, hosts: int = 1) -> str:
    """A sentence on the runs and the processes that they take on all ``hosts`` together."""
    arms, seeds = len(experiment.arms), experiment.seeds
    listed = f"seed{'s' * (len(seeds) != 1)} {', '.join(map(str, seeds))}"
    text = f"{_counted(arms * len(seeds), 'run')} ({_counted(arms, 'arm')}, {listed})"
    if arms * len(seeds) > 1:
        text += ", one after the other"
    if executor == "inline":
        return f"{text}, in this process"
    n = max(arm.nodes for arm in experiment.arms)
    virtual = any(arm.run.clock == "virtual" for arm in experiment.arms)
    others = "an observer, a timekeeper" if virtual else "an observer"
    agents = "an agent" if hosts == 1 else f"{hosts} agents"
    return f"{text}; {n + 2 + virtual + hosts} processes at most: {n} nodes, {others}, {agents} and this one"


def size(count: float) -> str:
    """Bytes in decimal units."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.4g} TB"
