"""What a run was asked to do and how far it got: one job per (arm, seed)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from results.logs import read_log

MANIFEST_VERSION = 1


@dataclass(frozen=True)
class Problem:
    """Something in the run folder that is not as promised, in one sentence."""

    where: str
    what: str


@dataclass(frozen=True)
class Job:
    """One (arm, seed) of a run.

    Attributes:
        folder: relative to the run folder; None where nothing was found.
        state: as the manifest says; ``"not started"`` where it has no such job, ``"unknown"`` without one.
        cause: first cause of a failure, as the manifest says.
        wall_s: real seconds, as the manifest says.
        nodes: number of nodes asked for; 0 where nobody says.
        found: nodes that have a log.
        ended: nodes whose log has its end event.
        rounds: fewest and most finished local rounds over the found nodes; None without any node.
        asked_rounds: ``run.max_rounds`` of its arm; None where there is no such limit.
        lost: nodes that ended before their run, and that the others went on without.
        losses: a sentence on each, as the manifest says.
    """

    arm: str
    seed: int
    folder: str | None
    state: str
    cause: str | None = None
    wall_s: float | None = None
    nodes: int = 0
    found: int = 0
    ended: int = 0
    rounds: tuple[int, int] | None = None
    asked_rounds: int | None = None
    lost: tuple[int, ...] = ()
    losses: tuple[str, ...] = ()

    @property
    def scored(self) -> int:
        """Nodes over which scores are taken: those that are not lost; 0 where nobody says how many."""
        return max(0, self.nodes - len(self.lost))

    @property
    def complete(self) -> bool:
        """All that are not lost wrote their end event, and the manifest, if there is one, agrees."""
        return self.state in ("done", "unknown") and 0 < self.scored <= self.ended


def read_json(path: Path, problems: list[Problem]) -> Mapping[str, Any]:
    """The JSON object in ``path``; empty, and reported, where it is absent or damaged."""
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        problems.append(Problem(path.name, f"cannot be read: {error.strerror}"))
    except (ValueError, RecursionError):
        problems.append(Problem(path.name, "is damaged: not a JSON document"))
    else:
        if isinstance(content, dict):
            return content
        problems.append(Problem(path.name, "is damaged: not a JSON object"))
    return {}


def arms_of(resolved: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The arms of resolved.json by name, in its order."""
    arms = resolved.get("arms")
    listed = arms if isinstance(arms, list) else []
    return {arm["name"]: arm for arm in listed if isinstance(arm, dict) and isinstance(arm.get("name"), str)}


def planned_jobs(
    folder: Path, manifest: Mapping[str, Any], resolved: Mapping[str, Any], problems: list[Problem]
) -> list[Job]:
    """All jobs that the files know of, arms in the order of the experiment, then seeds ascending.

    The manifest names them; what only resolved.json asks for was not started; folders that neither knows
    are taken by their headers.
    """
    jobs = _manifest_jobs(folder, manifest, problems)
    known = {job.folder for job in jobs.values()}
    for path in sorted(folder.glob("*/seed-*")):
        relative = path.relative_to(folder).as_posix()
        if relative in known or not path.is_dir():
            continue
        found = _discovered(path, relative)
        if found is None:
            problems.append(Problem(relative, "is no seed-<number> folder and was left out"))
            continue
        if manifest:
            problems.append(Problem(relative, "is not in manifest.json; read all the same"))
        previous = jobs.get((found.arm, found.seed))
        if previous is not None and previous.folder is not None:
            problems.append(Problem(relative, f"holds the same arm and seed as {previous.folder}: left out"))
            continue
        jobs[found.arm, found.seed] = found
    arms = arms_of(resolved)
    for arm in arms:
        for seed in _seeds(resolved):
            jobs.setdefault((arm, seed), Job(arm, seed, None, "not started"))
    order = {arm: index for index, arm in enumerate(dict.fromkeys([*arms, *(arm for arm, _ in jobs)]))}
    return [jobs[key] for key in sorted(jobs, key=lambda key: (order[key[0]], key[1]))]


def _seeds(resolved: Mapping[str, Any]) -> list[int]:
    seeds = resolved.get("seeds")
    return [seed for seed in seeds if _is_int(seed)] if isinstance(seeds, list) else []


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _manifest_jobs(
    folder: Path, manifest: Mapping[str, Any], problems: list[Problem]
) -> dict[tuple[str, int], Job]:
    listed = manifest.get("jobs")
    if manifest and manifest.get("v") != MANIFEST_VERSION:
        problems.append(
            Problem("manifest.json", f"version {manifest.get('v')!r} is unknown, expected {MANIFEST_VERSION}")
        )
    if manifest and not isinstance(listed, list):
        problems.append(
            Problem("manifest.json", "has no list of jobs: arms and seeds are taken from folders")
        )
    jobs: dict[tuple[str, int], Job] = {}
    for entry in listed if isinstance(listed, list) else []:
        if not (isinstance(entry, dict) and isinstance(entry.get("arm"), str) and _is_int(entry.get("seed"))):
            problems.append(
                Problem("manifest.json", f"a job has no arm and seed and was left out: {entry!r:.80}")
            )
            continue
        arm, seed, cause, wall_s = entry["arm"], int(entry["seed"]), entry.get("cause"), entry.get("wall_s")
        jobs[arm, seed] = Job(
            arm,
            seed,
            _inside(folder, entry.get("folder"), problems),
            str(entry.get("state", "unknown")),
            cause=str(cause) if cause is not None else None,
            wall_s=float(wall_s) if isinstance(wall_s, int | float) else None,
            **_losses(entry.get("lost")),
        )
    return jobs


def _losses(listed: object) -> dict[str, Any]:
    found = [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
    found = [each for each in found if _is_int(each.get("node"))]
    sentences = (f"node {each['node']} on host {each.get('host')} {each.get('cause')}" for each in found)
    return {"lost": tuple(each["node"] for each in found), "losses": tuple(sentences)}


def _inside(folder: Path, named: object, problems: list[Problem]) -> str | None:
    if named is None:
        return None
    if not isinstance(named, str) or PurePosixPath(named).is_absolute() or ".." in PurePosixPath(named).parts:
        # A manifest may come from elsewhere: it must not make a report read other people's files.
        problems.append(Problem("manifest.json", f"job folder {named!r} is outside the run folder: left out"))
        return None
    return PurePosixPath(named).as_posix() if (folder / named).is_dir() else None


def _discovered(path: Path, relative: str) -> Job | None:
    header: Mapping[str, Any] = {}
    logs: Sequence[Path] = (*sorted((path / "nodes").glob("*.jsonl")), path / "metrics.jsonl")
    for log in logs:
        header = read_log(log).header if log.is_file() else {}
        if header:
            break
    arm = header.get("arm")
    seed = header.get("seed", path.name.removeprefix("seed-"))
    if _is_int(seed) or (isinstance(seed, str) and seed.isdecimal()):
        return Job(arm if isinstance(arm, str) else path.parent.name, int(seed), relative, "unknown")
    return None


def count_of(nodes: Sequence[int], total: int) -> str:
    """``3 of 60 nodes (0-1, 7)``."""
    spans: list[list[int]] = []
    for node in nodes:
        if spans and node == spans[-1][1] + 1:
            spans[-1][1] = node
        else:
            spans.append([node, node])
    listed = ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)
    return f"{len(nodes)} of {total} nodes ({listed})"
