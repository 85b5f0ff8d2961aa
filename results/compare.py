"""The arms of a run side by side: final values per seed, per arm, and paired between arms.

*Final* is the ``final`` evaluation (whole split) where all nodes of a job have one. Where they have not (the
run was cut short), it is the last round that all nodes evaluated, and every table says so in ``basis``. An
arm never mixes the two: if one of its seeds has a final evaluation, only those that have one count; if none
has, all its seeds are read at the last round that they have in common.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import combinations

import numpy as np
import pandas as pd

from results.delivery import bytes_per_node
from results.metrics import (
    JOB,
    across_seeds,
    by_round,
    final_rows,
    last_counters,
    over_nodes,
    t_interval,
    with_averages,
)
from results.read import Run
from results.target import target_of, target_over_seeds, time_to_target

FINAL, LAST_ROUND, NOTHING = "final evaluation", "last common round", "no evaluation"
STATISTICS = ("node_avg", "node_std", "avg_model", "consensus", "best", "worst")
COSTS = ("made_per_node", "delivered_per_node", "bytes_per_node", "rounds", "time_s", "wall_s")
TARGETS = ("time_to_target", "speedup")
PAIRED = ("node_avg", "avg_model", "node_std")


def summary(run: Run) -> pd.DataFrame:
    """One row per (arm, seed), then one per arm; this is summary.csv.

    Returns:
        ``row`` (seed or arm), arm, seed (empty for an arm), n (seeds in it), state, complete, basis, round
        (at which ``basis`` was measured; the largest over nodes), nodes, expected, nonfinite, the
        ``STATISTICS``, ``COSTS``, ``target`` and the ``TARGETS`` (infinite: never), and for arms the
        half-width of each as ``<name>_ci``.
    """
    seeds = per_seed(run).assign(row="seed", n=1)
    arms = comparison(run).assign(row="arm")
    names = ["row", "arm", "seed", "n", "seeds", "state", "complete", "basis", "round", "nodes", "expected"]
    values = [f"{name}{suffix}" for name in (*STATISTICS, *COSTS, *TARGETS) for suffix in ("", "_ci")]
    parts = [part.astype({"arm": object}) for part in (seeds, arms)]
    columns = [*names, "nonfinite", *values, "target", "reached", "never"]
    return pd.concat(parts, ignore_index=True).reindex(columns=columns)


@lru_cache(maxsize=1)
def per_seed(run: Run) -> pd.DataFrame:
    """One row per job, each measured at its own end: the seed rows of ``summary``.

    Kept for the next caller, since most tables start from it: copy it before changing it.
    """
    jobs = _jobs(run)
    measured = pd.concat([_finals(run), _at_last_round(run)]).drop_duplicates(JOB, keep="first")
    table = jobs.merge(measured, on=JOB, how="left").merge(_costs(run), on=JOB, how="left")
    table["basis"] = table["basis"].fillna(NOTHING)
    said = pd.Series([job.wall_s for job in run.jobs], dtype=np.float64)
    table["wall_s"] = said.fillna(table["wall_s"])
    target = target_of(run)
    table["target"] = math.nan if target is None else target.value
    if target is None:
        return table.assign(time_to_target=math.nan)
    times = time_to_target(run, target.value).rename(columns={"time_s": "time_to_target"})
    return table.merge(times, on=JOB, how="left")


def comparison(run: Run) -> pd.DataFrame:
    """One row per arm, in the order of the experiment.

    Returns:
        arm, n (seeds that count), counted (which), seeds (how many were asked for), complete, basis, round,
        the ``STATISTICS`` and ``COSTS`` as means over the n seeds with the half-width of the 95 % t-interval
        as ``<name>_ci`` (NaN if n is 1), and ``nonfinite`` (diverged ones) of ``nodes``, both summed over the
        n seeds. Beside these, over all seeds of which it is known: ``target``, the ``TARGETS``, and in how
        many the target was ``reached``, ``never`` reached, or ``unfinished`` (``target.target_over_seeds``).
    """
    seeds = per_seed(run)
    values = [*STATISTICS, *COSTS]
    counted = arm_values(run)
    table = across_seeds(counted, ["arm"], values)
    groups = counted.groupby("arm", observed=True, sort=True)
    extra = groups.agg(round=("round", "max"), nodes=("nodes", "sum"), nonfinite=("nonfinite", "sum"))
    table = table.merge(extra.reset_index(), on="arm", how="left")
    asked = seeds.groupby("arm", observed=True, sort=True).agg(
        seeds=("seed", "size"), complete=("complete", "all")
    )
    table = asked.reset_index().merge(table, on="arm", how="left")
    table["n"] = table["n"].fillna(0).astype(np.int64)
    table["nonfinite"] = table["nonfinite"].fillna(0).astype(np.int64)
    bases = dict(zip(counted["arm"], counted["basis"], strict=True))
    table["basis"] = [bases.get(arm, NOTHING) for arm in table["arm"]]
    numbers = [counted.loc[counted["arm"] == arm, "seed"] for arm in table["arm"]]
    table["counted"] = [", ".join(str(number) for number in seeds) for seeds in numbers]
    times = seeds[[*JOB, "time_to_target"]].rename(columns={"time_to_target": "time_s"})
    reached = target_over_seeds(times.loc[seeds["target"].notna() & (seeds["basis"] != NOTHING)])
    reached = reached.rename(columns={"time_s": "time_to_target", "time_s_ci": "time_to_target_ci"})
    table = table.merge(reached.drop(columns="n"), on="arm", how="left")
    return table.assign(target=seeds["target"].max() if len(seeds) else math.nan)


def arm_values(run: Run) -> pd.DataFrame:
    """The rows behind ``comparison``: the jobs of every arm that are measured at a common point."""
    seeds = per_seed(run)
    rounds = by_round(run)
    rounds = rounds[rounds["complete"]]
    parts = []
    for arm, group in seeds.groupby("arm", observed=True, sort=True):
        finished = group[group["basis"] == FINAL]
        started = group[group["basis"] == LAST_ROUND]
        if len(finished):
            parts.append(finished)
        elif len(started):
            curves = rounds[(rounds["arm"] == arm)]
            times = curves.groupby("round")["seed"].nunique()
            common = times.index[times == len(started)]
            if len(common):
                then = curves[curves["round"] == common.max()]
                # What it had cost by that round; real seconds are known for whole jobs only.
                cost = {"bytes_per_node": then["total_bytes"], "rounds": then["round"].astype(np.float64)}
                cost |= {"made_per_node": then["made_bytes"], "delivered_per_node": np.nan}
                parts.append(then.assign(basis=LAST_ROUND, wall_s=np.nan, **cost))
        else:
            parts.append(group[group["bytes_per_node"].notna()])
    table = pd.concat(parts) if parts else seeds.iloc[:0]
    return table[[*JOB, "basis", "round", "nodes", "expected", "nonfinite", *STATISTICS, *COSTS]]


def comparable(table: pd.DataFrame) -> bool:
    """Whether all arms of ``comparison`` are measured at the same point and over the same seeds."""
    if table["counted"].nunique() != 1 or table["basis"].nunique() != 1:
        return False
    return bool((table["basis"] == FINAL).all() or table["round"].nunique() == 1)


def best_arms(run: Run, table: pd.DataFrame) -> dict[str, str]:
    """Best arm of ``comparison`` by statistic; empty where naming one would compare unlike things.

    Spread, consensus distance and costs have a direction of their own but no winner: they are not ranked.
    """
    if run.metric.higher_is_better is None or not comparable(table) or len(table) < 2:
        return {}
    best = {}
    for name in ("node_avg", "avg_model", "best", "worst"):
        values = table[name]
        winners = table.loc[values == (values.max() if run.metric.higher_is_better else values.min()), "arm"]
        # Of several equal arms none is better than the others.
        if len(winners) == 1:
            best[name] = str(winners.iloc[0])
    return best


def paired(run: Run) -> pd.DataFrame:
    """Differences between arms, seed by seed: arm_a minus arm_b over the seeds that both have.

    All arms share seeds (data, initial model, topology draws), so the difference varies less than the arms.

    Returns:
        arm_a, arm_b, statistic (``PAIRED``), n (shared seeds), difference, ci (half-width of the 95 %
        t-interval, NaN if n < 2), separated (the interval leaves out 0; None without one). No rows for arms
        that are not measured at the same point.
    """
    values = arm_values(run)
    values = values[values["basis"] != NOTHING]
    bases = {
        arm: (group["basis"].iloc[0], None if (group["basis"] == FINAL).all() else group["round"].max())
        for arm, group in values.groupby("arm", observed=True, sort=True)
    }
    rows = []
    for arm_a, arm_b in combinations(bases, 2):
        if bases[arm_a] != bases[arm_b]:
            continue
        sides = [values[values["arm"] == arm].set_index("seed") for arm in (arm_a, arm_b)]
        shared = sides[0].index.intersection(sides[1].index)
        for name in PAIRED:
            first, second = (side.loc[shared, name] for side in sides)
            # Equal up to rounding is equal: a sum in another order is no finding.
            same = (first - second).abs() <= 1e-12 * first.abs()
            difference = (first - second).mask(same, 0.0).dropna()
            interval = t_interval(difference.to_numpy(dtype=np.float64))
            bounds = interval.bounds
            rows.append(
                {
                    "arm_a": str(arm_a),
                    "arm_b": str(arm_b),
                    "statistic": name,
                    "n": interval.n,
                    "difference": interval.mean,
                    "ci": math.nan if interval.half is None else interval.half,
                    "separated": None if bounds is None else not bounds[0] <= 0.0 <= bounds[1],
                }
            )
    return pd.DataFrame(rows, columns=["arm_a", "arm_b", "statistic", "n", "difference", "ci", "separated"])


def final_scores(run: Run) -> pd.DataFrame:
    """Node level: the scores behind ``arm_values`` as arm, seed, node, score."""
    values = arm_values(run)
    finals = final_rows(run.evaluations).merge(values.loc[values["basis"] == FINAL, JOB], on=JOB)
    at_round = values.loc[values["basis"] == LAST_ROUND, [*JOB, "round"]].astype({"round": np.int64})
    others = run.evaluations.merge(at_round, on=[*JOB, "round"]).drop_duplicates([*JOB, "node"], keep="first")
    parts = [part for part in (finals, others) if len(part)]
    return (pd.concat(parts) if parts else finals)[[*JOB, "node", "score"]].reset_index(drop=True)


def _jobs(run: Run) -> pd.DataFrame:
    names = ["arm", "seed", "state", "complete"]
    table = pd.DataFrame([[getattr(job, name) for name in names] for job in run.jobs], columns=names)
    table["arm"] = table["arm"].astype(run.evaluations["arm"].dtype)
    return table.astype({"seed": np.int64, "complete": bool})


def _finals(run: Run) -> pd.DataFrame:
    rows = final_rows(run.evaluations)
    table = over_nodes(run, rows, JOB)
    last = rows.groupby(JOB, observed=True, sort=True)["round"].max().rename("round").reset_index()
    table = with_averages(run, table.merge(last, on=JOB), final_rows(run.averages), JOB)
    return table[table["complete"]].assign(basis=FINAL).drop(columns=["complete", "time_s"])


def _at_last_round(run: Run) -> pd.DataFrame:
    table = by_round(run)
    last = table[table["complete"]].drop_duplicates(JOB, keep="last")
    return last.assign(basis=LAST_ROUND).drop(columns=["complete", "time_s"])


def _costs(run: Run) -> pd.DataFrame:
    """Means over nodes at the end of every job; times of its slowest node."""
    groups = last_counters(run).groupby(JOB, observed=True, sort=True)
    means = {"bytes_per_node": ("total_bytes", "mean"), "rounds": ("round", "mean")}
    table = groups.agg(**means, time_s=("time_s", "max"), wall_s=("wall_s", "max")).reset_index()
    return table.merge(bytes_per_node(run), on=JOB, how="left")
