"""Where a run's numbers come from: its settings, command, versions and machines, as its files say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from results.read import Run
from results.tables import DASH, clock_of


def flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Settings by dotted key as users write them: ``{"a": {"settings": {"b": 1}}}`` as ``{"a.b": "1"}``.

    resolved.json keeps what belongs to a named choice (a graph, a partition) under ``settings``; experiments
    have it beside the name. Tables without keys are left out, null is ``not set``.
    """
    found: dict[str, str] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            found |= flat(value, prefix if key == "settings" else f"{prefix}{key}.")
        elif value is None:
            found[f"{prefix}{key}"] = "not set"
        else:
            shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            found[f"{prefix}{key}"] = shown
    return found


def setting_rows(run: Run) -> tuple[list[list[str]], list[tuple[str, str]]]:
    """Settings in which arms differ as [key, value of every arm]; those all share as (key, value)."""
    arms = {name: flat({k: v for k, v in arm.items() if k != "name"}) for name, arm in run.settings.items()}
    keys = list(dict.fromkeys(key for settings in arms.values() for key in settings))
    values = {key: [settings.get(key, DASH) for settings in arms.values()] for key in keys}
    common = [(key, row[0]) for key, row in values.items() if len(set(row)) == 1]
    differing = [[key, *row] for key, row in values.items() if len(set(row)) > 1]
    return differing, common


def provenance(run: Run) -> list[tuple[str, str]]:
    """Where the numbers come from, as the manifest says."""
    manifest = run.manifest
    command, git = manifest.get("command"), manifest.get("git")
    versions, hosts = manifest.get("versions"), manifest.get("hosts")
    rows = [
        ("command", " ".join(map(str, command)) if isinstance(command, list) else DASH),
        ("started (UTC)", str(manifest.get("started_utc") or DASH)),
        ("ended (UTC)", str(manifest.get("ended_utc") or DASH)),
        ("clock", clock_of(run) or DASH),
        ("state, exit code", f"{run.state}, {manifest.get('exit_code', DASH)}"),
        ("commit", _commit(git) if isinstance(git, dict) else "not in a git checkout"),
    ]
    if isinstance(versions, dict):
        rows.append(("versions", ", ".join(f"{name} {version}" for name, version in versions.items())))
    rows += (
        [("host", _host(host)) for host in hosts if isinstance(host, dict)] if isinstance(hosts, list) else []
    )
    return [*rows, *_placements(manifest.get("jobs")), ("folder", run.folder.resolve().name)]


def _placements(jobs: Any) -> list[tuple[str, str]]:
    """Which nodes ran where, each distinct placement once; none where all ran on one host."""
    shown: dict[str, None] = {}
    for job in jobs if isinstance(jobs, list) else []:
        placement = job.get("placement") if isinstance(job, dict) else None
        if isinstance(placement, dict) and len(placement) > 1:
            shown["; ".join(f"{host}: nodes {nodes or 'none'}" for host, nodes in placement.items())] = None
    return [("placement", text) for text in shown]


def _commit(git: Mapping[str, Any]) -> str:
    return f"{git.get('commit')}{' with uncommitted changes' if git.get('dirty') else ''}"


def _host(host: Mapping[str, Any]) -> str:
    memory = host.get("memory_bytes")
    size = f"{memory / 2**30:.1f} GiB" if isinstance(memory, int | float) else None
    cores = f"{host['cores']} cores" if "cores" in host else None
    parts = (host.get("name"), cores, host.get("cpu"), size, host.get("kernel"))
    return ", ".join(str(part) for part in parts if part)
