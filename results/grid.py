"""Curves over time: all arms of a run read at the same points of one grid (algorithms.md section 1.6).

Nodes of an asynchronous arm are evaluated at moments of their own, and arms at different ones. A node counts
with its last evaluation at or before a grid point, in every arm alike; that is a choice, which the authors of
DivShare do not state, so every figure says it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from results.metrics import JOB, by_round, curve_rows, over_nodes, with_attempted, with_averages
from results.pace import uneven_arms
from results.read import Run

Axis: TypeAlias = Literal["time_s", "total_bytes"]
Grid: TypeAlias = npt.NDArray[np.float64]

_GRID_POINTS = 400


def grid_of(run: Run, arms: Sequence[str] | None = None, axis: Axis = "time_s") -> Grid:
    """The points at which curves over ``axis`` are read, ascending: the same for all ``arms``.

    The union of what every arm needs: its evaluations where its nodes and seeds evaluate in step; else evenly
    spaced points, twice as many as a node has evaluations, and the moments at which the observer looked. If
    that is more than 400, 400 evenly spaced ones.

    Args:
        arms: that share the grid; default all.
    """
    rows = curve_rows(run.evaluations)
    observed = curve_rows(run.averages)
    own: list[Grid] = []
    for arm in run.arms if arms is None else arms:
        mine = rows[rows["arm"] == arm]
        if mine.empty:
            continue
        turn = mine.groupby([*JOB, "node"], observed=True).cumcount()
        spans = mine.groupby(turn)[axis].agg(["min", "max"]).to_numpy(dtype=np.float64)
        if (spans[:-1, 1] <= spans[1:, 0]).all():
            own.append(spans[:, 1])
            continue
        own.append(np.linspace(spans[:, 0].min(), spans[:, 1].max(), 2 * len(spans)))
        if axis == "time_s":
            own.append(observed.loc[observed["arm"] == arm, axis].dropna().to_numpy(dtype=np.float64))
    grid = np.unique(np.concatenate(own)) if own else np.array([])
    return grid if len(grid) <= _GRID_POINTS else np.linspace(grid[0], grid[-1], _GRID_POINTS)


def on_grid(run: Run, grid: Grid, axis: Axis = "time_s", arms: Sequence[str] | None = None) -> pd.DataFrame:
    """Statistics over nodes at every grid point: each node counts with its last evaluation at or before it.

    A job's curve ends at the first grid point at or after its last evaluation; it is not prolonged.

    Args:
        grid: ascending, in the unit of ``axis``.
        axis: ``time_s`` (the run's clock) or ``total_bytes`` (payload bytes that the node itself had sent).
        arms: default all.

    Returns:
        arm, seed, ``axis`` (the grid point), the columns of ``over_nodes`` of the same name, and ``fresh``:
        whether any node of the job was evaluated since the grid point before.
    """
    needed = [*JOB, "node", "score", "test_loss", "time_s", "total_bytes", "made_bytes"]
    rows = with_attempted(run, curve_rows(run.evaluations))[needed]
    rows = rows.sort_values([*JOB, "node", axis], kind="stable")
    parts, freshness = [], []
    groups: Any = rows.groupby(JOB, observed=True, sort=True)
    for (arm, seed), job_rows in groups:
        if arms is not None and arm not in arms:
            continue
        times = job_rows[axis].to_numpy(dtype=np.float64)
        points = grid[: int(np.searchsorted(grid, times.max())) + 1]
        seen_so_far = np.searchsorted(np.sort(times), points, side="right")
        fresh = pd.DataFrame({"point": points, "fresh": np.diff(seen_so_far, prepend=0) > 0})
        arms_of_job = pd.Series([arm] * len(points), dtype=rows["arm"].dtype)
        freshness.append(fresh.assign(seed=np.int64(seed), arm=arms_of_job))
        for _, node_rows in job_rows.groupby("node", sort=True):
            position = np.searchsorted(node_rows[axis].to_numpy(), points, side="right") - 1
            seen = position >= 0
            parts.append(node_rows.iloc[position[seen]].assign(point=points[seen]))
    if not parts:
        empty = over_nodes(run, rows.iloc[:0].assign(point=0.0), [*JOB, "point"])
        return empty.assign(fresh=False, **{axis: 0.0}).drop(columns="point")
    table = over_nodes(run, pd.concat(parts), [*JOB, "point"])
    table = table.merge(pd.concat(freshness), on=[*JOB, "point"], how="left")
    return table.drop(columns=axis).rename(columns={"point": axis})


def traffic_on_grid(run: Run, grid: Grid) -> pd.DataFrame:
    """Payload bytes at every grid point: each node counts with its last finished round at or before it.

    Args:
        grid: ascending, seconds of the run's clock.

    Returns:
        arm, seed, ``time_s`` (the grid point), and means over the job's nodes, ``made_bytes_now`` and
        ``total_bytes_now``; NaN where a node's logs have none.
    """
    names = ["made_bytes", "total_bytes"]
    parts = []
    groups: Any = run.rounds.groupby(JOB, observed=True, sort=True)
    for (arm, seed), rows in groups:
        sums = np.zeros((len(grid), 2))
        nodes = rows.sort_values(["node", "time_s"], kind="stable").groupby("node", sort=True)
        for _, node_rows in nodes:
            counts = node_rows[names].to_numpy(dtype=np.float64)
            # Before its first round a node has sent nothing, if its log counts at all.
            counts = np.vstack([np.where(np.isnan(counts[:1]), np.nan, 0.0), counts])
            times = node_rows["time_s"].to_numpy(dtype=np.float64)
            sums += counts[np.searchsorted(times, grid, side="right")]
        means = pd.DataFrame(sums / nodes.ngroups, columns=[f"{name}_now" for name in names])
        arms_of_job = pd.Series([arm] * len(grid), dtype=run.rounds["arm"].dtype)
        parts.append(means.assign(arm=arms_of_job, seed=np.int64(seed), time_s=grid))
    empty = run.rounds.iloc[:0][[*JOB, "time_s", *names]]
    return pd.concat(parts) if parts else empty.rename(columns={name: f"{name}_now" for name in names})


@lru_cache(maxsize=1)
def by_time(run: Run) -> pd.DataFrame:
    """``on_grid`` for all arms on their common grid, with traffic and the observer's last values by then.

    Kept for the next caller, since several figures are drawn from it: copy it before changing it.

    Returns:
        The columns of ``on_grid``, in which bytes are those at the evaluations that count, of
        ``traffic_on_grid`` and of ``with_averages``, and ``fresh_average``: whether the observer looked since
        the grid point before.
    """
    grid = grid_of(run)
    parts = []
    for _, rows in curve_rows(run.averages).groupby(JOB, observed=True, sort=True):
        ordered = rows.sort_values("time_s", kind="stable")
        position = np.searchsorted(ordered["time_s"].to_numpy(dtype=np.float64), grid, side="right") - 1
        seen = position >= 0
        fresh = np.diff(position, prepend=-1)[seen] > 0
        parts.append(ordered.iloc[position[seen]].assign(time_s=grid[seen], fresh_average=fresh))
    keys = [*JOB, "time_s"]
    held = pd.concat(parts) if parts else run.averages.iloc[:0].assign(fresh_average=False)
    scores = on_grid(run, grid).merge(traffic_on_grid(run, grid), on=keys, how="left")
    table = with_averages(run, scores, held, keys)
    table = table.merge(held[[*keys, "fresh_average"]], on=keys, how="left")
    return table.assign(fresh_average=table["fresh_average"].eq(True))


def by_common_round(run: Run) -> pd.DataFrame:
    """``by_round``; arms whose nodes end with different numbers of rounds are read at common times.

    Their nodes are not evaluated at the same rounds. At every instant at which the observer looked, each node
    counts with its last evaluation, and ``round`` is the observer's: the one that nominal compute times give.
    """
    table = by_round(run)
    observed = curve_rows(run.averages)
    for arm in sorted(uneven_arms(run)):
        mine = observed[observed["arm"] == arm]
        if mine.empty:
            continue
        held = on_grid(run, np.unique(mine["time_s"].to_numpy(dtype=np.float64)), arms=[arm])
        held = held.merge(mine[[*JOB, "time_s", "round"]], on=[*JOB, "time_s"])
        held = with_averages(run, held, mine, [*JOB, "round"])
        table = pd.concat([table[table["arm"] != arm], held[table.columns]], ignore_index=True)
    return table.sort_values([*JOB, "round"], kind="stable", ignore_index=True)
