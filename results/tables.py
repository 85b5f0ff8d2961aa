"""Numbers as people read them: units, decimals, intervals. Used by the terminal and by the report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from results.compare import COSTS, FINAL, NOTHING, STATISTICS, best_arms, comparison, per_seed
from results.fidelity import NOT_TRUSTWORTHY
from results.read import Metric, Run

DASH, MINUS = "\u2013", "\u2212"
# With 3 values the 95 % t-interval is 4.3 standard errors to either side, with 2 it is 12.7; with 5, 2.8.
FEW_SEEDS = 3
NEVER = "never"
TERMINAL_WIDTH = 120
# In a terminal the least important columns, those at the end, give way.
_PRIORITY = (
    *("node_avg", "time_to_target", "made_per_node", "delivered_per_node", "avg_model", "node_std"),
    *("bytes_per_node", "time_s", "wall_s", "rounds", "consensus", "best", "worst"),
)


@dataclass(frozen=True)
class Quantity:
    """How one column is shown.

    Attributes:
        title: heading, with the unit.
        scale: what values are multiplied with.
        decimals: after the point.
        digits: significant ones, where numbers of any size stand in a column: as many decimals as these take
            for the value, none beyond; 0: ``decimals`` holds.
    """

    title: str
    scale: float = 1.0
    decimals: int = 2
    digits: int = 0

    def value(self, number: float | None) -> str:
        """One number; a dash for none."""
        if number is None or math.isnan(number):
            return DASH
        if self.digits:
            return self._as_for(number).value(number)
        shown = f"{number * self.scale:,.{self.decimals}f}".replace(",", "\u202f")
        # A value of -0.00 is a zero that a sum left behind.
        zero = not any(digit in shown for digit in "123456789")
        return shown.removeprefix("-") if zero else shown.replace("-", MINUS)

    def interval(self, number: float | None, half: float | None) -> str:
        """``mean ± half-width``; the bare number where there is no interval, never a width rounded to 0."""
        if number is None or math.isnan(number) or half is None or math.isnan(half):
            return self.value(number)
        if self.digits:
            return self._as_for(number).interval(number, half)
        smallest = 0.5 * 10**-self.decimals
        width = half * self.scale
        shown = self.value(half)
        if 0 < width < smallest:
            shown = f"<{self.value(10**-self.decimals / self.scale)}"
        return f"{self.value(number)} ± {shown}"

    def _as_for(self, number: float) -> Quantity:
        """With the decimals that give ``number`` its significant digits."""
        size = abs(number * self.scale)
        whole = math.floor(math.log10(size)) if 0 < size < math.inf else 0
        return replace(self, decimals=max(0, self.digits - 1 - whole), digits=0)


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
        "made_per_node": Quantity("attempted per node (MB)", 1e-6, 1),
        "delivered_per_node": Quantity("delivered per node (MB)", 1e-6, 1),
        "bytes_per_node": Quantity("sent per node (MB)", 1e-6, 1),
        "rounds": Quantity("rounds", 1.0, 0),
        "time_s": Quantity("time (s)", digits=3),
        "wall_s": Quantity("wall time (s)", 1.0, 1),
    }


def difference(metric: Metric, statistic: str) -> Quantity:
    """How a paired difference of ``statistic`` is shown: percentage points for shares."""
    shown = quantities(metric)[statistic]
    return Quantity(f"{statistic} (pp)" if metric.percent else statistic, shown.scale, shown.decimals)


def present(run: Run, table: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """Those of the columns ``names`` of ``compare`` that a run has: older logs lack some."""
    always = {*STATISTICS, "bytes_per_node", "rounds", "time_s", "wall_s"}
    return [name for name in names if name in always or table[name].notna().any()]


def target_shown(run: Run, value: float) -> str:
    """A target as people read it: ``60 %`` or ``1.25``."""
    return f"{100 * value:g} %" if run.metric.percent else f"{value:g}"


def time_to_target_of(row: pd.Series, decimals: int = 1) -> str:
    """Seconds to target of a row of ``compare.comparison``; in words where a seed never got there."""
    known = row["reached"] + row["never"]
    if not known > 0:
        return DASH
    if row["never"] == known:
        return NEVER
    if row["never"] > 0:
        return f"{NEVER} in {row['never']:.0f} of {known:.0f}"
    return Quantity("", 1.0, decimals).interval(row["time_to_target"], row["time_to_target_ci"])


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
    """Label of a time axis: ``time (wall clock, s)``; ``emulated time (s)`` under a virtual clock."""
    kind = clock_of(run).partition(" (")[0]
    if kind == "virtual":
        return "emulated time (s)"
    return f"time ({kind} clock, s)" if kind else "time (s)"


def time_term(run: Run) -> str:
    """What sentences call the time of a run's logs."""
    return "emulated time" if clock_of(run).startswith("virtual") else "the run's clock"


def few_seeds(table: pd.DataFrame) -> str:
    """A sentence on the intervals in ``compare.comparison`` where an arm has at most three seeds."""
    counts = table.loc[table["n"] > 0, "n"]
    if not len(counts) or counts.min() > FEW_SEEDS:
        return ""
    # An arm that lost its seeds to a failure needs no other option.
    advice = "; use --seeds 1,2,3,4,5" if table["seeds"].min() <= FEW_SEEDS else ""
    if counts.max() == 1:
        return (
            "One seed per arm: there is no interval, so nothing can be said about the variation between runs"
            f"{advice}."
        )
    seeds = "one seed" if counts.min() == 1 else f"{counts.min()} seeds"
    reason = "there is no interval" if counts.min() == 1 else "intervals are wide"
    return f"With so few seeds ({seeds}) {reason}{advice}."


def terminal_rows(run: Run, width: int = TERMINAL_WIDTH) -> tuple[list[str], list[list[str]]]:
    """Headings and one row of strings per arm, for a table in the terminal.

    The best value of a column ends in ``*`` (see ``compare.best_arms``); arms that are incomplete, measured
    elsewhere than at their end, or not trustworthy say so in the last column.

    Args:
        width: columns of the terminal, in characters. Columns are left out until the table fits, the least
            important first; node_avg and what is said of the arm itself always stay.
    """
    shown = quantities(run.metric)
    table = comparison(run)
    best = best_arms(run, table)
    columns: dict[str, list[str]] = {}
    for name in present(run, table, [*STATISTICS, *COSTS]):
        marks = [" *" if best.get(name) == arm else "" for arm in table["arm"]]
        values = [shown[name].interval(row[name], row[f"{name}_ci"]) for _, row in table.iterrows()]
        cells = [value + mark for value, mark in zip(values, marks, strict=True)]
        columns[name] = [_narrow(shown[name].title), *cells]
    if table["target"].notna().any():
        heading = f"to {target_shown(run, table['target'].iloc[0])} (s)"
        columns["time_to_target"] = [heading, *(time_to_target_of(row) for _, row in table.iterrows())]
    if clock_of(run).startswith("virtual"):
        columns["time_s"][0] = "emulated (s)"
    fixed = [
        ["arm", *(str(arm) for arm in table["arm"])],
        ["seeds", *(f"{row['n']}/{row['seeds']}" for _, row in table.iterrows())],
        ["complete", *(_remarks(run, row) for _, row in table.iterrows())],
    ]
    kept: list[str] = []
    for name in _PRIORITY:
        if name in columns and (not kept or _width([*fixed, *(columns[k] for k in [*kept, name])]) <= width):
            kept.append(name)
    order = [name for name in ("node_avg", "time_to_target", *columns) if name in kept]
    whole = [*fixed[:2], *(columns[name] for name in dict.fromkeys(order)), fixed[2]]
    lines = [list(line) for line in zip(*whole, strict=True)]
    return lines[0], lines[1:]


def _narrow(title: str) -> str:
    return title.replace(" per node (MB)", " (MB)").replace("consensus distance", "consensus")


def _remarks(run: Run, row: pd.Series) -> str:
    remarks = ["yes" if row["complete"] else "no"]
    remarks += [] if row["basis"] == FINAL else [basis_of(row)]
    remarks += [diverged(row)] if row["nonfinite"] else []
    doubted = any(said.arm == row["arm"] and said.verdict == NOT_TRUSTWORTHY for said in run.fidelity)
    return "; ".join(remarks + ([NOT_TRUSTWORTHY.upper()] if doubted else []))


def _width(columns: Sequence[Sequence[str]]) -> int:
    """Characters of a table with three between columns and one at either edge, as the terminal's has."""
    return sum(max(map(len, column)) for column in columns) + 3 * len(columns) - 1


def seed_rows(run: Run) -> tuple[list[str], list[list[str]]]:
    """Headings and one row of strings per (arm, seed)."""
    shown = quantities(run.metric)
    table = per_seed(run)
    names = present(run, table, list(shown))
    timed = bool(table["target"].notna().any())
    rows = []
    for _, row in table.iterrows():
        cells = [str(row["arm"]), str(row["seed"]), str(row["state"]), basis_of(row)]
        cells += [shown[name].value(row[name]) for name in names]
        when = row["time_to_target"]
        rows.append([*cells, *([NEVER if when == math.inf else Quantity("").value(when)] if timed else [])])
    headings = ["arm", "seed", "state", "measured at", *(shown[name].title for name in names)]
    return [*headings, *(["time to target (s)"] if timed else [])], rows
