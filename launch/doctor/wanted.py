"""What the doctor looks for on hosts, and how it reaches them: just as a run does."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from packaging.utils import canonicalize_name

from decentral.errors import PreflightError
from launch.deploy.deployment import CHECKOUT, hash_of
from launch.deploy.line import Route
from launch.deploy.packages import Packages
from launch.executors.slurm import srun_command, srun_environment
from launch.executors.ssh import ssh_command
from launch.host_schema import Hosts

USUAL_DATA = "~/.local/share/decentral"
"""Where tasks look for data sets if nothing else is said (decentral/tasks/storage.py)."""


@dataclass(frozen=True)
class Wanted:
    """What is looked for.

    Attributes:
        packages: names of those that agents import.
        versions: by package, of all that are installed here.
        pinned: versions by package, where constraints.txt names one.
        code: content hash of this checkout.
        checkout: its path.
        own: path of this Python, which hosts may see on a shared disk.
        pins: hash over the packages of a private environment.
        data: where data sets may lie on a host that names no folder for them.
    """

    packages: tuple[str, ...]
    versions: Mapping[str, str]
    pinned: Mapping[str, str]
    code: str
    checkout: str
    own: str
    pins: str
    data: tuple[str, ...]


def wanted() -> Wanted:
    """What this checkout needs.

    Raises:
        PreflightError: this is no checkout, or this Python lacks packages itself.
    """
    if not (CHECKOUT / "setup.cfg").is_file():
        raise PreflightError(
            f"{CHECKOUT} has no setup.cfg; other hosts need decentral to be run from a checkout"
        )
    packages = Packages.of(CHECKOUT)
    names = tuple(canonicalize_name(requirement.name) for requirement in packages.required)
    here = os.environ.get("DECENTRAL_DATA")
    return Wanted(
        packages=names,
        versions=packages.versions,
        pinned=packages.pinned,
        code=hash_of(CHECKOUT),
        checkout=str(CHECKOUT),
        own=sys.executable,
        pins=packages.pins,
        data=(*([here] if here else []), USUAL_DATA),
    )


def route_of(hosts: Hosts) -> Route:
    """How ``hosts`` are reached.

    Raises:
        PreflightError: through srun, outside an allocation.
    """
    if hosts.kind == "ssh":
        return Route("ssh", ssh_command)
    if "SLURM_JOB_ID" not in os.environ:
        raise PreflightError(
            "--slurm needs an allocation, and SLURM_JOB_ID is not set; type for example `salloc -N 3` first"
        )
    return Route("srun", srun_command, srun_environment(os.environ))
