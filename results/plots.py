"""Figures over local rounds and at the end: each function draws one, or returns None without data for it.

All of them use matplotlib's object interface, so that drawing changes no state of the process. Curves are
means over seeds of means over nodes; the band is the 95 % t-interval over seeds, absent for a single seed,
and cut at the axes, whose limits follow from what was measured alone.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from results.compare import final_scores
from results.grid import by_common_round
from results.metrics import across_seeds, by_round, training_loss
from results.pace import uneven_arms
from results.panels import (
    by_arm,
    complete,
    entry,
    finished,
    loss_label,
    score_label,
    score_range,
    shown_scale,
)
from results.read import Run
from results.style import GREY, ArmStyle, arm_legend, draw_curve, fit_y, limits, log_y, new_figure, round_axis


def score_over_rounds(run: Run) -> Figure | None:
    """node_avg (solid, band) and avg_model (dashed) over local rounds.

    No avg_model of arms whose nodes end with different numbers of rounds: there is none of a common round.
    """
    label, within = score_label(run), score_range(run)
    table = complete(by_common_round(run))
    table.loc[table["arm"].isin(uneven_arms(run)), "avg_model"] = np.nan
    return _rounds_figure(
        run, "node_avg", label, dashed="avg_model", scale=shown_scale(run), table=table, within=within
    )


def spread_over_rounds(run: Run) -> Figure | None:
    """node_std over local rounds."""
    label = f"std over nodes{' (percentage points)' if run.metric.percent else ''}"
    if not any(job.nodes > 1 for job in run.jobs):
        return None
    low, high = score_range(run)
    # No spread is larger than that of nodes of which half are at either end.
    return _rounds_figure(run, "node_std", label, scale=shown_scale(run), within=(0.0, (high - low) / 2))


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
    evaluated = complete(by_common_round(run)).dropna(subset=["test_loss"])
    panels = [
        (table, name, label)
        for table, name, label in (
            (training, "train_loss", "training loss"),
            (evaluated, "test_loss", loss_label(run)),
        )
        if len(table)
    ]
    if not panels:
        return None
    figure, all_axes = new_figure(len(panels))
    drawn: dict[str, ArmStyle] = {}
    for axes, (table, name, label) in zip(all_axes, panels, strict=True):
        for arm, style, rows in by_arm(run, table):
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
        (style, part["score"].to_numpy(dtype=np.float64) * shown_scale(run))
        for _, style, part in by_arm(run, scores)
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
    axes.set_xlim(limits(np.concatenate([values for _, values in rows]), *score_range(run)))
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(f"{score_label(run, direction=False)} of a node at the end")
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
    table = complete(by_common_round(run)) if table is None else table
    names = [name, *([dashed] if dashed else [])]
    if not table[names].notna().any(axis=None):
        return None
    figure, (axes,) = new_figure()
    drawn = []
    for _, style, rows in by_arm(run, table):
        curve = across_seeds(rows, ["arm", "round"], names)
        drawn.append(entry(style, curve[name]))
        draw_curve(axes, curve, "round", name, style, seeds=rows, scale=scale)
        if dashed and curve[dashed].notna().any():
            draw_curve(axes, curve, "round", dashed, style, scale=scale, dashed=True)
    round_axis(axes)
    axes.set_ylabel(label)
    both = dashed is not None and bool(table[dashed].notna().any())
    return finished(figure, axes, drawn, dashed=both, log=log, within=within)
