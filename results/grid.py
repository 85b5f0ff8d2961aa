"""Curves over time: all arms of a run read at the same points of one grid (algorithms.md section 1.6).

Nodes of an asynchronous arm are evaluated at moments of their own, and arms at different ones. A node counts
with its last evaluation at or before a grid point, in every arm alike; that is a choice, which the authors of
DivShare do not state, so every figure says it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from results.metrics import JOB, curve_rows, over_nodes, with_attempted, with_averages
from results.read import Run

Axis: TypeAlias = Literal["time_s", "total_bytes"]
Grid: TypeAlias = npt.NDArray[np.float64]

_GRID_POINTS = 300


def grid_of(run: Run, arms: Sequence[str] | None = None, axis: Axis = "time_s") -> Grid:
    """The points at which curves over ``axis`` are read, ascending: the same for all ``arms``.

    Those of the evaluations where the nodes and seeds of every arm evaluate in step; else evenly spaced ones,
    twice as many within an arm's evaluations as a node has of them, but at most 300 in all.

    Args:
        arms: that share the grid; default all.
    """
    rows = curve_rows(run.evaluations)
    own: list[Grid] = []
    spacing: list[float] = []
    in_step = True
    low, high = np.inf, -np.inf
    for arm in run.arms if arms is None else arms:
        mine = rows[rows["arm"] == arm]
        if mine.empty:
            continue
        turn = mine.groupby([*JOB, "node"], observed=True).cumcount()
        spans = mine.groupby(turn)[axis].agg(["min", "max"]).to_numpy(dtype=np.float64)
        first, last = float(spans[:, 0].min()), float(spans[:, 1].max())
        low, high = min(low, first), max(high, last)
        in_step = in_step and bool((spans[:-1, 1] <= spans[1:, 0]).all())
        own.append(spans[:, 1])
        if last > first:
            spacing.append((last - first) / (2 * len(spans)))
    if not own:
        return np.array([])
    instants = np.unique(np.concatenate(own))
    if in_step and len(instants) <= _GRID_POINTS:
        return instants
    points = min(_GRID_POINTS, 1 + int(np.ceil((high - low) / min(spacing)))) if spacing else 1
    return np.linspace(low, high, points)


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
    for (arm, seed), job_rows in rows.groupby(JOB, observed=True, sort=True):
        if arms is not None and arm not in arms:
            continue
        times = job_rows[axis].to_numpy(dtype=np.float64)
        points = grid[: int(np.searchsorted(grid, times.max())) + 1]
        seen_so_far = np.searchsorted(np.sort(times), points, side="right")
        fresh = pd.DataFrame({"point": points, "fresh": np.diff(seen_so_far, prepend=0) > 0})
        freshness.append(fresh.assign(seed=seed, arm=pd.Series([arm] * len(points), dtype=rows["arm"].dtype)))
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


def by_time(run: Run) -> pd.DataFrame:
    """``on_grid`` for all arms on their common grid, with the observer's last values at or before each point.

    Returns:
        The columns of ``on_grid`` and of ``with_averages``.
    """
    grid = grid_of(run)
    parts = []
    for _, rows in curve_rows(run.averages).groupby(JOB, observed=True, sort=True):
        ordered = rows.sort_values("time_s", kind="stable")
        position = np.searchsorted(ordered["time_s"].to_numpy(dtype=np.float64), grid, side="right") - 1
        seen = position >= 0
        parts.append(ordered.iloc[position[seen]].assign(time_s=grid[seen]))
    held = pd.concat(parts) if parts else run.averages.iloc[:0]
    return with_averages(run, on_grid(run, grid), held, [*JOB, "time_s"])
