"""The figures of a run: each function draws one, or returns None where the run has nothing to draw in it.

All of them use matplotlib's object interface, so that drawing changes no state of the process. Curves are
means over seeds of means over nodes; the band is the 95 % t-interval over seeds, absent for a single seed,
and cut at the axes, whose limits follow from what was measured alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from results.compare import final_scores
from results.metrics import across_seeds, by_round, curve_rows, grid_of, on_grid, training_loss
from results.read import Run
from results.style import (
    GREY,
    ArmStyle,
    arm_legend,
    arm_styles,
    draw_curve,
    fit_y,
    limits,
    line_legend,
    log_y,
    new_figure,
    round_axis,
)
from results.tables import time_label

_BOTH = (("-", "mean over nodes (node_avg)"), ((0, (4, 2)), "mean model (avg_model)"))


def score_over_rounds(run: Run) -> Figure | None:
    """node_avg (solid, band) and avg_model (dashed) over local rounds."""
    label, within = _score_label(run), _score_range(run)
    return _rounds_figure(run, "node_avg", label, dashed="avg_model", scale=_scale(run), within=within)


def score_over_bytes(run: Run) -> Figure | None:
    """node_avg and avg_model over payload bytes sent per node."""
    table = _complete(by_round(run))
    largest = table["total_bytes"].max()
    if table["node_avg"].notna().sum() == 0 or not largest > 0:
        return None
    unit, size = ("GB", 1e9) if largest >= 5e9 else ("MB", 1e6) if largest >= 5e4 else ("kB", 1e3)
    figure, (axes,) = new_figure()
    table["sent"] = table["total_bytes"] / size
    drawn = []
    for _, style, rows in _by_arm(run, table):
        curve = across_seeds(rows, ["arm", "round"], ["node_avg", "avg_model", "sent"])
        drawn.append(_entry(style, curve["node_avg"]))
        draw_curve(axes, curve, "sent", "node_avg", style, seeds=rows, scale=_scale(run))
        draw_curve(axes, curve, "sent", "avg_model", style, scale=_scale(run), dashed=True)
    axes.set_xlabel(f"payload sent per node ({unit})")
    axes.set_ylabel(_score_label(run))
    dashed = bool(table["avg_model"].notna().any())
    return _finished(figure, axes, drawn, dashed=dashed, within=_score_range(run))


def score_over_time(run: Run) -> Figure | None:
    """node_avg over the run's clock, each node with its last evaluation at or before each point."""
    figure, (axes,) = new_figure()
    drawn = []
    measured = False
    for arm, style in arm_styles(run.arms).items():
        table = _complete(on_grid(run, grid_of(run, arm), arms=[arm]))
        if len(table):
            curve = across_seeds(table, ["arm", "time_s"], ["node_avg"])
            measured = measured or bool(curve["node_avg"].notna().any())
            drawn.append(_entry(style, curve["node_avg"]))
            draw_curve(axes, curve, "time_s", "node_avg", style, seeds=table, scale=_scale(run))
    axes.set_xlabel(time_label(run))
    axes.set_ylabel(_score_label(run))
    return _finished(figure, axes, drawn, within=_score_range(run)) if measured else None


def spread_over_rounds(run: Run) -> Figure | None:
    """node_std over local rounds."""
    label = f"std over nodes{' (percentage points)' if run.metric.percent else ''}"
    if not any(job.nodes > 1 for job in run.jobs):
        return None
    low, high = _score_range(run)
    # No spread is larger than that of nodes of which half are at either end.
    return _rounds_figure(run, "node_std", label, scale=_scale(run), within=(0.0, (high - low) / 2))


def consensus_over_rounds(run: Run) -> Figure | None:
    """Consensus distance over local rounds; logarithmic where it spans more than a factor of 30."""
    table = by_round(run)
    positive = table["consensus"] > 0
    if not positive.any():
        return None
    # Nodes start at the same model: that zero must not keep the axis from being logarithmic.
    table.loc[~positive, "consensus"] = np.nan
    return _rounds_figure(run, "consensus", "consensus distance (l2)", table=table[positive], log=True)


def loss_over_rounds(run: Run) -> Figure | None:
    """Training loss per local round, and loss at evaluations, side by side."""
    training = training_loss(run).dropna(subset=["train_loss"])
    evaluated = _complete(by_round(run)).dropna(subset=["test_loss"])
    panels = [
        (table, name, label)
        for table, name, label in (
            (training, "train_loss", "training loss"),
            (evaluated, "test_loss", _loss_label(run)),
        )
        if len(table)
    ]
    if not panels:
        return None
    figure, all_axes = new_figure(len(panels))
    drawn: dict[str, ArmStyle] = {}
    for axes, (table, name, label) in zip(all_axes, panels, strict=True):
        for arm, style, rows in _by_arm(run, table):
            drawn[arm] = style
            curve = across_seeds(rows, ["arm", "round"], [name])
            draw_curve(axes, curve, "round", name, style, seeds=rows)
        log_y(axes)
        fit_y(axes, lowest=0.0)
        round_axis(axes)
        axes.set_ylabel(label)
    arm_legend(figure, list(drawn.values()))
    return figure


def final_distribution(run: Run) -> Figure | None:
    """Final scores of all nodes of all seeds: a box and the nodes themselves, one row per arm."""
    scores = final_scores(run).dropna(subset=["score"])
    rows = [
        (style, part["score"].to_numpy(dtype=np.float64) * _scale(run))
        for _, style, part in _by_arm(run, scores)
    ]
    if not rows:
        return None
    figure, (axes,) = new_figure(height=1.1 + 0.42 * len(rows))
    for place, (style, values) in enumerate(rows):
        height = len(rows) - 1 - place
        # Golden-ratio steps spread dots evenly without a random draw.
        shift = ((np.arange(len(values)) * 0.6180339887) % 1.0 - 0.5) * 0.46
        axes.plot(
            values,
            height + shift,
            ".",
            color=style.color,
            markersize=3.5,
            alpha=0.55,
            markeredgewidth=0,
            clip_on=False,
        )
        axes.boxplot(
            [values],
            positions=[height],
            orientation="horizontal",
            widths=0.56,
            whis=(5, 95),
            showfliers=False,
            showmeans=True,
            meanline=True,
            manage_ticks=False,
            boxprops={"color": style.color},
            whiskerprops={"color": style.color},
            capprops={"color": style.color},
            medianprops={"color": style.color, "linewidth": 1.0},
            meanprops={"color": GREY, "linewidth": 2.0, "linestyle": "-"},
        )
    axes.set_yticks(range(len(rows)), [style.label for style, _ in reversed(rows)])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlim(limits(np.concatenate([values for _, values in rows]), *_score_range(run)))
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(f"{_score_label(run, direction=False)} of a node at the end")
    return figure


def _rounds_figure(
    run: Run,
    name: str,
    label: str,
    *,
    dashed: str | None = None,
    scale: float = 1.0,
    table: pd.DataFrame | None = None,
    log: bool = False,
    within: tuple[float, float] = (0.0, math.inf),
) -> Figure | None:
    table = _complete(by_round(run)) if table is None else table
    names = [name, *([dashed] if dashed else [])]
    if not table[names].notna().any(axis=None):
        return None
    figure, (axes,) = new_figure()
    drawn = []
    for _, style, rows in _by_arm(run, table):
        curve = across_seeds(rows, ["arm", "round"], names)
        drawn.append(_entry(style, curve[name]))
        draw_curve(axes, curve, "round", name, style, seeds=rows, scale=scale)
        if dashed:
            draw_curve(axes, curve, "round", dashed, style, scale=scale, dashed=True)
    round_axis(axes)
    axes.set_ylabel(label)
    both = dashed is not None and bool(table[dashed].notna().any())
    return _finished(figure, axes, drawn, dashed=both, log=log, within=within)


def _finished(
    figure: Figure,
    axes: Axes,
    drawn: list[ArmStyle],
    *,
    within: tuple[float, float],
    dashed: bool = False,
    log: bool = False,
) -> Figure:
    if log:
        log_y(axes)
    fit_y(axes, *within)
    if dashed:
        line_legend(axes, _BOTH)
    arm_legend(figure, drawn)
    return figure


def _by_arm(run: Run, table: pd.DataFrame) -> Iterator[tuple[str, ArmStyle, pd.DataFrame]]:
    for arm, style in arm_styles(run.arms).items():
        rows = table[table["arm"] == arm]
        if len(rows):
            yield arm, style, rows


def _entry(style: ArmStyle, curve: pd.Series[float]) -> ArmStyle:
    """An arm without a single finite point keeps its place in the legend, with the reason."""
    return style if curve.notna().any() else replace(style, label=f"{style.label} (not finite)")


def _complete(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["complete"]].copy()


def _scale(run: Run) -> float:
    return 100.0 if run.metric.percent else 1.0


def _score_range(run: Run) -> tuple[float, float]:
    low, high = run.metric.range
    return low * _scale(run), high * _scale(run)


def split_of(run: Run) -> str:
    splits = curve_rows(run.evaluations)["split"]
    return str(splits.iloc[0]) if len(splits) else "test"


def _score_label(run: Run, *, direction: bool = True) -> str:
    better = " (lower is better)" if direction and run.metric.higher_is_better is False else ""
    return f"{split_of(run)} {run.metric.title}{' (%)' if run.metric.percent else better}"


def _loss_label(run: Run) -> str:
    return f"{split_of(run)} loss"
