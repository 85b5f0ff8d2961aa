"""What a run achieved: over nodes, rounds and seeds (algorithms.md section 1.6).

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

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import stdtrit

from results.read import COUNTERS, Run

LEVEL = 0.95
JOB = ["arm", "seed"]
NODE_STATISTICS = ("node_avg", "node_std", "best", "worst", "test_loss")


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
        ``NODE_STATISTICS``, and means over nodes of ``time_s``, ``total_bytes`` and, where ``rows`` have it,
        ``made_bytes``.
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
    for name in ("test_loss", "time_s", "total_bytes", *(["made_bytes"] if "made_bytes" in rows else [])):
        table[name] = groups[name].mean().where(groups[name].count() == table["nodes"])
    table = table.reset_index()
    sizes = {(job.arm, job.seed): job.scored for job in run.jobs}
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


def with_attempted(run: Run, rows: pd.DataFrame) -> pd.DataFrame:
    """Evaluations with ``made_bytes``, the payload bytes that their node had attempted to send by then.

    Taken from the round event of the same node and round; NaN where the logs have none.
    """
    made = run.rounds[[*JOB, "node", "round", "made_bytes"]].drop_duplicates([*JOB, "node", "round"])
    joined = rows.drop(columns="made_bytes", errors="ignore").merge(
        made, on=[*JOB, "node", "round"], how="left"
    )
    if made["made_bytes"].notna().any():
        joined.loc[joined["round"] == 0, "made_bytes"] = 0.0
    return joined


def by_round(run: Run) -> pd.DataFrame:
    """One row per (arm, seed, round) with any evaluation: ``over_nodes`` and ``with_averages``."""
    keys = [*JOB, "round"]
    table = over_nodes(run, with_attempted(run, curve_rows(run.evaluations)), keys)
    return with_averages(run, table, curve_rows(run.averages), keys)


def training_loss(run: Run) -> pd.DataFrame:
    """One row per (arm, seed, round): mean over nodes of ``train_loss``, NaN unless all nodes have one."""
    groups = run.rounds.groupby([*JOB, "round"], observed=True, sort=True)["train_loss"]
    table = groups.mean().to_frame()
    table["nodes"] = groups.count()
    table = table.reset_index()
    sizes = {(job.arm, job.seed): job.scored for job in run.jobs}
    expected = [sizes[arm, seed] for arm, seed in zip(table["arm"], table["seed"], strict=True)]
    table.loc[table["nodes"] < expected, "train_loss"] = np.nan
    return table


def last_counters(run: Run) -> pd.DataFrame:
    """The newest counters and times of every node: those of its end event, else of its last round."""
    names = [*JOB, "node", "round", "time_s", "wall_s", *COUNTERS]
    ends = run.ends[names].dropna(subset=["total_bytes"])
    every = pd.concat([frame for frame in (run.rounds[names], ends) if len(frame)] or [run.rounds[names]])
    every = every.sort_values([*JOB, "node", "round"], kind="stable")
    # An end event without them does not undo what the rounds before it say.
    attempts = ["made_bytes", "dropped_bytes"]
    every[attempts] = every.groupby([*JOB, "node"], observed=True)[attempts].ffill()
    return every.drop_duplicates([*JOB, "node"], keep="last").reset_index(drop=True)


def traffic(run: Run) -> pd.DataFrame:
    """Totals over the nodes of every job: arm, seed, nodes and the counters of ``decentral.records``."""
    groups = last_counters(run).groupby(JOB, observed=True, sort=True)
    table = groups[list(COUNTERS)].sum(min_count=1)
    table.insert(0, "nodes", groups.size())
    return table.reset_index()
