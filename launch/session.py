"""A run from validated experiment to report: folder, jobs one after the other, manifest, report."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, TypeAlias

import psutil

from decentral import __version__
from decentral.config import Experiment
from decentral.errors import (
    ConfigError,
    DecentralError,
    Interrupted,
    NotTrustworthy,
    PreflightError,
    RunFailed,
)
from launch.compose import check, complete
from launch.display import Display
from launch.executors.base import Executor, Interruption, Job, Outcome
from launch.launcher import Launcher
from launch.live import LiveFile
from launch.paths import RunFolder, create_run_folder
from launch.preflight import preflight
from launch.rounds import most_rounds
from results.report import write_report

ExecutorName: TypeAlias = Literal["processes", "inline"]
MANIFEST_VERSION = 1
PACKAGES = ("torch", "numpy", "pyzmq", "msgpack", "networkx", "scikit-learn")


@dataclass(frozen=True)
class RunOptions:
    """What the command line adds to an experiment.

    Args:
        out: folder under which the run folder is made.
        executor: ``processes`` or ``inline``.
        command: the command line, for the manifest.
        strict: make it an error if paced links did not keep their promises.
    """

    out: Path
    executor: ExecutorName
    command: tuple[str, ...]
    strict: bool = False


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
    preflight(experiment, options.out, inline=options.executor == "inline")
    # The agent imports torch while folder and manifest are made.
    with closing(_make_executor(options.executor)) as executor:
        return _run_checked(experiment, options, display, executor)


def _run_checked(experiment: Experiment, options: RunOptions, display: Display, executor: Executor) -> Path:
    folder = create_run_folder(options.out, experiment.name)
    jobs = [
        Job(arm, seed, folder.job(arm.slug, seed)) for arm in experiment.arms for seed in experiment.seeds
    ]
    manifest = _Manifest(experiment, options, folder, jobs)
    # To the end: an impatient further Ctrl-C must not cost the manifest's last state and the report.
    with Interruption().installed() as interruption:
        folder.write_text("experiment.toml", experiment.source)
        folder.write_json("resolved.json", experiment.resolved())
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
    jobs: Sequence[Job],
    executor: Executor,
    display: LiveFile,
    manifest: _Manifest,
    interruption: Interruption,
) -> Outcome:
    most = {job.arm.name: most_rounds(job.arm, job.seed) for job in jobs}
    display.plan([(job.arm.name, job.seed) for job in jobs], jobs[0].arm.nodes, max(most.values()))
    outcome = Outcome("done")
    distrusted: list[str] = []
    try:
        for number, job in enumerate(jobs):
            if interruption.count:
                return Outcome("interrupted", "interrupted by the user", Interrupted.exit_code)
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


def _make_executor(name: ExecutorName) -> Executor:
    # Imported here: the inline executor needs torch in this process, the other one must not pay for it.
    if name == "inline":
        from launch.executors.inline import InlineExecutor

        return InlineExecutor()
    from launch.executors.local import LocalExecutor

    executor = LocalExecutor()
    executor.start()
    return executor


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


class _Manifest:
    """``manifest.json``: rewritten whole at every change of state, so that a killed launcher leaves one."""

    def __init__(
        self, experiment: Experiment, options: RunOptions, folder: RunFolder, jobs: Sequence[Job]
    ) -> None:
        self._folder = folder
        host = _this_host()
        self._content: dict[str, Any] = {
            "v": MANIFEST_VERSION,
            "name": experiment.name,
            "command": list(options.command),
            "launcher": Launcher.this().to_manifest(),
            "executor": options.executor,
            "clock": _clock(experiment, options.executor),
            "started_utc": _utc(),
            "ended_utc": None,
            "state": "running",
            "cause": None,
            "exit_code": None,
            "distrust": [],
            "versions": {
                "decentral": __version__,
                "python": platform.python_version(),
                **{name: version(name) for name in PACKAGES},
            },
            "git": _git_state(),
            "hosts": [host],
            "placement": {host["name"]: max(job.arm.nodes for job in jobs)},
            "jobs": [
                {
                    "arm": job.arm.name,
                    "seed": job.seed,
                    "folder": str(job.folder.path.relative_to(folder.path)),
                    "state": "waiting",
                    "cause": None,
                    "wall_s": None,
                }
                for job in jobs
            ],
        }

    def write(self) -> None:
        self._folder.write_json("manifest.json", self._content)

    def job_ended(
        self, number: int, outcome: Outcome, wall_s: float, stalls: Sequence[Mapping[str, Any]]
    ) -> None:
        self._content["jobs"][number].update(
            state=outcome.state, cause=outcome.cause, wall_s=round(wall_s, 3), stalls=list(stalls)
        )
        if outcome.state == "done":
            self.write()  # otherwise end() follows at once, which copes with a disk that is full

    def end(self, outcome: Outcome) -> None:
        self._content.update(ended_utc=_utc(), **asdict(outcome))
        self.write()


def _clock(experiment: Experiment, executor: ExecutorName) -> str:
    if executor == "inline":
        return "virtual (inline)"
    return " and ".join(sorted({arm.run.clock for arm in experiment.arms}))


def _utc() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _this_host() -> dict[str, Any]:
    return {
        "name": platform.node(),
        "cores": len(os.sched_getaffinity(0)),
        "cpu": _cpu_model(),
        "memory_bytes": psutil.virtual_memory().total,
        "kernel": platform.release(),
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _git_state() -> dict[str, Any] | None:
    """Commit of the checkout that this package runs from; None where it is no checkout or git is absent."""
    here = Path(__file__).resolve().parent
    try:
        commit = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        )
        status = subprocess.run(
            ["git", "-C", str(here), "status", "--porcelain"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"commit": commit.stdout.strip(), "dirty": bool(status.stdout.strip())}
