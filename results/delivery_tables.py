"""Tables of a report on time to target, messages, uplinks and staleness; None where a run has none."""

from __future__ import annotations

import math

import pandas as pd

from results.cells import Cell, Table, number
from results.delivery import accounting_over_seeds, staleness_over_seeds, utilisation
from results.emulation import rates
from results.fidelity import NOT_TRUSTWORTHY, Fidelity
from results.metrics import traffic
from results.network import DROPS
from results.read import COUNTERS, Run
from results.tables import DASH, MINUS, NEVER, Quantity, target_shown, time_to_target_of
from results.target import target_of, target_over_seeds, time_to_target


def target_table(run: Run) -> tuple[Table | None, str]:
    """Time to target of every arm with its speed-up over the first one, and where the target comes from."""
    target = target_of(run)
    if target is None:
        return None, ""
    times = time_to_target(run, target.value)
    table = target_over_seeds(times).rename(
        columns={"time_s": "time_to_target", "time_s_ci": "time_to_target_ci"}
    )
    if table.empty:
        return None, ""
    cut = bool(table["unfinished"].any())
    rows = []
    for _, row in table.iterrows():
        mine = times[times["arm"] == row["arm"]]
        each = [
            f"{seed}: {NEVER if when == math.inf else DASH if math.isnan(when) else f'{when:.4g}'}"
            for seed, when in zip(mine["seed"], mine["time_s"], strict=True)
        ]
        never = row["never"] > 0
        rows.append(
            [
                Cell(str(row["arm"])),
                Cell(time_to_target_of(row, 2), "warn" if never else ""),
                Cell(f"{row['reached']} of {row['n']}", "warn" if never else ""),
                *([Cell(str(row["unfinished"]) if row["unfinished"] else DASH)] if cut else []),
                Cell(_speedup(row)),
                Cell("; ".join(each)),
            ]
        )
    first = run.arms[0]
    headings = [
        "arm",
        f"time to {target_shown(run, target.value)} (s)",
        "reached by",
        *(["cut short"] if cut else []),
        f"speed-up over {first}",
        "every seed (s)",
    ]
    return Table(headings, rows), target.origin


def _speedup(row: pd.Series) -> str:
    if not row["speedup_n"]:
        return DASH
    shown = Quantity("", 1.0, 2).interval(row["speedup"], row["speedup_ci"])
    known = row["speedup_n"] < row["n"]
    return f"{shown} ({row['speedup_n']} of {row['n']} seeds)" if known else shown


def accounting_table(run: Run) -> Table | None:
    """Per arm, messages and MB over all links, means over seeds: attempted, sent and every fate."""
    table = accounting_over_seeds(run)
    if table.empty:
        return None
    shown = [name for name in DROPS if (table[name] > 0).any()]
    rows = []
    for _, row in table.iterrows():
        for unit, suffix, scale, decimals in (("messages", "", 1.0, 0), ("MB", "_bytes", 1e-6, 1)):
            made = row[f"made{suffix}"]
            names = ["made", "sent", "delivered", "replaced", *shown, "in_flight"]
            cells = [Cell(number(row[f"{name}{suffix}"] * scale, decimals)) for name in names]
            share = 100 * row[f"delivered{suffix}"] / made if made else math.nan
            first = [Cell(str(row["arm"])), Cell(str(row["n"])), Cell(unit)]
            rows.append([*first, *cells, Cell(number(share, 1))])
    drops = [f"dropped: {name.removeprefix('dropped_')}" for name in shown]
    headings = ["arm", "seeds", "unit", "attempted", "sent", "delivered", "replaced", *drops, "in flight"]
    return Table([*headings, "delivered (%)"], rows, 3)


def utilisation_table(run: Run) -> Table | None:
    """Busy share of uplinks per arm and rate class; None where no uplink was limiting."""
    if run.network.uplinks["rate_bps"].isna().all():
        return None
    rows = []
    for _, row in utilisation(run).iterrows():
        cells = [
            Cell(str(row["arm"])),
            Cell(str(row["rate_class"])),
            Cell(rates(row)),
            Cell(str(row["nodes"])),
        ]
        rows.append([*cells, *(Cell(number(100 * row[name], 1)) for name in ("mean", "low", "high"))])
    headings = ["arm", "uplinks", "rate", "uplinks of all seeds", "mean (%)", "lowest (%)", "highest (%)"]
    return Table(headings, rows, 3)


def staleness_table(run: Run) -> Table | None:
    """Age of what was aggregated, of asynchronous arms; None where everything was of the same round."""
    table = staleness_over_seeds(run)
    table = table[(table["largest"] > 0) | (table["mean"].isna() & (table["idle"] < 1))]
    if table.empty:
        return None
    rounds, share = Quantity("", 1.0, 2), Quantity("", 100.0, 1)
    rows = []
    for _, row in table.iterrows():
        cells = [Cell(str(row["arm"])), Cell(str(row["n"]))]
        cells += [
            Cell(shown.interval(row[name], row[f"{name}_ci"]))
            for name, shown in (("mean", rounds), ("p95", rounds), ("largest", rounds), ("idle", share))
        ]
        rows.append(cells)
    headings = ["arm", "seeds", "mean (rounds)", "95th percentile", "largest", "rounds without messages (%)"]
    return Table(headings, rows)


def fidelity_banner(run: Run) -> list[tuple[Fidelity, str, list[str]]]:
    """Of every job that says how well it kept its promises: what it says, a look and its figures in words."""
    shown = []
    for said in run.fidelity:
        figures = [
            f"{name} {value * scale:.3g}{unit}"
            for name, value, scale, unit in (
                ("median error of rate", said.rate_error_median, 100.0, " %"),
                ("of latency", said.latency_error_ms_median, 1.0, " ms"),
                ("timers late by (99th percentile)", said.timer_lateness_ms_p99, 1.0, " ms"),
                ("CPU in use", said.cpu_saturation, 100.0, " %"),
            )
            if not math.isnan(value)
        ]
        measured = [f"{said.links} links measured"] if said.links else []
        shown.append((said, "warn" if said.verdict == NOT_TRUSTWORTHY else "", figures + measured))
    return shown


def traffic_table(run: Run) -> Table | None:
    """Messages and bytes of every job, as its nodes count them, with what the counters leave open."""
    table = traffic(run)
    if table.empty:
        return None
    attempts = bool(table["made_bytes"].notna().any())
    rows = []
    for _, row in table.iterrows():
        counts = {name: row[name] for name in COUNTERS}
        waiting = counts["made"] - counts["sent"] - counts["dropped"]
        underway = counts["sent"] - counts["received"]
        numbers = [counts["made"], counts["sent"], counts["dropped"], waiting, counts["received"], underway]
        numbers += [counts["replaced"]]
        sizes = [*(["made_bytes"] if attempts else []), "total_bytes", "total_meta"]
        cells = [Cell(str(row["arm"])), Cell(str(row["seed"]))]
        cells += [Cell(number(value, 0)) for value in numbers]
        rows.append([*cells, *(Cell(number(counts[name] / 1e6, 1)) for name in sizes)])
    headings = ["arm", "seed", "made", "sent", "dropped", f"made {MINUS} sent {MINUS} dropped", "received"]
    headings += [f"sent {MINUS} received", "replaced", *(["attempted (MB)"] if attempts else [])]
    return Table([*headings, "payload (MB)", "headers (MB)"], rows, 2)
