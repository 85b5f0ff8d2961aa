"""Agents as job steps of a Slurm allocation, one srun a host."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from decentral.errors import PreflightError
from launch.deploy.deployment import Deployment
from launch.deploy.line import Route
from launch.executors.child import end, spawn
from launch.executors.starters import agent_command
from launch.own import NONE, OwnModules

if TYPE_CHECKING:
    from launch.hosts import Host

_PASSED_ON = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "TZ"),
    *("LD_LIBRARY_PATH", "MODULEPATH", "LOADEDMODULES"),  # a Python from an environment module needs them
    *("SLURM_JOB_ID", "SLURM_JOBID", "SLURM_CONF", "SLURM_CLUSTER_NAME", "SLURM_WORKING_CLUSTER"),
)
"""All that srun, and with it the agent, gets of this process's environment.

The rest may hold secrets, and many variables of sbatch and salloc (SLURM_NTASKS, SLURM_LABELIO, ...) are
defaults of srun that do not suit a step of one task whose streams are a line.
"""
_OPTIONS = (
    *("--nodes=1", "--ntasks=1"),
    "--overlap",  # a step takes no resources away from another
    "--kill-on-bad-exit=1",
    "--input=0",
    "--export=ALL",  # of what is passed on to srun itself
    "--chdir=/",  # the launcher's folder may not exist there
    "--cpu-bind=none",  # the agent pins its nodes
    "--mpi=none",
)


def srun_command(host: Host, remote: Sequence[str]) -> list[str]:
    """The command that runs ``remote`` as a job step on ``host``; no shell is involved.

    Args:
        host: a node of the allocation.
        remote: program and arguments.
    """
    return ["srun", *_OPTIONS, f"--nodelist={host.name}", "--", *remote]


def srun_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What of ``environ`` srun gets."""
    return {name: environ[name] for name in _PASSED_ON if name in environ}


class SlurmStarter:
    """Starts agents through srun, inside an allocation.

    Args:
        send: folder of data sets that ``prepare`` copies to every host without them; None: none are copied.
        own: modules of the user's own, which ``prepare`` brings too.
    """

    def __init__(self, *, send: Path | None = None, own: OwnModules = NONE) -> None:
        self._environment = srun_environment(os.environ)
        route = Route("srun", srun_command, self._environment)
        self._deployment = Deployment(route, send=send, parts=own.sent)

    def prepare(self, hosts: Sequence[Host], tell: Callable[[str], None]) -> None:
        """Bring code, environment and, if asked, data to hosts that do not see them on a shared file system.

        Raises:
            PreflightError: this is no allocation; or a line for every host where that failed.
        """
        if "SLURM_JOB_ID" not in self._environment:
            raise PreflightError(
                "--slurm needs an allocation, and SLURM_JOB_ID is not set; type for example "
                "`salloc -N 3` first, or `sbatch -N 3 launch/cluster.sbatch EXPERIMENT`"
            )
        if shutil.which("srun", path=self._environment.get("PATH")) is None:
            raise PreflightError("--slurm needs the command srun, which is not in PATH; load its module")
        self._deployment.deploy(hosts, tell)

    def cancel(self) -> None:
        """As ``Starter.cancel``."""
        self._deployment.cancel()

    def start(self, host: Host, log: BinaryIO) -> subprocess.Popen[bytes]:
        """As ``Starter.start``, after ``prepare``; from a thread that lives as long as the child may."""
        place = self._deployment.place(host)
        command = srun_command(host, agent_command(place.python, place.environment))
        return spawn(command, stderr=log, env=self._environment)

    def abandon(self, process: subprocess.Popen[bytes]) -> None:
        """As ``Starter.abandon``; srun may wait for ever for a node that is gone."""
        end(process)
