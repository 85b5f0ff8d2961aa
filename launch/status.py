"""What ``decentral status`` says of a run: how far it is, or how it ended."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from launch.placement import ranges
from launch.progress import duration
from launch.protocol import SILENCE_S
from launch.runs import Seen

SILENT_S = 5.0
"""A ``live.json`` that is older than this is news: it is rewritten every second."""


def as_json(seen: Seen) -> dict[str, Any]:
    """The same as the lines, for programs."""
    manifest = seen.manifest
    return {
        "run": str(seen.folder.resolve()),
        "life": seen.life,
        "lives": seen.lives,
        **{key: manifest.get(key) for key in ("state", "cause", "exit_code", "started_utc", "ended_utc")},
        "launcher": None if seen.launcher is None else seen.launcher.to_manifest(),
        "jobs": manifest.get("jobs", []),
        "live": seen.live if seen.lives else None,
    }


def lines(seen: Seen, now_s: float | None = None) -> Iterator[str]:
    """What a person reads.

    Args:
        seen: the run.
        now_s: seconds since 1970; None: now.
    """
    now_s = time.time() if now_s is None else now_s
    yield f"{seen.name}: {_life(seen)}"
    yield f"  folder   {seen.folder}"
    if seen.launcher is not None and seen.lives:
        yield f"  launcher pid {seen.launcher.pid} on host {seen.launcher.host}"
    yield from _jobs(seen)
    live = seen.live if seen.lives else None
    if live is not None:
        yield from _live(live, now_s)
    for entry in seen.manifest.get("jobs", []):
        job = f"{entry['arm']} seed {entry['seed']}"
        for stall in entry.get("stalls") or ():
            yield f"  stalled  {job}: {stall['name']} {stall['what']} for {stall['for_s']} s"


def _life(seen: Seen) -> str:
    manifest = seen.manifest
    state, cause = str(manifest.get("state")), manifest.get("cause")
    match seen.life:
        case "running":
            since = f"running since {manifest.get('started_utc')}"
            return since if state == "running" else f"{state}, its report is being written"
        case "stopped":
            return f"its launcher is stopped (SIGSTOP or Ctrl-Z); {_after_a_stop(seen)}"
        case "ended":
            why = f": {cause}" if cause else ""
            return f"{state} at {manifest.get('ended_utc')} with exit code {manifest.get('exit_code')}{why}"
        case "elsewhere":
            host = "" if seen.launcher is None else seen.launcher.host
            quiet = f"no sign of life; host {host} can tell whether its launcher (pid {_pid(seen)}) lives"
            return f"running on host {host}" if seen.lives else quiet
    return f"its launcher (pid {_pid(seen)}) is gone; decentral resume {seen.name} goes on"


def _after_a_stop(seen: Seen) -> str:
    """Hosts elsewhere hear nothing of a launcher that is stopped, and cannot know that it is not dead."""
    if not any(host.get("remote") for host in seen.hosts):
        return f"kill -CONT {_pid(seen)} goes on"
    return (
        f"its other hosts give it up after {SILENCE_S:g} s without a sign of life; then "
        f"kill -CONT {_pid(seen)} lets it end, and "
        f"decentral run --resume {seen.name} with the same --hosts goes on"
    )


def _pid(seen: Seen) -> str:
    return "unknown" if seen.launcher is None else str(seen.launcher.pid)


def _jobs(seen: Seen) -> Iterator[str]:
    counts: dict[str, int] = {}
    for entry in seen.manifest.get("jobs", []):
        counts[entry["state"]] = counts.get(entry["state"], 0) + 1
    yield f"  jobs     {', '.join(f'{count} {state}' for state, count in counts.items())}"


def _live(live: dict[str, Any], now_s: float) -> Iterator[str]:
    job = live.get("job")
    if job is not None:
        of = f" of {job['max_rounds']}" if job["max_rounds"] else ""
        rounds = [round_ for node, round_ in enumerate(job["rounds"]) if node not in job["lost"]]
        low, high = min(rounds, default=0), max(rounds, default=0)
        score = job["score"]
        quality = f", {score['metric']} {score['value']:.4g} in round {score['round']}" if score else ""
        yield (
            f"  now      {job['arm']} seed {job['seed']} ({live['ended'] + 1} of {live['jobs']}) for "
            f"{duration(now_s - job['started_s'])}: round {_span(low, high)}{of}{quality}"
        )
        for host in job["hosts"]:
            yield f"  host     {_host(host, now_s)}"
        if job["lost"]:
            yield f"  lost     node{'s' * (len(job['lost']) > 1)} {ranges(job['lost'])}; the others go on"
        for stall in job["stalls"]:
            yield f"  stalled  {stall['name']} {stall['what']} since {now_s - stall['since_s']:.0f} s"
    if now_s - live["written_s"] > SILENT_S:
        yield f"  note     the launcher has said nothing for {now_s - live['written_s']:.0f} s"


def _host(host: dict[str, Any], now_s: float) -> str:
    alive = f"{host['alive']} of {host['members']}" if host["alive"] is not None else str(host["members"])
    parts = [f"{host['name']}: {host['state']}", f"{alive} processes", f"{len(host['nodes'])} nodes"]
    if host["slowest"] is not None:
        parts.append(f"round {_span(host['slowest'], host['fastest'])}")
    return f"{', '.join(parts)}, heard {max(0.0, now_s - host['heard_s']):.0f} s ago"


def _span(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}..{high}"
