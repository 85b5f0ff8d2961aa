"""Going on with a run that was killed, interrupted or failed, in its own folder.

What is done is not run again. A job that was cut off goes on from its newest checkpoint that is whole;
without one it is run again from the beginning, and what it had written is moved aside, not deleted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from decentral.config import Experiment
from decentral.disk import sync, unwritable
from decentral.errors import CheckpointError, ConfigError
from launch.checkpoints import cut_logs, folder_of, newest, numbers
from launch.compose import check
from launch.display import Display
from launch.executors.base import Job
from launch.files import with_copies
from launch.holding import HELD, Hold
from launch.hosts import Hosts
from launch.launcher import Launcher
from launch.manifest import Manifest, code
from launch.own import admit, differences, own_modules
from launch.paths import JobFolder, RunFolder
from launch.runs import Seen, look
from launch.session import RunOptions, Session, jobs_of, run_session
from results.report import write_report


@dataclass(frozen=True)
class ResumeOptions:
    """What the command line says.

    Args:
        command: the command line, for the manifest.
        strict: make it an error if paced links did not keep their promises.
        hosts: where processes run now; None: on this machine.
        send_data: copy this machine's data sets to hosts that name no folder of theirs.
    """

    command: tuple[str, ...]
    strict: bool = False
    hosts: Hosts | None = None
    send_data: bool = False


def resume_run(run: Path, options: ResumeOptions, display: Display) -> Path:
    """Run what is left of the run in folder ``run``, and write its report.

    Raises:
        ConfigError: it is no run folder, it still runs, or what it was asked for is damaged.
        PreflightError: processes of it still write into it, or this machine lacks something.
        RunFailed, Interrupted: as ``launch.session.run_experiment``.
    """
    seen = look(run)
    _refuse_what_runs(seen)
    folder = RunFolder(seen.folder.resolve())
    with Hold(folder.path, alone=True, patience_s=0.0):
        asked = _experiment(folder)
        if not _unfinished(asked, seen, folder):
            display.note(f"{seen.name} is complete: nothing is left to run; its report is written anew")
            write_report(folder.path)
            return folder.path
        for entry in (seen.manifest.get("modules") or {}).values():
            admit(asked, Path(entry["folder"]))
        experiment = with_copies(asked, seen.manifest.get("files"), folder)
        left = _unfinished(experiment, seen, folder)
        executor = seen.manifest["executor"]
        check(experiment, executor)
        warnings = differences(seen.manifest, own_modules(experiment)) + _differences(seen.manifest)
        for warning in warnings:
            display.note(f"WARNING: {warning}")
        chosen = RunOptions(
            out=folder.path,
            executor=executor,
            command=options.command,
            strict=options.strict,
            hosts=options.hosts,
            send_data=options.send_data,
        )

        def begin(hosts: Mapping[str, Mapping[str, Any]]) -> Session:
            jobs = [(number, _prepared(job, display)) for number, job in left]
            manifest = Manifest.resumed(
                folder,
                seen.manifest,
                command=options.command,
                hosts=hosts,
                origins={number: _origin(job) for number, job in jobs},
                warnings=warnings,
            )
            return Session(folder, jobs, manifest)

        return run_session(experiment, chosen, display, begin)


def _refuse_what_runs(seen: Seen) -> None:
    if not seen.lives:
        return
    who = Launcher.named_in(seen.manifest)
    launcher = "its launcher" if who is None else f"its launcher, pid {who.pid} on host {who.host},"
    raise ConfigError(
        f"{seen.folder}: {launcher} still runs; wait for its end, or end it with decentral stop {seen.name}"
    )


def _experiment(folder: RunFolder) -> Experiment:
    """What was asked for, all defaults as they were then.

    Raises:
        ConfigError: resolved.json is missing, damaged, or of a version with other settings.
    """
    path, source = folder.path / "resolved.json", folder.path / "experiment.toml"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        text = source.read_text(encoding="utf-8") if source.exists() else ""
        return Experiment.model_validate_json(json.dumps({**content, "source": text}))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; the run cannot be resumed") from error
    except (ValueError, TypeError, ValidationError) as error:
        raise ConfigError(
            f"{path}: is damaged, or of a version with other settings ({error}); run the experiment again"
        ) from error


def _unfinished(experiment: Experiment, seen: Seen, folder: RunFolder) -> list[tuple[int, Job]]:
    """Jobs that are not done, each with its number in the manifest."""
    jobs, listed = jobs_of(experiment, folder), seen.manifest.get("jobs")
    if not isinstance(listed, list) or [_named(each) for each in listed] != [
        (job.arm.name, job.seed) for job in jobs
    ]:
        raise ConfigError(
            f"{seen.folder}: manifest.json lists other jobs than resolved.json asks for; run the experiment "
            f"again"
        )
    return [(number, job) for number, job in enumerate(jobs) if listed[number].get("state") != "done"]


def _named(entry: Any) -> tuple[Any, Any]:
    return (entry.get("arm"), entry.get("seed")) if isinstance(entry, dict) else (None, None)


def _differences(manifest: Mapping[str, Any]) -> list[str]:
    """How the code differs from that of the run so far, which may change what comes out."""
    now = code()
    found = []
    before = manifest.get("versions") or {}
    for name, version in now["versions"].items():
        if before.get(name) != version:
            found.append(f"{name} is {version}, the run was begun with {before.get(name)}")
    then, here = manifest.get("git") or {}, now["git"] or {}
    if then.get("commit") != here.get("commit"):
        found.append(
            f"the code is of commit {here.get('commit')}, the run was begun with {then.get('commit')}"
        )
    if then.get("dirty") or here.get("dirty"):
        found.append("the checkout has, or had, changes that are in no commit")
    return found


def _prepared(job: Job, display: Display) -> Job:
    """``job``, its folder as it is to be gone on with.

    Raises:
        PreflightError: others still write into it, or it cannot be changed.
    """
    if not job.folder.path.is_dir():
        return job
    Hold(job.folder.path, alone=True).let_go()
    name = f"{job.arm.name} seed {job.seed}"
    found, problems = newest(job.folder)
    for problem in problems:
        display.note(f"{name}: damaged checkpoint passed over: {problem}")
    if found is not None:
        _set_newer_aside(job.folder, found.number)
        try:
            cut_logs(job.folder, found)
        except CheckpointError as error:
            display.note(f"{name}: {error}")
        else:
            display.note(
                f"{name}: goes on from checkpoint {found.number}, round {found.rounds}, at {found.time_s:g} s"
            )
            return replace(job, resumed=found)
    aside = _set_aside(job.folder)
    if aside is not None:
        display.note(f"{name}: no checkpoint to go on from; begins anew, what there was is in {aside}")
    return job


def _set_newer_aside(folder: JobFolder, number: int) -> None:
    """Move checkpoints after ``number`` away.

    Logs are written anew from there. Once they are long enough, a newer checkpoint that was passed over would
    seem to be whole, and belong to other logs.
    """
    newer = [folder_of(folder, each) for each in numbers(folder) if each > number]
    if newer:
        _move_aside(folder, newer)


def _set_aside(folder: JobFolder) -> Path | None:
    """Move what a job had written into a folder of its own; None if there was nothing."""
    written = [each for each in folder.path.iterdir() if not each.name.startswith(("before-", HELD))]
    return _move_aside(folder, written) if written else None


def _move_aside(folder: JobFolder, paths: Sequence[Path]) -> Path:
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S-%f")
    aside = folder.path / f"before-{stamp}"
    try:
        for path in paths:
            target = aside / path.relative_to(folder.path)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)
        for changed in {path.parent for path in paths}:
            sync(changed)
    except OSError as error:
        raise unwritable(aside, error) from error
    return aside


def _origin(job: Job) -> dict[str, Any]:
    at = job.resumed
    checkpoint = None if at is None else {"number": at.number, "rounds": at.rounds, "time_s": at.time_s}
    return {"arm": job.arm.name, "seed": job.seed, "checkpoint": checkpoint}
