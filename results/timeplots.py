"""Figures over the run's clock and over traffic: all arms on one axis, read on one grid (``grid.by_time``).

Each function draws one figure, or returns None where the run has nothing to say in it.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from results.delivery import staleness
from results.grid import by_time
from results.metrics import across_seeds
from results.panels import by_arm, complete, entry, finished, score_label, score_range, shown_scale, split_of
from results.read import Run
from results.style import GREY, ArmStyle, arm_styles, draw_curve, new_figure, round_axis
from results.tables import target_shown, time_label
from results.target import target_of, target_over_seeds, time_to_target

_TRAFFIC = {"made_bytes": "payload attempted per node", "total_bytes": "payload sent per node"}

_DASHED_ARMS = 4


def score_over_time(run: Run) -> Figure | None:
    """node_avg over the run's clock, each node with its last evaluation at or before each point."""
    table = complete(by_time(run))
    if not table["node_avg"].notna().any():
        return None
    figure, (axes,) = new_figure()
    drawn = []
    for _, style, rows in by_arm(run, table):
        curve = _at(across_seeds(rows, ["arm", "time_s"], ["node_avg"]), rows[rows["fresh"]])
        drawn.append(entry(style, curve["node_avg"]))
        seeds = rows[rows["fresh"]]
        draw_curve(axes, curve, "time_s", "node_avg", style, seeds=seeds, scale=shown_scale(run))
    axes.set_xlabel(time_label(run))
    axes.set_ylabel(score_label(run))
    finished(figure, axes, drawn, within=score_range(run))
    if target := target_of(run):
        _draw_target(axes, target.value * shown_scale(run), target_shown(run, target.value))
    return figure


def score_over_bytes(run: Run) -> Figure | None:
    """node_avg over the payload that a node attempted to send and, where it differs, sent.

    With avg_model where that is legible: of at most four arms.
    """
    table = complete(by_time(run))
    if not table["node_avg"].notna().any():
        return None
    panels = [name for name in _TRAFFIC if (table[name] > 0).any()]
    if len(panels) == 2 and table["made_bytes"].equals(table["total_bytes"]):
        panels = ["total_bytes"]
    if not panels:
        return None
    largest = table[panels].max().max()
    unit, size = ("GB", 1e9) if largest >= 5e9 else ("MB", 1e6) if largest >= 5e4 else ("kB", 1e3)
    table[[*panels, *(f"{name}_now" for name in panels)]] /= size
    dashed = table["arm"].nunique() <= _DASHED_ARMS and bool(table["avg_model"].notna().any())
    figure, all_axes = new_figure(len(panels))
    drawn: dict[str, ArmStyle] = {}
    for axes, name in zip(all_axes, panels, strict=True):
        for arm, style, rows in by_arm(run, table):
            now = f"{name}_now"
            curve = across_seeds(rows, ["arm", "time_s"], ["node_avg", "avg_model", name, now])
            seeds = rows[rows["fresh"]]
            solid, dashes = _at(curve, seeds), _at(curve, rows[rows["fresh_average"]])
            drawn[arm] = entry(style, solid["node_avg"])
            draw_curve(axes, solid, name, "node_avg", style, seeds=seeds, scale=shown_scale(run))
            if dashed and len(dashes):
                draw_curve(axes, dashes, now, "avg_model", style, scale=shown_scale(run), dashed=True)
        axes.set_xlabel(f"{_TRAFFIC[name]} ({unit})")
        axes.set_ylabel(score_label(run) if axes is all_axes[0] else "")
    for axes in all_axes[1:]:
        finished(figure, axes, [], within=score_range(run))
    return finished(figure, all_axes[0], list(drawn.values()), dashed=dashed, within=score_range(run))


def consensus_over_time(run: Run) -> Figure | None:
    """Consensus distance over the run's clock; logarithmic where it spans more than a factor of 30."""
    table = by_time(run)
    # Nodes start at the same model: that zero must not keep the axis from being logarithmic.
    table = table[table["consensus"] > 0]
    if table.empty:
        return None
    figure, (axes,) = new_figure()
    drawn = []
    for _, style, rows in by_arm(run, table):
        fresh = rows[rows["fresh_average"]]
        drawn.append(style)
        curve = _at(across_seeds(rows, ["arm", "time_s"], ["consensus"]), fresh)
        draw_curve(axes, curve, "time_s", "consensus", style, seeds=fresh)
    axes.set_xlabel(time_label(run))
    axes.set_ylabel("consensus distance (l2)")
    return finished(figure, axes, drawn, log=True, within=(0.0, np.inf))


def staleness_over_rounds(run: Run) -> Figure | None:
    """Mean age in rounds of the messages that nodes of asynchronous arms aggregate, over local rounds."""
    table = staleness(run)
    stale = table.loc[table["staleness"] > 0, "arm"].unique()
    table = table[table["arm"].isin(stale)]
    if table.empty:
        return None
    figure, (axes,) = new_figure(height=2.7)
    drawn = []
    for _, style, rows in by_arm(run, table):
        curve = across_seeds(rows, ["arm", "round"], ["staleness"])
        drawn.append(style)
        draw_curve(axes, curve, "round", "staleness", style, seeds=rows)
    round_axis(axes)
    axes.set_ylabel("staleness (rounds)")
    return finished(figure, axes, drawn, within=(0.0, np.inf))


def target_bars(run: Run) -> Figure | None:
    """Time to target of every arm; the bar of an arm that never gets there is open and says so."""
    target = target_of(run)
    if target is None:
        return None
    times = time_to_target(run, target.value)
    if not len(times):
        return None
    ends = run.evaluations.groupby("arm", observed=True)["time_s"].max()
    longest = float(ends.max())
    if not longest > 0:
        return None
    arms = target_over_seeds(times).set_index("arm")
    styles = {arm: style for arm, style in arm_styles(run.arms).items() if arm in arms.index}
    figure, (axes,) = new_figure(height=0.95 + 0.36 * len(styles))
    for place, (arm, style) in enumerate(reversed(styles.items())):
        row: pd.Series = arms.loc[[arm]].iloc[0]
        reached = times.loc[(times["arm"] == arm) & np.isfinite(times["time_s"]), "time_s"]
        if row["never"] or not row["n"]:
            _never(axes, place, float(ends[arm]), style, row)
        else:
            half = row["time_s_ci"]
            axes.barh(place, row["time_s"], height=0.56, color=style.color, alpha=0.85)
            if half > 0:
                reach = [[min(half, row["time_s"])], [half]]
                axes.errorbar(row["time_s"], place, xerr=reach, color="#222222", capsize=3, linewidth=1.0)
            axes.annotate(
                f"{row['time_s']:.3g}",
                (row["time_s"] + (half if half > 0 else 0.0), place),
                xytext=(5, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
            )
        axes.plot(
            reached, np.full(len(reached), place), "o", color="white", markeredgecolor="#222222", ms=3.5
        )
    axes.set_yticks(range(len(styles)), [style.label for style in reversed(styles.values())])
    axes.set_ylim(-0.55, len(styles) - 0.45)
    axes.set_xlim(0.0, 1.18 * longest)
    axes.grid(visible=False, axis="y")
    goal = f"{split_of(run)} {run.metric.title} of {target_shown(run, target.value)}"
    axes.set_xlabel(time_label(run).replace("time", f"time to {goal}", 1))
    return figure


def _never(axes: Axes, place: int, end: float, style: ArmStyle, row: pd.Series) -> None:
    axes.barh(place, end, height=0.56, facecolor="none", edgecolor=style.color, hatch="////", alpha=0.6)
    known = int(row["n"])
    seeds = "" if row["never"] == known else f" in {row['never']:.0f} of {known} seeds"
    what = f"never{seeds}" if known else "unknown: cut short"
    axes.annotate(
        what,
        (0.5 * end, place),
        ha="center",
        va="center",
        fontsize=8,
        color="#222222",
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
    )


def _draw_target(axes: Axes, value: float, label: str) -> None:
    low, high = axes.get_ylim()
    if low <= value <= high:
        axes.axhline(value, color=GREY, linewidth=0.9, linestyle=(0, (1, 1.5)), zorder=1)
        axes.annotate(
            f"target {label}",
            (1.0, value),
            xycoords=("axes fraction", "data"),
            xytext=(-2, 2),
            textcoords="offset points",
            ha="right",
            fontsize=7.5,
            color=GREY,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0},
        )


def _at(curve: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """The points of ``curve`` at which any seed has something new: lines join these, not held values."""
    return curve[curve["time_s"].isin(rows["time_s"])]
