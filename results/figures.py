"""Which figures a report has, and what their captions say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from results import linkplots, plots, timeplots
from results.metrics import JOB, curve_rows, final_rows
from results.pace import asynchronous_arms, uneven_arms
from results.panels import split_of
from results.read import Run
from results.style import SEEDS_DRAWN
from results.tables import time_term
from results.target import target_of
from results.timeline import timeline


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
    target = target_of(run)
    origin = "" if target is None else target.origin
    apart = bool(asynchronous_arms(run))
    consensus = timeplots.consensus_over_time if apart else plots.consensus_over_rounds
    score = run.metric.title[:1].upper() + run.metric.title[1:]
    plan: list[tuple[str, str, Callable[[Run], Figure | None], str]] = [
        (
            "score_time",
            f"{score} over time",
            timeplots.score_over_time,
            "Mean over nodes; at every point in time each node counts with its last evaluation at or before "
            "it. All arms are read on one grid; lines join the points since the last of which a node of the "
            "arm was evaluated. "
            f"Time is {time_term(run)} since the start barrier, evaluation left out. {band}",
        ),
        (
            "time_to_target",
            "Time to target",
            timeplots.target_bars,
            "When the mean over nodes first was as good as the target, read at every evaluation of any "
            "node: mean over seeds, 95 % t-interval, and every seed as a dot. Open: never, though it ran "
            "that long. "
            f"{origin}",
        ),
        (
            "score_bytes",
            f"{score} over traffic",
            timeplots.score_over_bytes,
            "Solid: mean over nodes. Dashed, for at most four arms: mean model. Horizontal: payload bytes, "
            "mean over nodes, at the same evaluations, without headers. Attempted: handed to the network; "
            f"sent: left the node whole. 1 MB is 10\u2076 bytes. {band}",
        ),
        (
            "fates",
            "What became of messages",
            linkplots.fate_bars,
            "Shares of what was attempted; right: attempted per node. Payload bytes over all links, mean "
            "over seeds. Replaced: arrived, but superseded by a newer message before it was used. Dropped: "
            "by a flush of the sender's queue, by a flush in mid-transfer, by loss, at the end of the run.",
        ),
        (
            "utilisation",
            "Utilisation of uplinks",
            linkplots.utilisation_of_uplinks,
            "One mark is one node of one seed; bars are means. Share of the run in which it was busy.",
        ),
        (
            "staleness_rounds",
            "Staleness",
            timeplots.staleness_over_rounds,
            "Own round minus round of the message, mean over the messages that a node aggregated in a round "
            f"and over the nodes that aggregated any. Synchronous arms have none and are left out; so "
            f"are pairs that average models as they are at the exchange. {band}",
        ),
        (
            "score_rounds",
            f"{score} over local rounds",
            plots.score_over_rounds,
            "Solid: mean over nodes of each node's score. Dashed: score of the mean model. "
            f"{_measured_on(run)}{_own_rounds(run)} {band}",
        ),
        (
            "spread_rounds",
            "Spread over nodes",
            plots.spread_over_rounds,
            f"Population standard deviation of the score over nodes.{_common_times(run)} {band}",
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
            f"Consensus distance{' over time' if apart else ''}",
            consensus,
            "Mean over nodes of the l2 distance (not squared) between a node's model and the mean model, "
            "over all parameters. Points at a distance of 0 (common initial model) are not drawn. "
            f"{'Over time, since nodes of asynchronous arms share no rounds. ' if apart else ''}{band}",
        ),
        (
            "loss_rounds",
            "Loss",
            plots.loss_over_rounds,
            "Left: training loss during each local round. Right: loss at evaluations. Means over nodes."
            f"{_common_times(run)} {band}",
        ),
        (
            "timeline",
            "Computation and transfers",
            timeline,
            "The first seed of every arm; nodes with the fastest and the slowest uplinks. Upper bars: local "
            "training. Lower bars: transfers in progress on the node's uplink, one row for each at a time. "
            "Triangles: messages that were still queued and were dropped when the node refilled its queue.",
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


def _own_rounds(run: Run) -> str:
    """Sentences on arms of which nodes reach the same round at different times."""
    said = _common_times(run)
    if said:
        said += " No mean model of theirs is drawn."
    if asynchronous_arms(run) - uneven_arms(run):
        said += (
            f" {'Other asynchronous' if said else 'Asynchronous'} arms: a node counts at its own local "
            "round, mean models at common times, shown at the rounds that nominal compute times give then."
        )
    return said


def _common_times(run: Run) -> str:
    """A sentence on arms that are read at common times instead of common rounds."""
    if not uneven_arms(run):
        return ""
    return (
        " Arms whose nodes end with different numbers of rounds: at common times, each node with its last "
        "evaluation, shown at the rounds that nominal compute times give by then."
    )


def _measured_on(run: Run) -> str:
    rows = curve_rows(run.evaluations)
    samples = sorted(set(rows.loc[~rows["final"], "samples"].dropna()))
    count = f"{samples[0]:,.0f} fixed rows of the" if len(samples) == 1 else "the"
    return f"Models are evaluated after aggregation on {count} {split_of(run)} split."


def _final_on(run: Run) -> str:
    finals = final_rows(run.evaluations)
    return (
        f"Final evaluation, whole {finals['split'].iloc[0]} split."
        if len(finals)
        else "At the last common round."
    )
