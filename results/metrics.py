"""What a run achieved: over nodes, over time and bytes, over seeds (algorithms.md section 1.6).

Statistics over nodes are plain: ``node_std`` is the population standard deviation. They are given only where
every node of the job has an evaluation; elsewhere they are NaN beside the number of nodes that have one.
A node whose score is not finite (it diverged) makes ``node_avg``, ``node_std`` and ``worst`` NaN, and is
counted in ``nonfinite``: leaving it out would flatter the algorithm. Statistics over seeds are mean and
95 % Student-t interval; a single seed has no interval, which is not the same as a narrow one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import stdtrit

from results.read import COUNTERS, Run

Axis: TypeAlias = Literal["time_s", "total_bytes"]
Grid: TypeAlias = npt.NDArray[np.float64]

LEVEL = 0.95
JOB = ["arm", "seed"]
NODE_STATISTICS = ("node_avg", "node_std", "best", "worst", "test_loss")
_GRID_POINTS = 200


@dataclass(frozen=True)
class Interval:
    """Mean of ``n`` values and half-width of its 95 % t-interval; None below two finite values."""

    n: int
    mean: float
    half: float | None

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Lower and upper end, None without an interval."""
        return None if self.half is None else (self.mean - self.half, self.mean + self.half)


def t_interval(values: Sequence[float] | npt.NDArray[np.float64]) -> Interval:
    """Mean and ``t_{0.975, n-1} * s / sqrt(n)`` of independent values; NaN or infinity gives no interval."""
    sample = np.asarray(values, dtype=np.float64)
    n = len(sample)
    if n == 0 or not np.isfinite(sample).all():
        return Interval(n, float(sample.mean()) if n else math.nan, None)
    if n == 1:
        return Interval(1, float(sample[0]), None)
    half = stdtrit(n - 1, (1 + LEVEL) / 2) * sample.std(ddof=1) / math.sqrt(n)
    return Interval(n, float(sample.mean()), float(half))


def across_seeds(frame: pd.DataFrame, by: list[str], values: list[str]) -> pd.DataFrame:
    """``t_interval`` of every column in ``values`` for every group of ``by``, one row per seed in ``frame``.

    Returns:
        ``by``, ``n`` (rows of the group), each value's mean under its own name, half-width as ``<name>_ci``.
        A value that is NaN for one seed is NaN for the group.
    """
    groups = frame.groupby(by, observed=True, sort=True)
    n = groups.size()
    table = n.rename("n").to_frame()
    for name in values:
        whole = groups[name].count() == n
        table[name] = groups[name].mean().where(whole)
        # The quantile of 0 degrees of freedom is NaN: exactly "no interval".
        quantile = stdtrit(n.to_numpy() - 1.0, (1 + LEVEL) / 2)
        table[f"{name}_ci"] = (groups[name].std(ddof=1) * quantile / np.sqrt(n)).where(whole)
    return table.reset_index()


def curve_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows that make one comparable curve: those of the regular evaluations of one split.

    A final evaluation (whole split) stands in only where the same round has no regular one (subset), so that
    a curve does not jump at its end because the rows it is measured on change.
    """
    regular = frame[~frame["final"]]
    split = _main_split(regular if len(regular) else frame)
    rows = frame[frame["split"] == split]
    keys = [name for name in ("arm", "seed", "node", "round") if name in frame]
    return rows.sort_values([*keys, "final"], kind="stable").drop_duplicates(keys, keep="first")


def final_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """The last final evaluation of every node (or of the observer), on the test split if there is one."""
    rows = frame[frame["final"]]
    rows = rows[rows["split"] == _main_split(rows)]
    return rows.drop_duplicates([name for name in ("arm", "seed", "node") if name in frame], keep="last")


def _main_split(rows: pd.DataFrame) -> str:
    splits = sorted(set(rows["split"]), key=lambda split: ("test", "validation", "train", split).index(split))
    return splits[0] if splits else "test"


def over_nodes(run: Run, rows: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Statistics over the nodes in each group of ``by`` (which starts with arm, seed).

    Returns:
        ``by``, ``nodes`` (that have a row), ``expected``, ``complete``, ``nonfinite``, the
        ``NODE_STATISTICS``, and means over nodes of ``time_s`` and ``total_bytes``.
    """
    groups = rows.groupby(by, observed=True, sort=True)
    table = groups.size().rename("nodes").to_frame()
    table["nonfinite"] = table["nodes"] - groups["score"].count()
    low, high = groups["score"].min(), groups["score"].max()
    # Where no direction is known, best is the largest; nothing is marked as best then.
    ascending = run.metric.higher_is_better is not False
    table["node_avg"] = groups["score"].mean()
    table["node_std"] = groups["score"].std(ddof=0)
    table["best"], table["worst"] = (high, low) if ascending else (low, high)
    for name in ("test_loss", "time_s", "total_bytes"):
        table[name] = groups[name].mean().where(groups[name].count() == table["nodes"])
    table = table.reset_index()
    sizes = {(job.arm, job.seed): job.nodes for job in run.jobs}
    table["expected"] = [sizes[arm, seed] for arm, seed in zip(table["arm"], table["seed"], strict=True)]
    table["complete"] = table["nodes"] >= table["expected"]
    table.loc[table["nonfinite"] > 0, ["node_avg", "node_std", "worst"]] = np.nan
    table.loc[~table["complete"], list(NODE_STATISTICS)] = np.nan
    return table


def with_averages(run: Run, table: pd.DataFrame, averages: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """``table`` with the observer's ``avg_model``, ``avg_model_loss`` and ``consensus`` joined on ``by``.

    ``consensus`` is the mean over nodes of the l2 distance (not squared) to the mean model. Values that the
    observer took over fewer models than the job has nodes are NaN; ``models`` says how many there were.
    """
    names = {"score": "avg_model", "test_loss": "avg_model_loss"}
    observed = averages[[*by, "models", "consensus", "score", "test_loss"]].rename(columns=names)
    joined = table.merge(observed, on=by, how="left")
    partial = ~(joined["models"] >= joined["expected"])
    joined.loc[partial, ["avg_model", "avg_model_loss", "consensus"]] = np.nan
    return joined


def by_round(run: Run) -> pd.DataFrame:
    """One row per (arm, seed, round) with any evaluation: ``over_nodes`` and ``with_averages``."""
    keys = [*JOB, "round"]
    table = over_nodes(run, curve_rows(run.evaluations), keys)
    return with_averages(run, table, curve_rows(run.averages), keys)


def training_loss(run: Run) -> pd.DataFrame:
    """One row per (arm, seed, round): mean over nodes of ``train_loss``, NaN unless all nodes have one."""
    groups = run.rounds.groupby([*JOB, "round"], observed=True, sort=True)["train_loss"]
    table = groups.mean().to_frame()
    table["nodes"] = groups.count()
    table = table.reset_index()
    sizes = {(job.arm, job.seed): job.nodes for job in run.jobs}
    expected = [sizes[arm, seed] for arm, seed in zip(table["arm"], table["seed"], strict=True)]
    table.loc[table["nodes"] < expected, "train_loss"] = np.nan
    return table


def grid_of(run: Run, arm: str, axis: Axis = "time_s") -> Grid:
    """Points at which an arm's curve over ``axis`` is read, ascending.

    Those of its evaluations where all nodes and seeds evaluate in step; else evenly spaced ones, twice as
    many as a node has evaluations, at most 200.
    """
    rows = curve_rows(run.evaluations)
    rows = rows[rows["arm"] == arm]
    if rows.empty:
        return np.array([])
    turn = rows.groupby([*JOB, "node"], observed=True).cumcount()
    spans = rows.groupby(turn)[axis].agg(["min", "max"])
    if (spans["max"].to_numpy()[:-1] <= spans["min"].to_numpy()[1:]).all():
        return np.unique(spans["max"].to_numpy(dtype=np.float64))
    points = min(_GRID_POINTS, 2 * len(spans))
    return np.linspace(float(rows[axis].min()), float(rows[axis].max()), points)


def on_grid(run: Run, grid: Grid, axis: Axis = "time_s", arms: Sequence[str] | None = None) -> pd.DataFrame:
    """Statistics over nodes at every grid point: each node counts with its last evaluation at or before it.

    A job's curve ends at the first grid point at or after its last evaluation; it is not prolonged.

    Args:
        grid: ascending, in the unit of ``axis``.
        axis: ``time_s`` (the run's clock) or ``total_bytes`` (payload bytes that the node itself had sent).
        arms: default all.

    Returns:
        arm, seed, ``axis`` (the grid point) and the columns of ``over_nodes`` of the same name.
    """
    needed = [*JOB, "node", "score", "test_loss", "time_s", "total_bytes"]
    rows = curve_rows(run.evaluations)[needed].sort_values([*JOB, "node", axis], kind="stable")
    parts = []
    for (arm, _), job_rows in rows.groupby(JOB, observed=True, sort=True):
        if arms is not None and arm not in arms:
            continue
        points = grid[: int(np.searchsorted(grid, float(job_rows[axis].max()))) + 1]
        for _, node_rows in job_rows.groupby("node", sort=True):
            position = np.searchsorted(node_rows[axis].to_numpy(), points, side="right") - 1
            seen = position >= 0
            held = node_rows.iloc[position[seen]].assign(**{"point": points[seen]})
            parts.append(held)
    if not parts:
        return over_nodes(run, rows.iloc[:0].assign(point=0.0), [*JOB, "point"]).assign(**{axis: 0.0})
    table = over_nodes(run, pd.concat(parts), [*JOB, "point"])
    return table.drop(columns=axis).rename(columns={"point": axis})


def time_to_target(run: Run, target: float, axis: Axis = "time_s") -> pd.DataFrame:
    """When the mean over nodes first is at least as good as ``target``; ``math.inf`` where it never is.

    Read at every moment at which any node evaluates, all nodes counting with their last evaluation.

    Returns:
        arm, seed, ``axis``; one row for every job of the run that has evaluations.

    Raises:
        ValueError: the direction of the metric is unknown.
    """
    if run.metric.higher_is_better is None:
        raise ValueError(
            f"{run.metric.name}: cannot tell a target reached without higher_is_better in the logs"
        )
    sizes = {(job.arm, job.seed): job.nodes for job in run.jobs}
    found = []
    groups: Any = curve_rows(run.evaluations).groupby(JOB, observed=True, sort=True)
    for (arm, seed), rows in groups:
        curve = _running_mean(rows, axis, sizes[str(arm), int(seed)])
        # A running sum is exact to some 1e-13: a score that equals the target must count as reached.
        gap = (curve - target if run.metric.higher_is_better else target - curve) + 1e-9 * max(
            1.0, abs(target)
        )
        reached = curve.index[gap >= 0]
        found.append({"arm": arm, "seed": seed, axis: float(reached.min()) if len(reached) else math.inf})
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
    """Per arm: seeds that ``reached`` the target and those that ``never`` did, mean and half-width.

    One seed that never reaches it makes the mean infinite and leaves no interval.
    """
    rows = []
    for arm, group in times.groupby("arm", observed=True, sort=True):
        values = group[axis].to_numpy(dtype=np.float64)
        interval = t_interval(values)
        never = int(np.isinf(values).sum())
        half = math.nan if interval.half is None else interval.half
        row = {"arm": arm, "n": len(values), "reached": len(values) - never, "never": never}
        rows.append({**row, axis: interval.mean, f"{axis}_ci": half})
    return pd.DataFrame(rows, columns=["arm", "n", "reached", "never", axis, f"{axis}_ci"])


def last_counters(run: Run) -> pd.DataFrame:
    """The newest counters and times of every node: those of its end event, else of its last round."""
    names = [*JOB, "node", "round", "time_s", "wall_s", *COUNTERS]
    ends = run.ends[names].dropna(subset=["total_bytes"])
    every = pd.concat([frame for frame in (run.rounds[names], ends) if len(frame)] or [run.rounds[names]])
    every = every.sort_values([*JOB, "node", "round"], kind="stable")
    return every.drop_duplicates([*JOB, "node"], keep="last").reset_index(drop=True)


def traffic(run: Run) -> pd.DataFrame:
    """Totals over the nodes of every job: arm, seed, nodes and the counters of ``decentral.records``."""
    groups = last_counters(run).groupby(JOB, observed=True, sort=True)
    table = groups[list(COUNTERS)].sum(min_count=1)
    table.insert(0, "nodes", groups.size())
    return table.reset_index()
