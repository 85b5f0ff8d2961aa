"""Time to target: when an arm's mean over nodes first is as good as a given score, ``never`` being a value.

The target is the experiment's (``target`` in its file). Without one it is chosen by a rule that looks at no
arm's speed: 90 % of the way from the common initial score to the best score with which any arm ends.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from results.grid import Axis
from results.metrics import JOB, curve_rows, t_interval
from results.read import Run

DEFAULT_SHARE = 0.9


@dataclass(frozen=True)
class Target:
    """A score to be reached by the mean over nodes, and where it comes from, as a sentence."""

    value: float
    origin: str


def target_of(run: Run) -> Target | None:
    """The experiment's target, else the default one; None where there is nothing to choose it from.

    The default needs the metric's direction, evaluations of the initial model, and an arm that improved on
    it. Ends are means over nodes and seeds of each node's last evaluation on the same rows as the curves. It
    is rounded to three digits, so that it can be quoted.
    """
    if run.metric.higher_is_better is None:
        return None
    if run.target is not None:
        return Target(run.target, "The experiment names this target.")
    rows = curve_rows(run.evaluations)
    start = rows.loc[rows["round"] == 0, "score"].mean()
    ends = []
    for arm in run.arms:
        last = (
            rows[rows["arm"] == arm]
            .sort_values("time_s", kind="stable")
            .drop_duplicates([*JOB, "node"], keep="last")
        )
        if len(last) and last["score"].notna().all():
            ends.append(float(last["score"].mean()))
    if not ends or math.isnan(start):
        return None
    best = max(ends) if run.metric.higher_is_better else min(ends)
    value = float(f"{start + DEFAULT_SHARE * (best - start):.3g}")
    improved = best > start if run.metric.higher_is_better else best < start
    if not improved:
        return None
    rule = (
        "The experiment names no target: this one is 90 % of the way from the common initial score to the "
        "best score with which any arm ends (node_avg, mean over seeds), whenever it got there."
    )
    return Target(value, rule)


def time_to_target(run: Run, target: float, axis: Axis = "time_s") -> pd.DataFrame:
    """When the mean over nodes first is at least as good as ``target``; ``math.inf`` where it never is.

    Read at every moment at which any node evaluates, all nodes counting with their last evaluation. A job
    that was cut short before it got there has NaN: whether it would have is unknown.

    Returns:
        arm, seed, ``axis``; one row for every job of the run that has evaluations.

    Raises:
        ValueError: the direction of the metric is unknown.
    """
    if run.metric.higher_is_better is None:
        raise ValueError(
            f"{run.metric.name}: cannot tell a target reached without higher_is_better in the logs"
        )
    jobs = {(job.arm, job.seed): job for job in run.jobs}
    found = []
    groups: Any = curve_rows(run.evaluations).groupby(JOB, observed=True, sort=True)
    for (arm, seed), rows in groups:
        job = jobs[str(arm), int(seed)]
        curve = _running_mean(rows, axis, job.scored)
        # A running sum is exact to some 1e-13: a score that equals the target must count as reached.
        gap = (curve - target if run.metric.higher_is_better else target - curve) + 1e-9 * max(
            1.0, abs(target)
        )
        reached = curve.index[gap >= 0]
        otherwise = math.inf if job.complete else math.nan
        found.append({"arm": arm, "seed": seed, axis: float(reached.min()) if len(reached) else otherwise})
    table = pd.DataFrame(found, columns=["arm", "seed", axis])
    table["arm"] = table["arm"].astype(run.evaluations["arm"].dtype)
    return table


def _running_mean(rows: pd.DataFrame, axis: Axis, nodes: int) -> pd.Series[float]:
    """Mean of all nodes' last scores after every event of one job, by ``axis``; NaN until all have one."""
    rows = rows.sort_values([axis, "node"], kind="stable")
    lost = rows["score"].isna().astype(np.int64)
    level = pd.DataFrame({"node": rows["node"], "sum": rows["score"].fillna(0.0), "lost": lost, "seen": 1})
    steps = level[["sum", "lost", "seen"]] - level.groupby("node")[["sum", "lost", "seen"]].shift(
        fill_value=0
    )
    totals = steps.cumsum()
    mean = (totals["sum"] / nodes).where((totals["seen"] >= nodes) & (totals["lost"] == 0))
    mean.index = pd.Index(rows[axis].to_numpy(dtype=np.float64))
    return mean[~mean.index.duplicated(keep="last")]


def target_over_seeds(times: pd.DataFrame, axis: Axis = "time_s") -> pd.DataFrame:
    """One row per arm of ``time_to_target``, in the order of the experiment.

    One seed that never reaches the target makes the mean infinite and leaves no interval: a mean over the
    other seeds would flatter the arm. The speed-up is over the first arm, time of the first arm divided by
    time of this one, seed by seed over those in which both got there.

    Returns:
        arm, n (seeds of which it is known), ``reached``, ``never``, ``unfinished`` (cut short), ``axis`` and
        ``<axis>_ci`` (mean and half-width of the 95 % t-interval), ``speedup``, ``speedup_ci`` and
        ``speedup_n`` (shared seeds).
    """
    rows = []
    # The experiment's first arm, even if it was not evaluated: then there is no speed-up.
    first = times.loc[times["arm"] == times["arm"].cat.categories[0], ["seed", axis]] if len(times) else times
    for arm, group in times.groupby("arm", observed=True, sort=True):
        values = group[axis].dropna().to_numpy(dtype=np.float64)
        interval = t_interval(values)
        never = int(np.isinf(values).sum())
        both = group.merge(first, on="seed", suffixes=("", "_first"))
        both = both[np.isfinite(both[axis]) & np.isfinite(both[f"{axis}_first"]) & (both[axis] > 0)]
        ratio = t_interval((both[f"{axis}_first"] / both[axis]).to_numpy(dtype=np.float64))
        rows.append(
            {
                "arm": arm,
                "n": len(values),
                "reached": len(values) - never,
                "never": never,
                "unfinished": len(group) - len(values),
                axis: interval.mean,
                f"{axis}_ci": _width(interval.half),
                "speedup": ratio.mean,
                "speedup_ci": _width(ratio.half),
                "speedup_n": ratio.n,
            }
        )
    names = ["arm", "n", "reached", "never", "unfinished", axis, f"{axis}_ci"]
    return pd.DataFrame(rows, columns=[*names, "speedup", "speedup_ci", "speedup_n"])


def _width(half: float | None) -> float:
    return math.nan if half is None else half
