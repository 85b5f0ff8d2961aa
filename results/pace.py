"""Whether the nodes of an arm keep pace: which arms are asynchronous, and how many rounds their nodes did."""

from __future__ import annotations

import numpy as np
import pandas as pd

from results.metrics import JOB, last_counters
from results.read import Run


def rounds_range(run: Run) -> dict[str, tuple[int, int]]:
    """By arm, fewest and most local rounds that a node of a job with all its end events did."""
    last = _at_the_end(run).groupby("arm", observed=True, sort=True)["round"]
    return {
        str(arm): (int(low), int(high))
        for arm, low, high in zip(last.min().index, last.min(), last.max(), strict=True)
    }


def uneven_arms(run: Run) -> frozenset[str]:
    """Asynchronous arms of which nodes of one job end with different numbers of rounds.

    At a time limit nodes of synchronous arms end up to a graph's diameter apart, which is less than the
    number of nodes: so few tell only where ages of messages say the rest. Jobs that were cut short do not
    count.
    """
    last = _at_the_end(run).groupby(JOB, observed=True, sort=True)["round"]
    apart = pd.DataFrame({"apart": last.max() - last.min(), "nodes": last.size()}).reset_index()
    apart = apart[(apart["apart"] >= apart["nodes"]) | (apart["apart"] > 0) & apart["arm"].isin(_aged(run))]
    return frozenset(map(str, apart["arm"]))


def asynchronous_arms(run: Run) -> frozenset[str]:
    """Arms whose nodes do not wait for each other's rounds, by what their logs show.

    Any of these tells: messages were aggregated in a later round than they were made in, or have no age
    (pairs that average models as they are; synchronous algorithms give an age of 0); nodes end with, or
    finish one round in lengths of a round, further apart than as many rounds as there are nodes, which no
    graph lets synchronous nodes do.
    """
    found = set(uneven_arms(run) | _aged(run))
    for job in run.jobs:
        rows = run.rounds[(run.rounds["arm"] == job.arm) & (run.rounds["seed"] == job.seed)]
        if job.nodes > 1 and _drift(rows, job.nodes) > job.nodes:
            found.add(job.arm)
    return frozenset(found)


def _aged(run: Run) -> frozenset[str]:
    """Arms that aggregated what was older than the round, or had no age at all."""
    found = set()
    for arm, rows in run.rounds.groupby("arm", observed=True, sort=True):
        ages = rows["staleness"]
        ageless = ages.isna().all() and bool((rows["aggregated"] > 0).any())
        if ageless or bool((ages > 0).any()):
            found.add(str(arm))
    return frozenset(found)


def _drift(rows: pd.DataFrame, nodes: int) -> float:
    """Largest time between the first and the last node's end of a round, in lengths of the longest round."""
    groups = rows.groupby("round", sort=True)["time_s"]
    apart = (groups.max() - groups.min())[groups.count() == nodes].max()
    longest = rows.sort_values(["node", "round"]).groupby("node")["time_s"].diff().max()
    return float(apart / longest) if longest > 0 else 0.0


def _at_the_end(run: Run) -> pd.DataFrame:
    whole = {(job.arm, job.seed) for job in run.jobs if job.scored and job.ended >= job.scored}
    last = last_counters(run)
    pairs = zip(last["arm"], last["seed"], strict=True)
    # Typed, since an empty list would be read as one of columns.
    return last[np.array([pair in whole for pair in pairs], dtype=np.bool_)]
