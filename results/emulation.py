"""How the network and computing of every arm were emulated: the choices that decide what is measured.

Taken from the headers of ``network.jsonl``, which say what held, and from resolved.json, which says what was
asked. Every report states contention, concurrency and the compute rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from results.delivery import ALIKE, UNLIMITED, utilisation
from results.read import Run
from results.tables import DASH, clock_of

_CONTENTION = {"uplink": "senders' uplinks only", "both": "uplinks and downlinks, max-min fair"}


def emulation_table(run: Run) -> tuple[list[str], list[list[str]]]:
    """Headings and rows (setting, value of every arm); one column for all arms where they agree on all."""
    columns = {arm: _of_arm(run, arm) for arm in run.arms}
    names = list(dict.fromkeys(name for column in columns.values() for name in column))
    rows = [[name, *(column.get(name, DASH) for column in columns.values())] for name in names]
    rows = [row for row in rows if set(row[1:]) != {DASH}]
    if len(columns) > 1 and all(len(set(row[1:])) == 1 for row in rows):
        return ["setting", "all arms"], [row[:2] for row in rows]
    return ["setting", *columns], rows


def emulation_facts(run: Run) -> list[tuple[str, str]]:
    """Contention, concurrency and compute rule in a few words; ``differs between arms`` where they do."""
    columns = [_of_arm(run, arm) for arm in run.arms]
    found = []
    for name in ("contention", "concurrency", "compute"):
        values = {column.get(name, DASH) for column in columns} - {DASH}
        if values:
            found.append((name, values.pop() if len(values) == 1 else "differs between arms"))
    return found


def compute_rule(settings: Mapping[str, Any]) -> str:
    """How an arm's emulated compute time is set, in words; empty where its settings do not say."""
    compute = settings.get("compute")
    if not isinstance(compute, dict) or "time_per_round" not in compute:
        return ""
    asked = compute["time_per_round"]
    if asked == "match_comm":
        recipients = compute.get("recipients")
        extra = f", recipients = {recipients}" if recipients else ""
        rule = f"match_comm ({compute.get('match_comm', 'nominal')}{extra})"
    else:
        rule = "measured" if asked == "measured" else f"{asked:g} s per local round" if _real(asked) else DASH
    if compute.get("slow_nodes"):
        rule += f"; {compute['slow_nodes']} nodes {compute.get('slow_factor', DASH)} times slower"
    if compute.get("jitter"):
        rule += f"; jitter \u00b1{100 * compute['jitter']:g} %"
    return rule


def _of_arm(run: Run, arm: str) -> dict[str, str]:
    settings = run.settings.get(arm, {})
    named = settings.get("network")
    network: Mapping[str, Any] = named if isinstance(named, dict) else {}
    # What was asked, under the names of the log, and over it what held.
    own = network.get("settings")
    held: dict[str, Any] = {**network, **(own if isinstance(own, dict) else {})}
    held |= next((dict(said) for (name, _), said in run.network.headers.items() if name == arm), {})
    wall = clock_of(run).startswith("wall")
    flush = {True: "cuts transfers in progress", False: "lets transfers in progress go on"}
    cut = held.get("abort_on_flush")
    return {
        "network": str(network.get("name") or DASH),
        "uplinks": _uplinks(run, arm),
        "contention": _contention(held.get("contention")),
        "concurrency": _concurrency(held.get("concurrency")),
        "a flush": flush[cut] if isinstance(cut, bool) else DASH,
        "latency": _latency(network.get("name"), held),
        "overhead per message": _both(
            _scaled(held.get("overhead_bytes"), 1.0, " B"), _scaled(held.get("overhead_s"), 1e3, " ms")
        ),
        "loss, jitter": _both(
            _scaled(held.get("loss"), 100.0, " %"), _scaled(held.get("jitter_s"), 1e3, " ms")
        ),
        "compute": "real time (wall clock)" if wall else compute_rule(settings) or DASH,
        "compute time per round": DASH if wall else _compute_s(held.get("compute_s")),
    }


def _scaled(value: object, scale: float, unit: str) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value * scale:g}{unit}"
    return DASH


def _latency(name: object, held: Mapping[str, Any]) -> str:
    """From node to node; a star's setting is that of one access link, of which a message passes two."""
    said = held.get("latency_ms")
    if isinstance(said, int | float) and not isinstance(said, bool):
        return _scaled(said, 2.0 if name == "star" else 1.0, " ms")
    return DASH


def _both(first: str, second: str) -> str:
    return DASH if first == second == DASH else f"{first}, {second}"


def _contention(said: object) -> str:
    if not isinstance(said, str):
        return DASH
    return f"{said}: {_CONTENTION[said]}" if said in _CONTENTION else said


def _concurrency(said: object) -> str:
    if said is None:
        return DASH
    return "all: one transfer per destination" if said == "all" else f"{said} per sender"


def _uplinks(run: Run, arm: str) -> str:
    seeds = len({seed for name, seed in run.network.headers if name == arm})
    table = utilisation(run)
    parts = []
    for _, row in table[table["arm"] == arm].iterrows():
        name = "" if row["rate_class"] == ALIKE else f"{row['rate_class']} "
        count = row["nodes"] / max(1, seeds)
        rate = "" if row["rate_class"] == UNLIMITED else f"{rates(row)} "
        parts.append(f"{count:g} {name}{rate}".strip())
    return "; ".join(parts) or DASH


def rates(row: pd.Series) -> str:
    """The rates of a class of ``delivery.utilisation``: ``12`` or ``11.3 to 12.6 Mbit/s``."""
    if np.isnan(row["slowest_bps"]):
        return "unlimited"
    low, high = (f"{row[name] / 1e6:.3g}" for name in ("slowest_bps", "fastest_bps"))
    return f"{low} Mbit/s" if low == high else f"{low} to {high} Mbit/s"


def _compute_s(values: object) -> str:
    numbers = [float(v) for v in values if _real(v)] if isinstance(values, list) else []
    if not numbers:
        return DASH
    low, high = (f"{value:.3g}" for value in (min(numbers), max(numbers)))
    return f"{low} s" if low == high else f"{low} to {high} s"


def _real(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
