"""Numbers as people read them: units, decimals, intervals. Used by the terminal and by the report."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from results.compare import FINAL, NOTHING, best_arms, comparison, per_seed
from results.read import Metric, Run

DASH, MINUS = "\u2013", "\u2212"
# With 3 values the 95 % t-interval is 4.3 standard errors to either side, with 2 it is 12.7; with 5, 2.8.
FEW_SEEDS = 3


@dataclass(frozen=True)
class Quantity:
    """How one column is shown.

    Attributes:
        title: heading, with the unit.
        scale: what values are multiplied with.
        decimals: after the point.
    """

    title: str
    scale: float = 1.0
    decimals: int = 2

    def value(self, number: float | None) -> str:
        """One number; a dash for none."""
        if number is None or math.isnan(number):
            return DASH
        shown = f"{number * self.scale:,.{self.decimals}f}".replace(",", "\u202f")
        # A value of -0.00 is a zero that a sum left behind.
        zero = not any(digit in shown for digit in "123456789")
        return shown.removeprefix("-") if zero else shown.replace("-", MINUS)

    def interval(self, number: float | None, half: float | None) -> str:
        """``mean ± half-width``; the bare number where there is no interval, never a width rounded to 0."""
        if number is None or math.isnan(number) or half is None or math.isnan(half):
            return self.value(number)
        smallest = 0.5 * 10**-self.decimals
        width = half * self.scale
        shown = self.value(half)
        if 0 < width < smallest:
            shown = f"<{self.value(10**-self.decimals / self.scale)}"
        return f"{self.value(number)} ± {shown}"


def quantities(metric: Metric) -> dict[str, Quantity]:
    """How the columns of ``compare`` are shown for this metric, in the order of the tables."""
    unit, scale, decimals = (" (%)", 100.0, 2) if metric.percent else ("", 1.0, 4)
    spread = Quantity("node_std (pp)" if metric.percent else "node_std", scale, decimals)
    return {
        "node_avg": Quantity(f"node_avg{unit}", scale, decimals),
        "node_std": spread,
        "avg_model": Quantity(f"avg_model{unit}", scale, decimals),
        "consensus": Quantity("consensus distance", 1.0, 4),
        "best": Quantity(f"best node{unit}", scale, decimals),
        "worst": Quantity(f"worst node{unit}", scale, decimals),
        "bytes_per_node": Quantity("sent per node (MB)", 1e-6, 1),
        "rounds": Quantity("rounds", 1.0, 0),
        "time_s": Quantity("time (s)", 1.0, 1),
        "wall_s": Quantity("wall time (s)", 1.0, 1),
    }


def difference(metric: Metric, statistic: str) -> Quantity:
    """How a paired difference of ``statistic`` is shown: percentage points for shares."""
    shown = quantities(metric)[statistic]
    return Quantity(f"{statistic} (pp)" if metric.percent else statistic, shown.scale, shown.decimals)


def basis_of(row: pd.Series) -> str:
    """Where a row of ``compare`` was measured, in words."""
    if row["basis"] == FINAL:
        return "end"
    return NOTHING if row["basis"] == NOTHING else f"round {row['round']:.0f}, not the end"


def diverged(row: pd.Series) -> str:
    """How many of an arm's nodes have a score that is not finite, counted once per seed."""
    return f"{row['nonfinite']:.0f} of {row['nodes']:.0f} nodes diverged"


def clock_of(run: Run) -> str:
    """The clock behind ``time_s`` as the manifest names it: ``wall``, ``virtual (inline)``; empty without."""
    clock = run.manifest.get("clock")
    return clock if isinstance(clock, str) else ""


def time_label(run: Run) -> str:
    """Label of a time axis: ``time (wall clock, s)``; how a virtual clock is kept is left to the tables."""
    kind = clock_of(run).partition(" (")[0]
    return f"time ({kind} clock, s)" if kind else "time (s)"


def few_seeds(table: pd.DataFrame) -> str:
    """A sentence on the intervals in ``compare.comparison`` where an arm has at most three seeds."""
    counts = table.loc[table["n"] > 0, "n"]
    if not len(counts) or counts.min() > FEW_SEEDS:
        return ""
    seeds = "one seed" if counts.min() == 1 else f"{counts.min()} seeds"
    reason = "there is no interval" if counts.min() == 1 else "intervals are wide"
    # An arm that lost its seeds to a failure needs no other option.
    advice = "; use --seeds 1,2,3,4,5" if table["seeds"].min() <= FEW_SEEDS else ""
    return f"With so few seeds ({seeds}) {reason}{advice}."


def terminal_rows(run: Run) -> tuple[list[str], list[list[str]]]:
    """Headings and one row of strings per arm, for a table in the terminal.

    The best value of a column ends in ``*`` (see ``compare.best_arms``); arms that are incomplete, or
    measured elsewhere than at their end, say so in the last column.
    """
    shown = quantities(run.metric)
    names = [name for name in shown if name != "time_s"]
    table = comparison(run)
    best = best_arms(run, table)
    rows = []
    for _, row in table.iterrows():
        cells = [str(row["arm"]), f"{row['n']}/{row['seeds']}"]
        for name in names:
            mark = " *" if best.get(name) == row["arm"] else ""
            cells.append(shown[name].interval(row[name], row[f"{name}_ci"]) + mark)
        remarks = [] if row["basis"] == FINAL else [basis_of(row)]
        remarks += [diverged(row)] if row["nonfinite"] else []
        cells.append("; ".join((["yes"] if row["complete"] else ["no"]) + remarks))
        rows.append(cells)
    return ["arm", "seeds", *(shown[name].title for name in names), "complete"], rows


def seed_rows(run: Run) -> tuple[list[str], list[list[str]]]:
    """Headings and one row of strings per (arm, seed)."""
    shown = quantities(run.metric)
    rows = []
    for _, row in per_seed(run).iterrows():
        cells = [str(row["arm"]), str(row["seed"]), str(row["state"]), basis_of(row)]
        rows.append([*cells, *(quantity.value(row[name]) for name, quantity in shown.items())])
    return ["arm", "seed", "state", "measured at", *(quantity.title for quantity in shown.values())], rows
