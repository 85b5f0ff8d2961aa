"""How well a wall-clock run kept what it promised: ``fidelity.json`` of every job that has one."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from results.jobs import Job, Problem, read_json

TRUSTWORTHY, NOT_TRUSTWORTHY, NOT_CHECKED = "trustworthy", "not trustworthy", "not checked"
_NUMBERS = ("rate_error_median", "latency_error_ms_median", "timer_lateness_ms_p99", "cpu_saturation")


@dataclass(frozen=True)
class Fidelity:
    """What one job says of its own emulation.

    Attributes:
        verdict: ``TRUSTWORTHY``, ``NOT_TRUSTWORTHY`` or ``NOT_CHECKED``; another or no word in the file
            counts as not checked, with a reason that says so.
        reasons: one sentence each.
        rate_error_median: relative, of achieved to asked rate over links; NaN where unknown.
        latency_error_ms_median: milliseconds, likewise.
        timer_lateness_ms_p99: milliseconds by which timers fired late, 99th percentile.
        cpu_saturation: share of the cores' time in use, 0 to 1.
        links: number of links that were measured.
    """

    arm: str
    seed: int
    verdict: str
    reasons: tuple[str, ...]
    rate_error_median: float
    latency_error_ms_median: float
    timer_lateness_ms_p99: float
    cpu_saturation: float
    links: int


def read_fidelity(folder: Path, jobs: Sequence[Job], problems: list[Problem]) -> tuple[Fidelity, ...]:
    """``fidelity.json`` of every job that has one; virtual clocks need and write none.

    Where some complete jobs have one and others have not, the others have lost theirs: a problem.
    """
    found = []
    lacking = []
    for job in jobs:
        path = folder / (job.folder or "") / "fidelity.json"
        if job.folder is None or not path.is_file():
            where = path.relative_to(folder).as_posix()
            lacking += [Problem(where, "is missing: this run is not checked")] if job.complete else []
            continue
        damage: list[Problem] = []
        content = read_json(path, damage)
        problems += [Problem(path.relative_to(folder).as_posix(), problem.what) for problem in damage]
        found.append(_of(job, content))
    problems += lacking if found else []
    return tuple(found)


def _of(job: Job, content: Mapping[str, Any]) -> Fidelity:
    verdict, reasons, links = (content.get(name) for name in ("verdict", "reasons", "links"))
    said = tuple(map(str, reasons)) if isinstance(reasons, list) else ()
    if verdict not in (TRUSTWORTHY, NOT_TRUSTWORTHY, NOT_CHECKED):
        shown = json.dumps(verdict)
        said = (f"fidelity.json gives no verdict that this version knows ({shown:.40})", *said)
        verdict = NOT_CHECKED
    numbers = {name: _number(content.get(name)) for name in _NUMBERS}
    count = len(links) if isinstance(links, list) else 0
    return Fidelity(job.arm, job.seed, str(verdict), said, **numbers, links=count)


def _number(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300:
        return float(value)
    return math.nan
