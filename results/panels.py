"""What the figures of a run share: labels, ranges, arms in order, legends."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from results.metrics import curve_rows
from results.read import Run
from results.style import ArmStyle, arm_legend, arm_styles, fit_y, line_legend, log_y

BOTH = (("-", "mean over nodes (node_avg)"), ((0, (4, 2)), "mean model (avg_model)"))


def finished(
    figure: Figure,
    axes: Axes,
    drawn: list[ArmStyle],
    *,
    within: tuple[float, float],
    dashed: bool = False,
    log: bool = False,
) -> Figure:
    """``figure`` with its y axis fitted to ``within``, and legends for arms and, if ``dashed``, lines."""
    if log:
        log_y(axes)
    fit_y(axes, *within)
    if dashed:
        line_legend(axes, BOTH)
    arm_legend(figure, drawn)
    return figure


def by_arm(run: Run, table: pd.DataFrame) -> Iterator[tuple[str, ArmStyle, pd.DataFrame]]:
    """Name, style and rows of every arm in ``table``, in the order of the experiment."""
    for arm, style in arm_styles(run.arms).items():
        rows = table[table["arm"] == arm]
        if len(rows):
            yield arm, style, rows


def entry(style: ArmStyle, curve: pd.Series[float]) -> ArmStyle:
    """An arm without a single finite point keeps its place in the legend, with the reason."""
    return style if curve.notna().any() else replace(style, label=f"{style.label} (not finite)")


def complete(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of ``metrics.over_nodes`` in which all nodes count."""
    return table[table["complete"]].copy()


def shown_scale(run: Run) -> float:
    """What scores are multiplied with."""
    return 100.0 if run.metric.percent else 1.0


def score_range(run: Run) -> tuple[float, float]:
    """Lowest and highest possible score, as shown."""
    low, high = run.metric.range
    return low * shown_scale(run), high * shown_scale(run)


def split_of(run: Run) -> str:
    """The split that curves are measured on."""
    splits = curve_rows(run.evaluations)["split"]
    return str(splits.iloc[0]) if len(splits) else "test"


def score_label(run: Run, *, direction: bool = True) -> str:
    """Label of a score's axis; ``direction`` adds that lower is better where it is."""
    better = " (lower is better)" if direction and run.metric.higher_is_better is False else ""
    return f"{split_of(run)} {run.metric.title}{' (%)' if run.metric.percent else better}"


def loss_label(run: Run) -> str:
    """Label of an axis of losses at evaluations."""
    return f"{split_of(run)} loss"
