"""What a run would bring to a host before it begins, decided as the run decides it."""

from __future__ import annotations

import os

from launch.deploy.deployment import _PIP_BYTES as PIP_BYTES
from launch.deploy.deployment import CHECKOUT
from launch.deploy.packages import Packages
from launch.deploy.plan import Impossible, Plan, plan_host
from launch.deploy.plan import _runs_there as can_be_copied
from launch.doctor.examine import Examined

NEEDED = {"copy": ("venv",), "pip": ("venv", "ensurepip")}
"""Modules of the host's Python by which an environment is made; Debian has them in a package of their own."""


def plan_of(found: Examined, packages: Packages) -> Plan | None:
    """What the run would do; None where nothing is to be done or where other faults hinder it.

    Raises:
        Impossible: it would refuse; says why.
    """
    host, facts = found.host, found.facts
    if host.local or found.diagnosis is not None or facts["unsafe"] or facts["unwritable"]:
        return None
    if host.data is not None and facts["data"] is None:
        return None
    data = os.environ.get("DECENTRAL_DATA") or None
    return plan_host(host, facts["look"], packages, str(CHECKOUT), data)


def data_folder(found: Examined, packages: Packages) -> str:
    """Where the run would look for data sets on a host that has a folder of them."""
    plan = plan_of(found, packages)
    there: str = found.facts["data"]
    return there if plan is None or plan.place.data is None else plan.place.data


def size_of(plan: Plan | None, packages: Packages) -> int:
    """Bytes of the environment that would be made, as the run asks for them."""
    if plan is None or plan.environment is None:
        return 0
    if plan.environment == "pip":
        return PIP_BYTES
    size = sum(file.size for file in packages.files)
    return size + (size >> 3)


def faults(found: Examined, packages: Packages) -> list[str]:
    """Why what is lacking cannot be brought, one sentence each."""
    try:
        plan = plan_of(found, packages)
    except Impossible as impossible:
        return [str(impossible)]
    if plan is None or plan.environment is None:
        return []
    told, facts = [], found.facts
    if lacking := [name for name in NEEDED[plan.environment] if name in facts["modules_lacking"]]:
        told.append(
            f"its Python {facts['executable']} lacks the module {' and '.join(lacking)}, by which an "
            f"environment is made; install it (package python3-venv of Debian), or set python for this host"
        )
    needed, free = size_of(plan, packages), facts["disk_free"]
    if free < needed:
        told.append(
            f"its environment needs {needed >> 20} MiB and {facts['folder']} has {free >> 20} MiB free; free "
            f"space, or set folder or python for this host"
        )
    return told


def how(found: Examined) -> str:
    """Where the packages of a host without ``python`` come from, in words."""
    facts = found.facts
    if facts["own"]:
        return "those here"
    if facts["environment"] == "ready":
        return "private, ready"
    return (
        "private, to be copied" if can_be_copied(facts["look"]) else "private, by pip (needs a package index)"
    )
