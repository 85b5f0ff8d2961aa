"""``manifest.json``: what was asked for, with what, on which hosts, and how it ended."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from decentral import __version__
from decentral.config import Experiment
from launch.executors.base import Job, Outcome
from launch.facts import python_and_packages
from launch.launcher import Launcher
from launch.paths import RunFolder

MANIFEST_VERSION = 1
_WAITING: Mapping[str, Any] = {
    "state": "waiting",
    "cause": None,
    "wall_s": None,
    "stalls": [],
    "placement": None,
    "lost": [],
}
"""What is known of a job before it runs."""


class Manifest:
    """Rewritten whole at every change of state, so that a killed launcher leaves one.

    Args:
        folder: of the run.
        content: what is known.
    """

    def __init__(self, folder: RunFolder, content: dict[str, Any]) -> None:
        self._folder = folder
        self._content = content

    @classmethod
    def begun(
        cls,
        experiment: Experiment,
        folder: RunFolder,
        jobs: Sequence[Job],
        *,
        command: Sequence[str],
        executor: str,
        hosts: Mapping[str, Mapping[str, Any]],
        files: Mapping[str, Mapping[str, str]],
        modules: Mapping[str, Mapping[str, str | None]],
    ) -> Manifest:
        """That of a new run.

        Args:
            experiment: what is run.
            folder: where.
            jobs: in their order.
            command: the command line.
            executor: ``processes`` or ``inline``.
            hosts: what is known of every host, by name (``launch.facts``).
            files: copies of files that the experiment names (``launch.files.keep``).
            modules: of the user's own (``launch.own``).
        """
        content: dict[str, Any] = {
            "v": MANIFEST_VERSION,
            "name": experiment.name,
            "command": list(command),
            "launcher": Launcher.this().to_manifest(),
            "executor": executor,
            "clock": _clock(experiment, executor),
            "started_utc": _utc(),
            "ended_utc": None,
            "state": "running",
            "cause": None,
            "exit_code": None,
            "distrust": [],
            **code(),
            "files": dict(files),
            "modules": dict(modules),
            "hosts": [{"host": name, **facts} for name, facts in hosts.items()],
            "jobs": [
                {
                    "arm": job.arm.name,
                    "seed": job.seed,
                    "folder": str(job.folder.path.relative_to(folder.path)),
                    **_WAITING,
                }
                for job in jobs
            ],
        }
        return cls(folder, content)

    @classmethod
    def resumed(
        cls,
        folder: RunFolder,
        content: Mapping[str, Any],
        *,
        command: Sequence[str],
        hosts: Mapping[str, Mapping[str, Any]],
        origins: Mapping[int, Mapping[str, Any]],
        warnings: Sequence[str],
    ) -> Manifest:
        """That of a run that goes on.

        Args:
            folder: of the run.
            content: its manifest so far.
            command: the command line.
            hosts: what is known of every host now.
            origins: by number, of every job that is run now: arm, seed, the checkpoint that it goes on from.
            warnings: what may make its end another than it would have been.
        """
        session = {
            "command": list(command),
            "started_utc": _utc(),
            **code(),
            "hosts": [{"host": name, **facts} for name, facts in hosts.items()],
            "jobs": list(origins.values()),
            "warnings": list(warnings),
        }
        ended = {"ended_utc": None, "state": "running", "cause": None, "exit_code": None}
        jobs = [
            {**job, **(_WAITING if number in origins else {})} for number, job in enumerate(content["jobs"])
        ]
        launcher = Launcher.this().to_manifest()
        sessions = [*content.get("resumed", []), session]
        return cls(folder, {**content, **ended, "launcher": launcher, "jobs": jobs, "resumed": sessions})

    def write(self) -> None:
        """Write what is known now."""
        self._folder.write_json("manifest.json", self._content)

    def job_ended(
        self, number: int, outcome: Outcome, wall_s: float, stalls: Sequence[Mapping[str, Any]]
    ) -> None:
        """Job ``number`` has ended; ``stalls`` are what members of it did not run for a while."""
        self._content["jobs"][number].update(
            state=outcome.state,
            cause=outcome.cause,
            wall_s=round(wall_s, 3),
            stalls=list(stalls),
            placement=outcome.placement,
            lost=[asdict(loss) for loss in outcome.lost],
        )
        if outcome.state == "done":
            self.write()  # otherwise end() follows at once, which copes with a disk that is full

    def end(self, outcome: Outcome) -> None:
        """The run has ended; the last state."""
        ended = asdict(outcome)
        del ended["placement"], ended["lost"]  # are each job's
        self._content.update(ended_utc=_utc(), **ended)
        self.write()


def code() -> dict[str, Any]:
    """Which code runs: versions of the packages, and the checkout's commit."""
    return {"versions": {"decentral": __version__, **python_and_packages()}, "git": _git_state()}


def _clock(experiment: Experiment, executor: str) -> str:
    if executor == "inline":
        return "virtual (inline)"
    return " and ".join(sorted({arm.run.clock for arm in experiment.arms}))


def _utc() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


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
