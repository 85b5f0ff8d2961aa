"""Versions of packages on the hosts of a run: which of them must be equal for equal results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SAME_RESULTS = ("torch", "numpy")
"""Packages of which another version may give other last bits."""


def release(version: str) -> str:
    """``version`` less its local part: ``2.13.0+cpu`` is a build of 2.13.0.

    Whether two builds compute the same to the bit is found out by computing (``launch/agreement.py``).
    """
    return version.partition("+")[0]


def differing(versions: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A sentence for each of ``SAME_RESULTS`` that hosts have in different releases.

    Args:
        versions: by host, the version of every package that is known.
    """
    told = []
    for package in SAME_RESULTS:
        found: dict[str, list[str]] = {}
        for name, installed in versions.items():
            if package in installed:
                found.setdefault(release(str(installed[package])), []).append(name)
        if len(found) > 1:
            where = ", ".join(f"{version} on {' '.join(names)}" for version, names in found.items())
            told.append(
                f"{package} is {where}: results may differ in their last bits; "
                f"install the same version on all, best that of constraints.txt"
            )
    return told
