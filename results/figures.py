"""Which figures a report has, and what their captions say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from results import plots
from results.metrics import JOB, curve_rows, final_rows
from results.read import Run
from results.style import SEEDS_DRAWN


@dataclass(frozen=True)
class Drawn:
    """A figure with its file name, a title and a caption that says what is plotted and how."""

    name: str
    title: str
    caption: str
    figure: Figure


def draw_all(run: Run) -> list[Drawn]:
    """All figures that the run has data for, in the order of the report."""
    band = _band(run)
    score = run.metric.title[:1].upper() + run.metric.title[1:]
    plan: list[tuple[str, str, Callable[[Run], Figure | None], str]] = [
        (
            "score_rounds",
            f"{score} over local rounds",
            plots.score_over_rounds,
            "Solid: mean over nodes of each node's score. Dashed: score of the mean model. "
            f"{_measured_on(run)} {band}",
        ),
        (
            "score_time",
            f"{score} over time",
            plots.score_over_time,
            "Mean over nodes; at every point in time each node counts with its last evaluation at or before "
            f"it. Time is the run's clock since the start barrier, evaluation left out. {band}",
        ),
        (
            "score_bytes",
            f"{score} over traffic",
            plots.score_over_bytes,
            "Solid: mean over nodes. Dashed: mean model. Horizontal: payload bytes that a node had sent, "
            f"mean over nodes, at the same evaluations, without headers. 1 MB is 10\u2076 bytes. {band}",
        ),
        (
            "spread_rounds",
            "Spread over nodes",
            plots.spread_over_rounds,
            f"Population standard deviation of the score over nodes. {band}",
        ),
        (
            "final_distribution",
            "Scores of all nodes at the end",
            plots.final_distribution,
            "One dot is one node of one seed. Box: quartiles and median; whiskers: 5th and 95th percentile; "
            f"thick bar: mean. {_final_on(run)}",
        ),
        (
            "consensus_rounds",
            "Consensus distance",
            plots.consensus_over_rounds,
            "Mean over nodes of the l2 distance (not squared) between a node's model and the mean model, "
            f"over all parameters. Points at a distance of 0 (common initial model) are not drawn. {band}",
        ),
        (
            "loss_rounds",
            "Loss",
            plots.loss_over_rounds,
            "Left: training loss during each local round. Right: loss at evaluations. Means over nodes. "
            f"{band}",
        ),
    ]
    figures = ((name, title, caption, draw(run)) for name, title, draw, caption in plan)
    return [
        Drawn(name, title, caption, figure) for name, title, caption, figure in figures if figure is not None
    ]


def _band(run: Run) -> str:
    jobs = pd.concat([run.evaluations[JOB], run.rounds[JOB]])
    counts = sorted(set(jobs.groupby("arm", observed=True)["seed"].nunique()))
    if not counts or counts == [1]:
        return "One seed: no interval."
    seeds = "\u2013".join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))
    thin = "thin lines: single seeds; " if set(counts) & set(SEEDS_DRAWN) else ""
    return (
        f"Mean over n = {seeds} seeds; {thin}band: 95 % t-interval, cut where it leaves the axes; "
        "dotted: where fewer seeds got that far."
    )


def _measured_on(run: Run) -> str:
    rows = curve_rows(run.evaluations)
    samples = sorted(set(rows.loc[~rows["final"], "samples"].dropna()))
    count = f"{samples[0]:,.0f} fixed rows of the" if len(samples) == 1 else "the"
    return f"Models are evaluated after aggregation on {count} {plots.split_of(run)} split."


def _final_on(run: Run) -> str:
    finals = final_rows(run.evaluations)
    return (
        f"Final evaluation, whole {finals['split'].iloc[0]} split."
        if len(finals)
        else "At the last common round."
    )
