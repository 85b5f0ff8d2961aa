"""What a run would take and move, without running it: schedule and traffic are emulated, nothing is trained.

Every arm runs in this process with ``train.mode = "none"``, which has the emulated times and the traffic of
the trained run to the bit. Of long arms only the first rounds are emulated, and the rest is extrapolated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil
from statistics import fmean
from typing import Any

import numpy as np

from decentral.clock import NS_PER_S
from decentral.config import Arm, Experiment
from decentral.errors import Interrupted
from decentral.records import EventName, MemoryRecorder, Value
from launch.build import Workload, load_workload, synchronous
from launch.compose import check, settled
from launch.display import Display
from launch.executors.base import Interruption
from launch.executors.inline import DisplayListener, InlineRun, Recorders
from results.delivery import rate_threshold

DEFAULT_ROUNDS = 20
FATES = ("made", "delivered", "replaced", "dropped")


@dataclass(frozen=True)
class Amount:
    """Messages and their payload bytes."""

    messages: float
    bytes: float

    def times(self, factor: float) -> Amount:
        """Both multiplied."""
        return Amount(self.messages * factor, self.bytes * factor)


@dataclass(frozen=True, kw_only=True)
class Uplinks:
    """The uplinks of one class of rates.

    Attributes:
        nodes: how many.
        delivered: share of the bytes attempted over them that arrived, used or not.
        busy: mean share of the time in which they were.
    """

    nodes: int
    delivered: float
    busy: float


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What was found of one arm under one seed.

    Attributes:
        arm: as it would be run.
        seed: the run seed.
        emulated_rounds: least and most local rounds of a node that were emulated.
        scale: how many times longer the whole run is than what was emulated; 1: all of it was.
        time_s: emulated duration of the whole run.
        rounds: least and most local rounds of a node in the whole run.
        fates: by ``FATES``, of the whole run; the rest of what was made is in flight at the end.
        per_round: the same, per node and local round.
        uplinks: by class: ``fast`` and ``slow`` where rates fall apart, else ``all``.
        staleness: mean age in rounds of what was aggregated; None if nothing was.
        consensus: consensus distance after what was emulated, relative to the start.
    """

    arm: Arm
    seed: int
    emulated_rounds: tuple[int, int]
    scale: float
    time_s: float
    rounds: tuple[int, int]
    fates: dict[str, Amount]
    per_round: dict[str, Amount]
    uplinks: dict[str, Uplinks]
    staleness: float | None
    consensus: float


def predict(experiment: Experiment, rounds: int, display: Display) -> list[Prediction]:
    """Emulate every arm under every seed, or about its first ``rounds`` rounds; needs no data set.

    Args:
        experiment: what would be run.
        rounds: most local rounds to emulate, of a node of nominal speed.
        display: hears of the progress.

    Raises:
        ConfigError: an arm is impossible, or only training could tell how long it takes.
        Interrupted: by a signal.
        RunFailed: an algorithm failed.
    """
    arms = [_untrained(arm) for arm in experiment.arms]
    bare = experiment.model_copy(update={"arms": tuple(arms)})
    check(bare)
    jobs = [(arm, seed) for arm in settled(bare).arms for seed in experiment.seeds]
    asked = {arm.name: arm for arm in experiment.arms}
    display.plan([(arm.name, seed) for arm, seed in jobs], jobs[0][0].nodes, rounds)
    found = []
    try:
        with Interruption().installed() as interruption:
            for arm, seed in jobs:
                display.job_started(arm.name, seed, arm.nodes, rounds)
                found.append(_predict(arm, asked[arm.name], seed, rounds, display, interruption))
                display.job_ended(arm.name, seed, "done", "")
    finally:
        display.close()
    return found


def _untrained(arm: Arm) -> Arm:
    train = arm.train.model_copy(update={"mode": "none"})
    return arm.model_copy(
        update={"train": train, "run": arm.run.model_copy(update={"clock": "virtual"})}
    )


def _predict(
    arm: Arm, asked: Arm, seed: int, rounds: int, display: Display, interruption: Interruption
) -> Prediction:
    whole = load_workload(arm, seed, {})
    short = shortened(arm, whole.composition.compute.nominal_ns, rounds, waits=synchronous(whole))
    workload = whole if short is arm else load_workload(short, seed, {})
    emulated = _emulate(workload, display, interruption)
    reached = [tally.rounds for tally in emulated.nodes]
    end_s = emulated.network[-1]["time_s"]
    scale = _scale(arm, short, min(reached), end_s)
    links = [event for event in emulated.network if event["event"] == "links"]
    uplinks = [event for event in emulated.network if event["event"] == "uplink"]
    fates = {fate: _amount(links, fate) for fate in FATES}
    ages = [age for tally in emulated.nodes for age in tally.ages]
    distances = [event["consensus"] for event in emulated.metrics if event["event"] == "evaluation"]
    most = arm.run.max_rounds or math.inf
    return Prediction(
        arm=asked,
        seed=seed,
        emulated_rounds=(min(reached), max(reached)),
        scale=scale,
        time_s=end_s * scale,
        rounds=(int(min(most, min(reached) * scale)), int(min(most, max(reached) * scale))),
        fates={fate: amount.times(scale) for fate, amount in fates.items()},
        per_round={fate: amount.times(1 / max(1, sum(reached))) for fate, amount in fates.items()},
        uplinks=_by_class(uplinks, links),
        staleness=fmean(ages) if ages else None,
        consensus=distances[-1] / distances[0],
    )


def shortened(arm: Arm, nominal_ns: int, rounds: int, *, waits: bool) -> Arm:
    """``arm`` up to about its first ``rounds`` local rounds; itself where it has no more.

    Args:
        arm: with all its limits.
        nominal_ns: how long a round computes.
        rounds: of a node of nominal speed.
        waits: whether rounds also last as long as messages take, so that a time limit says nothing of them.
    """
    run = arm.run
    limit_rounds = math.inf if run.time_limit_s is None else run.time_limit_s * NS_PER_S / nominal_ns
    asked_rounds = math.inf if run.max_rounds is None else run.max_rounds
    if waits:
        if asked_rounds <= rounds:
            return arm
        limits: dict[str, Any] = {"max_rounds": rounds}
    else:
        share = rounds / min(asked_rounds, limit_rounds)
        if share >= 1:
            return arm
        # Both limits by the same share, so that fast and slow nodes end in the same order.
        limits = {
            "max_rounds": None if run.max_rounds is None else max(1, ceil(run.max_rounds * share)),
            "time_limit_s": None if run.time_limit_s is None else run.time_limit_s * share,
        }
    return arm.model_copy(update={"run": run.model_copy(update=limits)})


def _scale(arm: Arm, short: Arm, reached: int, end_s: float) -> float:
    """How many times longer ``arm`` is than ``short``, whose slowest node reached ``reached`` at ``end_s``."""
    if short is arm:
        return 1.0
    run, cut = arm.run, short.run
    if run.time_limit_s is not None and cut.time_limit_s != run.time_limit_s:
        assert cut.time_limit_s is not None
        return run.time_limit_s / cut.time_limit_s
    assert cut.max_rounds is not None
    if reached < cut.max_rounds:  # the time limit came first
        return 1.0
    by_rounds = math.inf if run.max_rounds is None else run.max_rounds / cut.max_rounds
    by_time = math.inf if run.time_limit_s is None else run.time_limit_s / end_s
    return max(1.0, min(by_rounds, by_time))


@dataclass
class _Tally:
    """A recorder that keeps of a node's log what predictions need."""

    rounds: int = 0
    ages: list[float] = field(default_factory=list)

    def write(self, event: EventName, **fields: Value) -> None:
        """Take one event."""
        if event == "round":
            self.rounds += 1
            age = fields["staleness"]
            if isinstance(age, float):
                self.ages.append(age)


@dataclass(frozen=True)
class _Emulated:
    nodes: list[_Tally]
    metrics: list[dict[str, Any]]
    network: list[dict[str, Any]]


def _emulate(workload: Workload, display: Display, interruption: Interruption) -> _Emulated:
    nodes = [_Tally() for _ in range(workload.arm.nodes)]
    metrics, network = MemoryRecorder(), MemoryRecorder()
    listener = DisplayListener(display, workload.composition.task.metric.name)
    if interruption.count:
        raise Interrupted("interrupted by the user")
    InlineRun(workload, Recorders(nodes.__getitem__, metrics, network), listener).run(interruption)
    return _Emulated(nodes, metrics.events, network.events)


def _amount(links: Sequence[dict[str, Any]], fate: str) -> Amount:
    names = [
        name
        for name in (links[0] if links else {})
        if (name == fate or name.startswith(f"{fate}_")) and not name.endswith("_bytes")
    ]
    messages = sum(sum(link[name]) for link in links for name in names)
    return Amount(messages, sum(sum(link[f"{name}_bytes"]) for link in links for name in names))


def _by_class(uplinks: Sequence[dict[str, Any]], links: Sequence[dict[str, Any]]) -> dict[str, Uplinks]:
    rates = np.array([math.inf if uplink["rate_bps"] is None else uplink["rate_bps"] for uplink in uplinks])
    threshold = rate_threshold(np.unique(rates[np.isfinite(rates)]))
    slow = rates < threshold if math.isfinite(threshold) else np.zeros(len(rates), dtype=bool)
    classes = {"fast": ~slow, "slow": slow} if slow.any() else {"all": ~slow}
    made, arrived = np.zeros(len(rates)), np.zeros(len(rates))
    for link in links:
        made[link["node"]] = sum(link["made_bytes"])
        arrived[link["node"]] = sum(link["delivered_bytes"]) + sum(link["replaced_bytes"])
    busy = np.array([uplink["utilisation"] for uplink in uplinks])
    return {
        name: Uplinks(
            nodes=int(who.sum()),
            delivered=float(arrived[who].sum() / made[who].sum()) if made[who].any() else math.nan,
            busy=float(busy[who].mean()),
        )
        for name, who in classes.items()
    }
