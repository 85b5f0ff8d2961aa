"""Reading ``network.jsonl``: what the emulated network of every job did, link by link.

Written once per job, by whoever keeps emulated time or gathers what nodes in real time report, beside
``metrics.jsonl``. Runs before it existed and runs that were killed have none: their frames are empty, and
nothing else suffers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from results.jobs import Job, Problem
from results.logs import Columns, Event, columns, read_log

KINDS = ("uplink", "links", "transfer", "end")
DROPS = ("dropped_flush", "dropped_abort", "dropped_loss", "dropped_end", "dropped_lost_node")
FATES = ("delivered", "replaced", *DROPS, "in_flight")
LINK_COUNTERS = tuple(f"{name}{unit}" for unit in ("", "_bytes") for name in ("made", *FATES))
FIELDS: Mapping[str, tuple[str, ...]] = {
    "uplink": ("rate_bps", "downlink_bps", "busy_s", "sent_bytes", "time_s", "utilisation"),
    "links": ("to", *LINK_COUNTERS),
    "transfer": ("to", "fragment", "tag", "start_s", "end_s", "bytes", "outcome"),
    "end": ("time_s", "reason", "cpu_s"),
}
_LATER = frozenset({"dropped_lost_node", "dropped_lost_node_bytes"})
"""Fates that older logs do not know, where nothing had them."""
_TEXT = frozenset({"arm", "outcome", "reason"})
_WHOLE = frozenset({"seed", "node", "to", *LINK_COUNTERS})


@dataclass(frozen=True, eq=False)
class Network:
    """The emulated networks of all jobs that have a log of it.

    ``arm`` is categorical as in ``read.Run``; rows are in the order of the files. Rates are NaN where a link
    is not limiting.

    Attributes:
        headers: by (arm, seed): contention, concurrency, overhead, ..., nominal compute time per node.
        uplinks: one row per node: arm, seed, node and ``FIELDS["uplink"]``; ``utilisation`` is the share of
            the run in which the uplink was busy.
        links: one row per ordered pair that has ever been used: arm, seed, node (the sender) and
            ``FIELDS["links"]``, as int64.
        transfers: those of the first emulated seconds: arm, seed, node (the sender) and
            ``FIELDS["transfer"]``; ``tag`` is the round of the message.
        ends: one row per job: arm, seed and ``FIELDS["end"]``.
        unbalanced: one sentence for every job in which a message or byte is unaccounted for.
    """

    headers: Mapping[tuple[str, int], Event]
    uplinks: pd.DataFrame
    links: pd.DataFrame
    transfers: pd.DataFrame
    ends: pd.DataFrame
    unbalanced: tuple[str, ...] = ()


@dataclass
class _Found:
    headers: dict[tuple[str, int], Event] = field(default_factory=dict)
    chunks: dict[str, list[Columns]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    unbalanced: list[str] = field(default_factory=list)


def read_network(
    folder: Path, jobs: Sequence[Job], arms: pd.CategoricalDtype, problems: list[Problem]
) -> Network:
    """Read ``network.jsonl`` of every job; damage is added to ``problems`` and costs the damaged lines only.

    Args:
        folder: of the run.
        jobs: as read, with their folders.
        arms: type of the ``arm`` column.
        problems: extended by what is not as promised; that made = delivered + replaced + dropped + in flight
            does not hold on a link is one.
    """
    found = _Found()
    lacking = []
    for job in jobs:
        if job.folder is None:
            continue
        path = folder / job.folder / "network.jsonl"
        if path.is_file():
            _read_job(path, path.relative_to(folder).as_posix(), job, found, problems)
        elif job.complete:
            lacking.append(Problem(path.relative_to(folder).as_posix(), "is missing: no accounting of links"))
    if found.headers:
        # A run without any such log has a clock that keeps none; one that lacks a few has lost them.
        problems += lacking
    return Network(
        headers=found.headers,
        uplinks=_frame("uplink", found, arms),
        links=_frame("links", found, arms),
        transfers=_frame("transfer", found, arms),
        ends=_frame("end", found, arms),
        unbalanced=tuple(found.unbalanced),
    )


def _read_job(path: Path, where: str, job: Job, found: _Found, problems: list[Problem]) -> None:
    log = read_log(path, KINDS)
    problems += [Problem(where, what) for what in log.problems]
    found.headers[job.arm, job.seed] = log.header
    said = (log.header.get("arm", job.arm), log.header.get("seed", job.seed))
    if said != (job.arm, job.seed):
        problems.append(Problem(where, f"its header says {said}, read as {(job.arm, job.seed)}"))
    if not log.events["end"]:
        problems.append(Problem(where, "has no end event: its writer was ended before it was whole"))
    for kind in ("uplink", "transfer", "end"):
        events = [event for event in log.events[kind] if kind == "end" or _is_node(event.get("node"))]
        if lost := len(log.events[kind]) - len(events):
            problems.append(Problem(where, f"{lost} {kind} event(s) without a node were left out"))
        if not events:
            continue
        table, damage = columns(events, FIELDS[kind])
        problems += [Problem(where, what) for what in damage]
        _add(kind, table, len(events), job, found)
    for event in log.events["links"]:
        row = _links(event)
        if isinstance(row, str):
            problems.append(Problem(where, f"links of node {event.get('node')!r} were left out: {row}"))
            continue
        _add("links", row, len(row["to"]), job, found)
    if sentence := _imbalance([chunk for chunk in found.chunks["links"] if _belongs(chunk, job)]):
        problems.append(Problem(where, sentence))
        found.unbalanced.append(f"{job.arm}, seed {job.seed}: {sentence}")


def _is_node(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 31


def _links(event: Event) -> Columns | str:
    """The counters of one sender as columns, or what is wrong with them."""
    if not _is_node(event.get("node")):
        return "node is no number"
    row: Columns = {}
    for name in ("to", *LINK_COUNTERS):
        values = event.get(name, [0] * len(event["to"]) if name in _LATER and row else None)
        if not isinstance(values, list):
            return f"{name!r} is no list"
        try:
            numbers = np.array(values) if values else np.array([], dtype=np.int64)
        except ValueError:
            return f"{name!r} is no list of numbers"
        if numbers.dtype.kind != "i" or numbers.ndim != 1 or (len(numbers) and numbers.min() < 0):
            return f"{name!r} is no list of counts"
        row[name] = numbers.astype(np.int64)
    if len({len(values) for values in row.values()}) > 1:
        return "its lists differ in length"
    row["node"] = np.full(len(row["to"]), event["node"], dtype=np.int64)
    return row


def _imbalance(chunks: Iterable[Columns]) -> str:
    """A sentence on the links on which made is not the sum of the fates; empty if there is none."""
    wrong = 0
    first = ""
    for chunk in chunks:
        for unit, what in (("", "messages"), ("_bytes", "bytes")):
            total = sum((chunk[f"{name}{unit}"] for name in FATES), np.zeros(len(chunk["to"]), np.int64))
            off: npt.NDArray[np.intp] = np.flatnonzero(total != chunk[f"made{unit}"])
            wrong += len(off)
            if len(off) and not first:
                link = off[0]
                made = chunk[f"made{unit}"][link]
                first = (
                    f"{chunk['node'][link]} -> {chunk['to'][link]}: {made} {what} made, {total[link]} "
                    "delivered + replaced + dropped + in flight"
                )
    return f"the accounting does not hold in {wrong} place(s), the first is {first}" if wrong else ""


def _belongs(chunk: Columns, job: Job) -> bool:
    return bool(len(chunk["seed"])) and (chunk["arm"][0], int(chunk["seed"][0])) == (job.arm, job.seed)


def _add(kind: str, table: Columns, rows: int, job: Job, found: _Found) -> None:
    owned = {"arm": np.full(rows, job.arm, dtype=object), "seed": np.full(rows, job.seed, dtype=np.int64)}
    found.chunks[kind].append({**table, **owned})


def _frame(kind: str, found: _Found, arms: pd.CategoricalDtype) -> pd.DataFrame:
    keys = ["arm", "seed"] if kind == "end" else ["arm", "seed", "node"]
    names = [*keys, *FIELDS[kind]]
    chunks = found.chunks[kind]
    stacked: Mapping[str, Any] = {
        name: np.concatenate([chunk[name] for chunk in chunks]) if chunks else [] for name in names
    }
    frame = pd.DataFrame(
        {
            name: pd.Series(values, dtype=object if name in _TEXT else np.float64 if not chunks else None)
            for name, values in stacked.items()
        }
    )
    frame["arm"] = frame["arm"].astype(arms)
    whole = [name for name in names if name in _WHOLE and (kind == "links" or name != "to")]
    frame = frame.astype(dict.fromkeys(whole, np.int64))
    if kind == "transfer":
        # What has no beginning or end in time cannot be drawn, and nothing else is made of it.
        frame = frame.dropna(subset=["to", "start_s", "end_s"], ignore_index=True)
    return frame
