"""The figures of a run: each function draws one, or returns None where the run has nothing to draw in it.

All of them use matplotlib's object interface, so that drawing changes no state of the process. Curves are
means over seeds of means over nodes; the band is the 95 % t-interval over seeds, absent for a single seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from results.compare import final_scores
from results.metrics import JOB, across_seeds, by_round, curve_rows, final_rows, grid_of, on_grid, training_loss
from results.read import Run
from results.style import GREY, ArmStyle, add_legend, arm_styles, draw_curve, fit_y, log_y, new_figure, round_axis
from results.tables import clock_of

_BOTH = (("-", "mean over nodes (node_avg)"), ((0, (4, 2)), "mean model (avg_model)"))


@dataclass(frozen=True)
class Drawn:
    """A figure with its file name, a title and a caption that says what is plotted and how."""

    name: str
    title: str
    caption: str
    figure: Figure


def draw_all(run: Run) -> list[Drawn]:
    """All figures that the run has data for, in the order of the report."""
    measured = _measured_on(run)
    band = _band(run)
    clock = {"emulated": "emulated", "real": "real"}.get(clock_of(run), "the run's own")
    plan: list[tuple[str, str, Callable[[Run], Figure | None], str]] = [
        (
            "score_rounds",
            f"{_capital(run.metric.title)} over local rounds",
            score_over_rounds,
            f"Solid: mean over nodes of each node's score. Dashed: score of the mean model. {measured} {band}",
        ),
        (
            "score_time",
            f"{_capital(run.metric.title)} over time",
            score_over_time,
            f"Mean over nodes; at every point in time each node counts with its last evaluation at or before it. "
            f"Time is {clock} seconds since the start barrier; evaluation takes none. {band}",
        ),
        (
            "score_bytes",
            f"{_capital(run.metric.title)} over traffic",
            score_over_bytes,
            "Solid: mean over nodes. Dashed: mean model. Horizontal: payload bytes that a node had sent, mean over "
            f"nodes, at the same evaluations; headers are not counted. 1 MB is 10\u2076 bytes. {band}",
        ),
        (
            "spread_rounds",
            "Spread over nodes",
            spread_over_rounds,
            f"Population standard deviation of the score over nodes. {band}",
        ),
        (
            "final_distribution",
            "Scores of all nodes at the end",
            final_distribution,
            "One dot is one node of one seed. Box: quartiles and median; whiskers: 5th and 95th percentile; bar: "
            f"mean. {_final_on(run)}",
        ),
        (
            "consensus_rounds",
            "Consensus distance",
            consensus_over_rounds,
            "Mean over nodes of the l2 distance (not squared) between a node's model and the mean model, all "
            f"parameters; a distance of 0 (common initial model) has no place on a logarithmic axis. {band}",
        ),
        (
            "loss_rounds",
            "Loss",
            loss_over_rounds,
            f"Left: training loss during each local round. Right: loss at evaluations. Means over nodes. {band}",
        ),
    ]
    figures = ((name, title, caption, draw(run)) for name, title, draw, caption in plan)
    return [Drawn(name, title, caption, figure) for name, title, caption, figure in figures if figure is not None]


def score_over_rounds(run: Run) -> Figure | None:
    """node_avg (solid, band) and avg_model (dashed) over local rounds."""
    return _rounds_figure(run, "node_avg", _score_label(run), dashed="avg_model", scale=_scale(run))


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
    for arm, style, rows in _by_arm(run, table):
        curve = across_seeds(rows, ["arm", "round"], ["node_avg", "avg_model", "sent"])
        drawn.append(style)
        draw_curve(axes, curve, "sent", "node_avg", style, scale=_scale(run))
        draw_curve(axes, curve, "sent", "avg_model", style, scale=_scale(run), dashed=True)
        del arm
    axes.set_xlabel(f"payload sent per node ({unit})")
    axes.set_ylabel(_score_label(run))
    return _finished(figure, axes, drawn, dashed=table["avg_model"].notna().any())


def score_over_time(run: Run) -> Figure | None:
    """node_avg over the run's clock, each node with its last evaluation at or before each point."""
    figure, (axes,) = new_figure()
    drawn = []
    for arm, style in arm_styles(run.arms).items():
        table = _complete(on_grid(run, grid_of(run, arm), arms=[arm]))
        if table["node_avg"].notna().any():
            drawn.append(style)
            curve = across_seeds(table, ["arm", "time_s"], ["node_avg"])
            draw_curve(axes, curve, "time_s", "node_avg", style, scale=_scale(run))
    clock = clock_of(run)
    axes.set_xlabel("time (s)" if clock == "run" else f"{clock} time (s)")
    axes.set_ylabel(_score_label(run))
    return _finished(figure, axes, drawn) if drawn else None


def spread_over_rounds(run: Run) -> Figure | None:
    """node_std over local rounds."""
    unit = " (percentage points)" if run.metric.percent else ""
    label = f"std of {run.metric.title} over nodes{unit}"
    if not any(job.nodes > 1 for job in run.jobs):
        return None
    return _rounds_figure(run, "node_std", label, scale=_scale(run))


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
        for table, name, label in ((training, "train_loss", "training loss"), (evaluated, "test_loss", _loss_label(run)))
        if len(table)
    ]
    if not panels:
        return None
    figure, all_axes = new_figure(len(panels))
    drawn: dict[str, ArmStyle] = {}
    for axes, (table, name, label) in zip(all_axes, panels, strict=True):
        for arm, style, rows in _by_arm(run, table):
            drawn[arm] = style
            draw_curve(axes, across_seeds(rows, ["arm", "round"], [name]), "round", name, style)
        if not log_y(axes):
            fit_y(axes)
        round_axis(axes)
        axes.set_ylabel(label)
    add_legend(figure, list(drawn.values()))
    return figure


def final_distribution(run: Run) -> Figure | None:
    """Final scores of all nodes of all seeds: a box and the nodes themselves, one row per arm."""
    scores = final_scores(run).dropna(subset=["score"])
    rows = [(style, part["score"].to_numpy(dtype=np.float64) * _scale(run)) for _, style, part in _by_arm(run, scores)]
    if not rows:
        return None
    figure, (axes,) = new_figure(height=1.1 + 0.42 * len(rows))
    for place, (style, values) in enumerate(rows):
        height = len(rows) - 1 - place
        # Golden-ratio steps spread dots evenly without a random draw.
        shift = ((np.arange(len(values)) * 0.6180339887) % 1.0 - 0.5) * 0.46
        axes.plot(values, height + shift, ".", color=style.color, markersize=3.5, alpha=0.55, markeredgewidth=0)
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
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(f"{_score_label(run)} of a node at the end")
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
) -> Figure | None:
    table = _complete(by_round(run)) if table is None else table
    names = [name, *([dashed] if dashed else [])]
    if not table[names].notna().any(axis=None):
        return None
    figure, (axes,) = new_figure()
    drawn = []
    for _, style, rows in _by_arm(run, table):
        drawn.append(style)
        curve = across_seeds(rows, ["arm", "round"], names)
        draw_curve(axes, curve, "round", name, style, scale=scale)
        if dashed:
            draw_curve(axes, curve, "round", dashed, style, scale=scale, dashed=True)
    round_axis(axes)
    axes.set_ylabel(label)
    return _finished(figure, axes, drawn, dashed=dashed is not None and table[dashed].notna().any(), log=log)


def _finished(
    figure: Figure, axes: Axes, drawn: list[ArmStyle], *, dashed: bool = False, log: bool = False
) -> Figure:
    if not (log and log_y(axes)):
        fit_y(axes)
    add_legend(figure, drawn, _BOTH if dashed else ())
    return figure


def _by_arm(run: Run, table: pd.DataFrame) -> Iterator[tuple[str, ArmStyle, pd.DataFrame]]:
    for arm, style in arm_styles(run.arms).items():
        rows = table[table["arm"] == arm]
        if len(rows):
            yield arm, style, rows


def _complete(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["complete"]].copy()


def _scale(run: Run) -> float:
    return 100.0 if run.metric.percent else 1.0


def _split(run: Run) -> str:
    splits = curve_rows(run.evaluations)["split"]
    return str(splits.iloc[0]) if len(splits) else "test"


def _score_label(run: Run) -> str:
    better = {True: "", False: ", lower is better", None: ""}[run.metric.higher_is_better]
    return f"{_split(run)} {run.metric.title}{' (%)' if run.metric.percent else better}"


def _loss_label(run: Run) -> str:
    return f"{_split(run)} loss"


def _capital(title: str) -> str:
    return title[:1].upper() + title[1:]


def _band(run: Run) -> str:
    counts = sorted(set(run.evaluations.groupby("arm", observed=True)["seed"].nunique()))
    if not counts or counts == [1]:
        return "One seed: no interval."
    seeds = "–".join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))
    return f"Mean over n = {seeds} seeds; band: 95 % t-interval over seeds; dotted: where fewer seeds got that far."


def _measured_on(run: Run) -> str:
    rows = curve_rows(run.evaluations)
    samples = sorted(set(rows.loc[~rows["final"], "samples"].dropna()))
    count = f"{samples[0]:,.0f} fixed rows of the" if len(samples) == 1 else "the"
    return f"Models are evaluated after aggregation on {count} {_split(run)} split."


def _final_on(run: Run) -> str:
    finals = final_rows(run.evaluations)
    return f"Final evaluation, whole {finals['split'].iloc[0]} split." if len(finals) else "At the last common round."


__all__ = [
    "JOB",
    "Drawn",
    "consensus_over_rounds",
    "draw_all",
    "final_distribution",
    "loss_over_rounds",
    "score_over_bytes",
    "score_over_rounds",
    "score_over_time",
    "spread_over_rounds",
]
