"""What became of messages, how busy uplinks were and how old what was aggregated is.

Sums over all links of a job come from ``network.jsonl``, where made = delivered + replaced + dropped + in
flight holds link by link. *Attempted* is what algorithms handed to the network; *sent* is what left an uplink
whole, lost messages included; *delivered* arrived and was not superseded before it was used (*replaced*).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pandas as pd

from results.metrics import JOB, across_seeds, last_counters
from results.network import LINK_COUNTERS
from results.read import Run

# Rates of one class scatter by a few percent; stragglers are slower by a factor.
_CLASS_RATIO = 1.5
FAST, SLOW, ALIKE, UNLIMITED = "fast", "slow", "all", "unlimited"


def accounting(run: Run) -> pd.DataFrame:
    """One row per job with a network log: ``network.LINK_COUNTERS`` summed over its links, and what was sent.

    Nodes are those that it tells of: of one that was killed in real time nobody knows what became of its
    messages, so that neither they nor what its log counts is in any column.

    Returns:
        arm, seed, nodes, the counters, ``sent`` (messages, as the nodes count them; NaN where they do not)
        and ``sent_bytes``.
    """
    groups = run.network.links.groupby(JOB, observed=True, sort=True)
    table = groups[list(LINK_COUNTERS)].sum().reset_index()
    uplinks = run.network.uplinks.groupby(JOB, observed=True, sort=True)
    sent = uplinks["sent_bytes"].sum(min_count=1).reset_index()
    told = run.network.uplinks[[*JOB, "node"]].drop_duplicates()
    counters = last_counters(run).merge(told, on=[*JOB, "node"])
    messages = counters.groupby(JOB, observed=True, sort=True)["sent"].sum(min_count=1)
    table = table.merge(sent, on=JOB, how="left").merge(messages.reset_index(), on=JOB, how="left")
    counts = told.groupby(JOB, observed=True, sort=True).size().rename("nodes")
    table = table.merge(counts.reset_index(), on=JOB, how="left")
    table.insert(2, "nodes", table.pop("nodes"))
    return table


def accounting_over_seeds(run: Run) -> pd.DataFrame:
    """``accounting`` per arm: n (jobs) and means over them."""
    return across_seeds(accounting(run), ["arm"], [*LINK_COUNTERS, "sent", "sent_bytes", "nodes"])


def bytes_per_node(run: Run) -> pd.DataFrame:
    """Per job: arm, seed, ``made_per_node`` and ``delivered_per_node``, payload bytes as means over nodes.

    From the accounting of its links; without one, attempts as the nodes count them and no deliveries (NaN).
    """
    attempts = last_counters(run).groupby(JOB, observed=True, sort=True)["made_bytes"]
    counted = attempts.mean().where(attempts.count() == attempts.size()).rename("counted").reset_index()
    links = accounting(run)
    for name in ("made", "delivered"):
        links[f"{name}_per_node"] = links[f"{name}_bytes"] / links["nodes"]
    table = counted.merge(links[[*JOB, "made_per_node", "delivered_per_node"]], on=JOB, how="outer")
    return table.assign(made_per_node=table["made_per_node"].fillna(table["counted"])).drop(columns="counted")


def uplinks_by_class(run: Run) -> pd.DataFrame:
    """``Network.uplinks`` with ``rate_class``: ``FAST`` and ``SLOW`` where an arm's rates fall apart.

    They do where, sorted, two neighbors differ by a factor of 1.5 or more; the largest factor divides them.
    ``ALIKE`` where they do not, ``UNLIMITED`` where the uplink is not limiting.
    """
    table = run.network.uplinks.copy()
    table["rate_class"] = UNLIMITED
    for _, rows in table.groupby("arm", observed=True, sort=True):
        rates = rows["rate_bps"].dropna()
        threshold = rate_threshold(np.unique(rates.to_numpy(dtype=np.float64)))
        names = np.where(rates >= threshold, FAST, SLOW) if math.isfinite(threshold) else ALIKE
        table.loc[rates.index, "rate_class"] = names
    return table


def rate_threshold(rates: npt.NDArray[np.float64]) -> float:
    """Smallest rate of the faster class; infinite where there is one class."""
    if len(rates) < 2 or rates[0] <= 0:
        return math.inf
    ratios = rates[1:] / rates[:-1]
    widest = int(ratios.argmax())
    return float(rates[widest + 1]) if ratios[widest] >= _CLASS_RATIO else math.inf


def utilisation(run: Run) -> pd.DataFrame:
    """Busy share of uplinks by arm and rate class, over all nodes and seeds, faster classes first.

    Returns:
        arm, rate_class, nodes (uplinks, counted once per seed), ``slowest_bps`` and ``fastest_bps``, and of
        the utilisation ``mean``, ``low`` and ``high``.
    """
    table = uplinks_by_class(run)
    order = pd.CategoricalDtype([UNLIMITED, FAST, ALIKE, SLOW], ordered=True)
    table["rate_class"] = table["rate_class"].astype(order)
    groups = table.groupby(["arm", "rate_class"], observed=True, sort=True)
    rates = groups["rate_bps"].agg(slowest_bps="min", fastest_bps="max")
    busy = groups["utilisation"].agg(nodes="size", mean="mean", low="min", high="max")
    return pd.concat([rates, busy], axis=1).reset_index()


def staleness(run: Run) -> pd.DataFrame:
    """Mean age of what was aggregated, in rounds: arm, seed, round, ``staleness``, ``nodes`` (that did)."""
    groups = run.rounds.groupby([*JOB, "round"], observed=True, sort=True)["staleness"]
    table = groups.mean().to_frame()
    table["nodes"] = groups.count()
    return table.dropna(subset=["staleness"]).reset_index()


def staleness_over_seeds(run: Run) -> pd.DataFrame:
    """Per arm, over all rounds of all nodes: means over seeds with ``_ci``, and n.

    Returns:
        arm, n, ``mean``, ``p95``, ``largest`` (NaN where nothing that was aggregated has an age), and
        ``idle``, the share of rounds in which a node aggregated nothing (NaN where the logs do not count it).
    """
    rounds = run.rounds.sort_values([*JOB, "node", "round"], kind="stable")
    aggregated = rounds["aggregated"]
    before = rounds.groupby([*JOB, "node"], observed=True)["aggregated"].shift(fill_value=0.0)
    idle = (aggregated <= before).astype(np.float64).where(aggregated.notna() & before.notna())
    groups = rounds.assign(idle=idle).groupby(JOB, observed=True, sort=True)
    age = groups["staleness"]
    ages = {"mean": age.mean(), "p95": age.quantile(0.95), "largest": age.max()}
    table = pd.DataFrame({**ages, "idle": groups["idle"].mean()}).reset_index()
    return across_seeds(table, ["arm"], ["mean", "p95", "largest", "idle"])
