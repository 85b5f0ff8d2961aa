"""What a run would take and move, without running it: schedule and traffic are emulated, nothing is trained.

Every arm runs in this process with ``train.mode = "none"``, which has the emulated times and the traffic of
the trained run to the bit. Of long arms only the first rounds are emulated, once to the end of them and once
to half of it; what lies between the two, free of what happens once at the start and at the end, is continued
linearly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from math import ceil

import numpy as np
from numpy.typing import NDArray

from decentral.clock import NS_PER_S
from decentral.config import Arm, Experiment
from launch.build import load_workload, synchronous
from launch.compose import check, settled
from launch.display import Display
from launch.executors.base import Interruption
from launch.untrained import BUSY_S, FATES, ROUNDS, emulate, rows_of
from results.delivery import rate_threshold

DEFAULT_ROUNDS = 20


@dataclass(frozen=True)
class Amount:
    """Messages and their payload bytes."""

    messages: float
    bytes: float

    def over(self, count: float) -> Amount:
        """Both divided."""
        return Amount(self.messages / count, self.bytes / count)


@dataclass(frozen=True, kw_only=True)
class Uplinks:
    """The uplinks of one class of rates.

    Attributes:
        nodes: how many.
        arrived: share of the bytes attempted over them that arrived, superseded before use or not.
        busy: share of the time in which they were, mean over them.
    """

    nodes: int
    arrived: float
    busy: float


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What was found of one arm under one seed; of the whole run where nothing else is said.

    Attributes:
        arm: as it would be run.
        seed: the run seed.
        whole: whether all of it was emulated.
        emulated: least and most local rounds of a node that were emulated.
        time_s: emulated duration.
        rounds: least and most local rounds of a node.
        fates: by ``FATES``; the rest of what was made is in flight at the end.
        per_round: the same, per node and local round.
        uplinks: by class: ``fast`` and ``slow`` where rates fall apart, else ``all``.
        staleness: mean age in rounds of what was aggregated in the emulated rounds; None if nothing was.
        consensus: consensus distance after the emulated rounds, relative to the start.
    """

    arm: Arm
    seed: int
    whole: bool
    emulated: tuple[int, int]
    time_s: float
    rounds: tuple[int, int]
    fates: Mapping[str, Amount]
    per_round: Mapping[str, Amount]
    uplinks: Mapping[str, Uplinks]
    staleness: float | None
    consensus: float


def predict(experiment: Experiment, rounds: int, display: Display) -> list[Prediction]:
    """Emulate every arm under every seed, or about its first ``rounds`` rounds; needs no data set.

    Args:
        experiment: what would be run.
        rounds: most local rounds to emulate, of a node of nominal speed; at least 2.
        display: hears of the progress.

    Raises:
        ConfigError: an arm is impossible, or only training could tell how long it takes.
        Interrupted: by a signal.
        RunFailed: an algorithm failed.
    """
    bare = experiment.model_copy(update={"arms": tuple(map(_untrained, experiment.arms))})
    check(bare)
    jobs = [(arm, seed) for arm in settled(bare).arms for seed in experiment.seeds]
    display.plan([(arm.name, seed) for arm, seed in jobs], jobs[0][0].nodes, rounds)
    found = []
    try:
        with Interruption().installed() as interruption:
            for arm, seed in jobs:
                display.job_started(arm.name, seed, arm.nodes, rounds)
                found.append(_predict(arm, seed, rounds, display, interruption))
                display.job_ended(arm.name, seed, "done", "")
    finally:
        display.close()
    return found


def _untrained(arm: Arm) -> Arm:
    train = arm.train.model_copy(update={"mode": "none"})
    return arm.model_copy(update={"train": train, "run": arm.run.model_copy(update={"clock": "virtual"})})


def _predict(arm: Arm, seed: int, rounds: int, display: Display, interruption: Interruption) -> Prediction:
    workload = load_workload(arm, seed, {})
    horizon = Horizon(arm, workload.composition.compute.nominal_ns, waits=synchronous(workload))
    short = horizon.shortened(rounds)
    run = partial(emulate, seed=seed, display=display, interruption=interruption)
    emulated = run(short)
    sums, time_s = emulated.sums, emulated.time_s
    reached = sums[ROUNDS]
    whole = short is arm or (horizon.waits and reached.min() < rounds)  # its time limit came first
    if not whole:
        step = ceil(rounds / 2)
        half = run(horizon.shortened(rounds - step))
        round_s = (time_s - half.time_s) / step
        more = horizon.more_rounds(rounds, time_s, round_s)
        sums = np.maximum(sums + (sums - half.sums) * (more / step), 0)
        time_s = horizon.end_s(short, time_s, more, round_s)
    fates = {fate: Amount(*sums[rows_of(fate)].sum(axis=1).tolist()) for fate in FATES}
    local_rounds = max(1.0, float(sums[ROUNDS].sum()))
    return Prediction(
        arm=arm,
        seed=seed,
        whole=whole,
        emulated=(int(reached.min()), int(reached.max())),
        time_s=time_s,
        rounds=(round(sums[ROUNDS].min()), round(sums[ROUNDS].max())),
        fates=fates,
        per_round={fate: amount.over(local_rounds) for fate, amount in fates.items()},
        uplinks=_by_class(emulated.rates_bps, sums, time_s),
        staleness=emulated.staleness,
        consensus=emulated.consensus,
    )


@dataclass(frozen=True)
class Horizon:
    """How far an arm goes.

    Args:
        arm: with all its limits.
        nominal_ns: how long a round computes.
        waits: whether rounds also last as long as messages take, so that a time limit says nothing of them.
    """

    arm: Arm
    nominal_ns: int
    waits: bool

    @property
    def _most(self) -> float:
        return math.inf if self.arm.run.max_rounds is None else self.arm.run.max_rounds

    @property
    def _computed(self) -> float:
        """Rounds that a node of nominal speed computes up to the time limit."""
        limit_s = self.arm.run.time_limit_s
        return math.inf if limit_s is None else limit_s * NS_PER_S / self.nominal_ns

    def shortened(self, rounds: int) -> Arm:
        """The arm up to about its first ``rounds`` local rounds; itself where it has no more."""
        run, most = self.arm.run, self._most
        if self.waits:
            short = {"max_rounds": rounds}
            return self.arm if most <= rounds else self._limited(short)
        share = rounds / min(most, self._computed)
        if share >= 1:
            return self.arm
        # Both limits by the same share, so that fast and slow nodes end in the same order.
        least_s = rounds * self.nominal_ns / NS_PER_S
        return self._limited(
            {
                "max_rounds": None if run.max_rounds is None else max(1, ceil(run.max_rounds * share)),
                "time_limit_s": None if run.time_limit_s is None else max(least_s, run.time_limit_s * share),
            }
        )

    def _limited(self, limits: Mapping[str, float | None]) -> Arm:
        return self.arm.model_copy(update={"run": self.arm.run.model_copy(update=dict(limits))})

    def more_rounds(self, rounds: int, time_s: float, round_s: float) -> float:
        """How many rounds follow the first ``rounds``, which end at ``time_s``, if one takes ``round_s``."""
        limit_s = self.arm.run.time_limit_s
        if not self.waits:
            return min(self._most, self._computed) - rounds
        by_time = math.inf if limit_s is None else max(0.0, (limit_s - time_s) / round_s)
        return min(by_time, self._most - rounds)

    def end_s(self, short: Arm, time_s: float, more: float, round_s: float) -> float:
        """When the run is over if ``short`` is at ``time_s`` and ``more`` rounds follow."""
        limit_s, cut_s = self.arm.run.time_limit_s, short.run.time_limit_s
        if not self.waits and limit_s is not None and cut_s is not None and self._computed <= self._most:
            return time_s + limit_s - cut_s  # nodes end their last round as long after it
        return time_s + more * round_s


def _by_class(rates_bps: NDArray[np.float64], sums: NDArray[np.float64], time_s: float) -> dict[str, Uplinks]:
    threshold = rate_threshold(np.unique(rates_bps[np.isfinite(rates_bps)]))
    slow = rates_bps < threshold if math.isfinite(threshold) else np.zeros(rates_bps.size, dtype=bool)
    classes = {"fast": ~slow, "slow": slow} if slow.any() else {"all": ~slow}
    made, delivered, replaced = (sums[rows_of(fate)][1] for fate in ("made", "delivered", "replaced"))
    found = {}
    for name, who in classes.items():
        attempted = float(made[who].sum())
        arrived = float((delivered + replaced)[who].sum()) / attempted if attempted else math.nan
        busy = float(sums[BUSY_S, who].mean()) / time_s
        found[name] = Uplinks(nodes=int(who.sum()), arrived=arrived, busy=busy)
    return found
