"""Runs in real time: what all nodes tell of their links, as ``network.jsonl`` and ``fidelity.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from decentral.accounts import link_rows
from decentral.config import Arm
from decentral.disk import unwritable
from decentral.fidelity import TRUSTWORTHY, merge
from decentral.network.log import describe, rate
from decentral.records import FileRecorder, Value
from launch.compose import compose
from launch.paths import JobFolder


def write_links(path: Path, report: Mapping[str, Any]) -> None:
    """One node's report (``WallMedium.report``), beside its log.

    Raises:
        PreflightError: the file cannot be written; names it.
    """
    try:
        beside = path.with_suffix(".part")
        beside.write_text(json.dumps(report), encoding="utf-8")
        beside.replace(path)  # a process that is killed meanwhile leaves no half of a report
    except OSError as error:
        raise unwritable(path, error) from error


def gather(folder: JobFolder, arm: Arm, seed: int, state: str, lost: int = 0) -> list[str]:
    """Merge what the nodes of a job reported, also after a run that was cut short.

    Args:
        folder: the job's.
        arm: its arm.
        seed: its seed.
        state: how it ended.
        lost: how many nodes the others went on without.

    Returns:
        Why the run is not to be trusted; empty where it is.

    Raises:
        PreflightError: a file cannot be written; names it.
    """
    composition = compose(arm, seed)
    reports = []
    for i in range(arm.nodes):
        with suppress(OSError, ValueError):  # none, or half of one, of a host that was lost
            reports.append(json.loads(folder.links(i).read_text(encoding="utf-8")))
    fidelity = merge([report["fidelity"] for report in reports], arm.nodes, lost)
    write_links(folder.fidelity, fidelity)
    network, compute = composition.network, composition.compute
    end_s = max((report["time_s"] for report in reports), default=0.0)
    with closing(FileRecorder(folder.network)) as recorder:
        nominal = [compute.nominal_of_ns(node) for node in range(arm.nodes)]
        shared: dict[str, Value] = {"arm": arm.name, "seed": seed, "nodes": arm.nodes}
        recorder.write("header", **shared, **describe(network, nominal))
        for report in reports:
            node = report["node"]
            recorder.write(
                "uplink",
                node=node,
                rate_bps=rate(network.uplink_bps[node]),
                downlink_bps=rate(network.downlink_bps[node]),
                busy_s=report["busy_s"],
                sent_bytes=report["sent_bytes"],
                time_s=report["time_s"],
                utilisation=report["busy_s"] / report["time_s"] if report["time_s"] else 0.0,
            )
        for row in link_rows(reports):
            recorder.write("links", **row)
        recorder.write("end", time_s=end_s, reason=state, cpu_s=0.0)
    if fidelity["verdict"] == TRUSTWORTHY:
        return []
    return [str(reason) for reason in fidelity["reasons"]] or [str(fidelity["verdict"])]
