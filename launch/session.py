"""A run from validated experiment to report: folder, jobs one after the other, manifest, report."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from decentral.config import Experiment
from decentral.errors import (
    ConfigError,
    DecentralError,
    Interrupted,
    NotTrustworthy,
    PreflightError,
    RunFailed,
)
from decentral.tasks.storage import data_folder
from launch import files
from launch.compose import check, complete
from launch.display import Display
from launch.executors.base import Executor, Interruption, Job, Outcome
from launch.facts import facts
from launch.holding import Hold
from launch.host_plan import check_hosts
from launch.hosts import Hosts
from launch.live import LiveFile
from launch.manifest import Manifest
from launch.own import NONE, OwnModules, own_modules
from launch.paths import RunFolder, create_run_folder
from launch.preflight import check_facts, preflight
from launch.rounds import most_rounds
from results.report import write_report

if TYPE_CHECKING:
    from launch.executors.fleet import Fleet

ExecutorName: TypeAlias = Literal["processes", "inline"]


@dataclass(frozen=True)
class RunOptions:
    """What the command line adds to an experiment.

    Args:
        out: folder under which the run folder is made.
        executor: ``processes`` or ``inline``.
        command: the command line, for the manifest.
        strict: make it an error if paced links did not keep their promises.
        hosts: where processes run; None: on this machine.
        send_data: copy this machine's data sets to hosts that name no folder of theirs.
    """

    out: Path
    executor: ExecutorName
    command: tuple[str, ...]
    strict: bool = False
    hosts: Hosts | None = None
    send_data: bool = False


def run_experiment(experiment: Experiment, options: RunOptions, display: Display) -> Path:
    """Check everything, run every arm with every seed, write the report; returns the run folder.

    Args:
        experiment: what to run.
        options: where and how.
        display: hears of the progress.

    Raises:
        ConfigError: before anything is started or written; or, where only the loaded data can tell, after.
        PreflightError: this machine lacks something; before anything is started.
        RunFailed, Interrupted: after the report of what was measured has been written; ``run_folder`` of the
            exception is where.
    """
    check(experiment, options.executor)
    experiment = complete(experiment)
    with ExitStack() as held:
        return run_session(
            experiment, options, display, lambda hosts: _begin(experiment, options, hosts, held)
        )


@dataclass(frozen=True)
class Session:
    """What is to be done in a run folder.

    Args:
        folder: where.
        jobs: what is to be run, each with its number in the manifest.
        manifest: of the run.
    """

    folder: RunFolder
    jobs: Sequence[tuple[int, Job]]
    manifest: Manifest


Begin: TypeAlias = Callable[[Mapping[str, Mapping[str, Any]]], Session]
"""Prepares the run folder, once it is known what hosts there are."""


def run_session(experiment: Experiment, options: RunOptions, display: Display, begin: Begin) -> Path:
    """Start what jobs run on, let ``begin`` prepare the run folder, run, write the report.

    Raises:
        PreflightError, RunFailed, Interrupted: as ``run_experiment``.
    """
    # To the end: an impatient further Ctrl-C must not cost the manifest's last state and the report.
    with Interruption().installed() as interruption:
        return _prepare_and_run(experiment, options, display, begin, interruption)


def _prepare_and_run(
    experiment: Experiment, options: RunOptions, display: Display, begin: Begin, interruption: Interruption
) -> Path:
    if options.hosts is not None:
        check_hosts(experiment, options.hosts)
    in_here = options.executor == "inline"
    preflight(experiment, options.out, inline=in_here, elsewhere=options.hosts is not None)
    if in_here:
        # Imported here: it needs torch in this process, the other ones must not pay for it.
        from launch.executors.inline import InlineExecutor

        with closing(InlineExecutor()) as inline:
            return _run(options, display, inline, begin({"localhost": facts(options.out)}), interruption)
    sockets = max(arm.nodes for arm in experiment.arms) + 2  # all nodes, the observer and the timekeeper
    with closing(make_fleet(options, display, sockets, own_modules(experiment))) as fleet:
        fleet.start(interruption)  # agents import torch while folder and manifest are made
        here: Mapping[str, Mapping[str, Any]] = {"localhost": facts(options.out)}
        if options.hosts is not None:
            here = fleet.meet(interruption)
            if problems := check_facts(experiment, options.hosts, here):
                raise PreflightError("\n".join(problems))
        return _run(options, display, fleet, begin(here), interruption)


def _begin(
    experiment: Experiment, options: RunOptions, hosts: Mapping[str, Mapping[str, Any]], held: ExitStack
) -> Session:
    found = files.content_of(experiment)
    folder = create_run_folder(options.out, experiment.name)
    # A launcher on another machine that sees this folder cannot tell that this one lives.
    held.enter_context(Hold(folder.path, alone=True, patience_s=0.0))
    kept = files.keep(found, folder)
    jobs = jobs_of(files.with_copies(experiment, kept, folder), folder)
    manifest = Manifest.begun(
        experiment,
        folder,
        jobs,
        command=options.command,
        executor=options.executor,
        hosts=hosts,
        files=kept,
        modules=own_modules(experiment).listed,
    )
    folder.write_text("experiment.toml", experiment.source)
    folder.write_json("resolved.json", experiment.resolved())
    return Session(folder, list(enumerate(jobs)), manifest)


def jobs_of(experiment: Experiment, folder: RunFolder) -> list[Job]:
    """Every arm with every seed, in the order of the manifest."""
    return [
        Job(arm, seed, folder.job(arm.slug, seed)) for arm in experiment.arms for seed in experiment.seeds
    ]


def _run(
    options: RunOptions,
    display: Display,
    executor: Executor,
    session: Session,
    interruption: Interruption,
) -> Path:
    folder, jobs, manifest = session.folder, session.jobs, session.manifest
    manifest.write()
    outcome = _run_jobs(jobs, executor, LiveFile(folder, display), manifest, interruption)
    if options.strict and outcome.distrust and outcome.state == "done":
        outcome = replace(outcome, exit_code=NotTrustworthy.exit_code)
    try:
        manifest.end(outcome)
        write_report(folder.path)
    except PreflightError as error:
        # A full disk stops nodes and report alike; why the run ended must not be lost over it.
        _raise_unless_done(outcome, folder, f"\nno report was written: {error}")
        raise
    _raise_unless_done(outcome, folder)
    if options.strict and outcome.distrust:
        untrusted = NotTrustworthy("not trustworthy: " + "\n".join(outcome.distrust))
        untrusted.run_folder = folder.path
        raise untrusted
    return folder.path


def _run_jobs(
    numbered: Sequence[tuple[int, Job]],
    executor: Executor,
    display: LiveFile,
    manifest: Manifest,
    interruption: Interruption,
) -> Outcome:
    jobs = [job for _, job in numbered]
    most = {job.arm.name: most_rounds(job.arm, job.seed) for job in jobs}
    display.plan([(job.arm.name, job.seed) for job in jobs], jobs[0].arm.nodes, max(most.values()))
    outcome = Outcome("done")
    distrusted: list[str] = []
    try:
        for number, job in numbered:
            if interruption.count:
                outcome = Outcome("interrupted", "interrupted by the user", Interrupted.exit_code)
                break
            display.job_started(job.arm.name, job.seed, job.arm.nodes, most[job.arm.name])
            began = time.monotonic()
            outcome = executor.run(job, display, interruption)
            display.job_ended(job.arm.name, job.seed, outcome.state, outcome.cause or "")
            if outcome.distrust:
                why = f"{job.arm.name} seed {job.seed}: {'; '.join(outcome.distrust)}"
                display.note(f"NOT TRUSTWORTHY: {why}")
                distrusted.append(why)
            manifest.job_ended(number, outcome, time.monotonic() - began, display.stalls)
            if outcome.state != "done":
                break
    finally:
        executor.close()
        display.close()
    return replace(outcome, distrust=tuple(distrusted))


def make_fleet(
    options: RunOptions, display: Display, sockets: int | None = None, own: OwnModules = NONE
) -> Fleet:
    """What runs the processes that ``options`` ask for; starts nothing yet.

    Args:
        options: where and how.
        display: hears what takes time.
        sockets: that a host has at most, as of ``Fleet``.
        own: modules of the user's own.
    """
    from launch.executors.fleet import Fleet

    if options.hosts is None:
        from launch.executors.local import LocalExecutor

        return LocalExecutor(own)
    from launch.executors.remote import starter_for

    send = data_folder() if options.send_data else None
    starter = starter_for(options.hosts, send=send, own=own)
    return Fleet(options.hosts, starter, display.note, sockets, own)


def _raise_unless_done(outcome: Outcome, folder: RunFolder, also: str = "") -> None:
    if outcome.state == "done":
        return
    error: DecentralError
    cause = (outcome.cause or "no cause is known") + also
    if outcome.state == "interrupted":
        error = Interrupted(cause)
    elif outcome.exit_code == PreflightError.exit_code:
        error = PreflightError(cause)
    elif outcome.exit_code == ConfigError.exit_code:
        error = ConfigError(cause)  # what only the loaded data could tell, e.g. rows that cannot be dealt
    else:
        error = RunFailed(cause)
    error.run_folder = None if also else folder.path
    raise error
