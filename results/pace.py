"""Whether the nodes of an arm keep pace: which arms are asynchronous, and how many rounds their nodes did."""

from __future__ import annotations

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
    """Arms of which nodes of one job end with different numbers of rounds.

    Jobs that were cut short do not count: there, synchronous nodes differ too.
    """
    last = _at_the_end(run).groupby(JOB, observed=True, sort=True)["round"]
    differ = (last.max() > last.min()).rename("differ").reset_index()
    return frozenset(str(arm) for arm in differ.loc[differ["differ"], "arm"])


def asynchronous_arms(run: Run) -> frozenset[str]:
    """Arms whose nodes do not wait for each other's rounds, by what their logs show.

    Any of these tells: messages were aggregated in a later round than they were made in, or have no age
    (pairs that average models as they are; synchronous algorithms give an age of 0); nodes end with different
    numbers of rounds; nodes finish one round further apart in time than as many rounds as there are nodes,
    which no graph lets synchronous nodes do.
    """
    rounds = run.rounds
    found = set(uneven_arms(run))
    for arm, rows in rounds.groupby("arm", observed=True, sort=True):
        ages = rows["staleness"]
        ageless = ages.isna().all() and bool((rows["aggregated"] > 0).any())
        if ageless or bool((ages > 0).any()):
            found.add(str(arm))
    for job in run.jobs:
        rows = rounds[(rounds["arm"] == job.arm) & (rounds["seed"] == job.seed)]
        if job.nodes > 1 and _drift(rows, job.nodes) > job.nodes:
            found.add(job.arm)
    return frozenset(found)


def _drift(rows: pd.DataFrame, nodes: int) -> float:
    """Largest time between the first and the last node's end of a round, in lengths of the longest round."""
    groups = rows.groupby("round", sort=True)["time_s"]
    apart = (groups.max() - groups.min())[groups.count() == nodes].max()
    longest = rows.sort_values(["node", "round"]).groupby("node")["time_s"].diff().max()
    return float(apart / longest) if longest > 0 else 0.0


def _at_the_end(run: Run) -> pd.DataFrame:
    whole = [(job.arm, job.seed) for job in run.jobs if job.nodes and job.ended >= job.nodes]
    last = last_counters(run)
    mine = [pair in set(whole) for pair in zip(last["arm"], last["seed"], strict=True)]
    return last[mine]
