"""What is used on a host and what must be brought there, decided from what it says that it has."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from launch.deploy.onhost.look import libc_version, this_python
from launch.deploy.packages import Packages
from launch.modules import search_in
from launch.versions import SAME_RESULTS, release

if TYPE_CHECKING:
    from launch.hosts import Host
CACHE = "cache"
"""Where arrays made of data sets go, below a host's own folder."""


@dataclass(frozen=True)
class Place:
    """Where the things of an agent lie on its host; absolute paths.

    Args:
        python: a Python that has the packages.
        code: the folder of the code.
        folder: where files of ours may go.
        data: the folder of the data sets; None: there is none.
        cache: the folder of the arrays that are made of them; None: the usual one.
        parts: the folder of modules of the user's own; None: there are none.
    """

    python: str
    code: str
    folder: str
    data: str | None
    cache: str | None = None
    parts: str | None = None

    @property
    def sent_data(self) -> str:
        """Where data sets go that are sent there."""
        return f"{self.folder}/data"

    @property
    def environment(self) -> dict[str, str]:
        """What an agent there must find in its environment, beside what every agent must."""
        return {
            "PYTHONPATH": self.code,
            "PYTHONDONTWRITEBYTECODE": "1",  # the hash of the code does not cover what is compiled of it
            **({} if self.parts is None else search_in([self.parts])),
            **({} if self.data is None else {"DECENTRAL_DATA": self.data}),
            **({} if self.cache is None else {"DECENTRAL_CACHE": self.cache}),
        }


@dataclass(frozen=True)
class Plan:
    """What an agent gets on one host.

    Args:
        host: the host.
        identity: of its folder: the same on hosts that share it; None: the folder cannot be used.
        place: where its things lie once all of this is done.
        code: whether the code must be brought.
        environment: whether and how an environment must be made: as a copy of this one, or by pip.
        versions: of packages in the Python that the agent will have, where they are known.
        parts: whether modules of the user's own must be brought.
    """

    host: Host
    identity: str | None
    place: Place
    code: bool
    environment: Literal["copy", "pip"] | None
    versions: Mapping[str, str]
    parts: bool = False


class Impossible(Exception):
    """What a host has cannot be used, and nothing can be brought in its place."""


def plan_host(
    host: Host,
    look: Mapping[str, Any],
    packages: Packages,
    checkout: str,
    data: str | None,
    *,
    parts: bool = False,
) -> Plan:
    """The plan for one host.

    Args:
        host: the host.
        look: what it said (``onhost/look.py``).
        packages: what agents need.
        checkout: path of the code on this host.
        data: folder of the data sets on this host, if there is one.
        parts: whether there are modules of the user's own.

    Raises:
        Impossible: says what is wrong.
    """
    if look["unsafe"] is not None:
        raise Impossible(
            f"{look['unsafe']}; or set folder = ... for this host to one that is its user's alone"
        )
    code = checkout if look["sees_code"] else look["code"]
    brings_code = not look["sees_code"] and not look["has_code"]
    environment: Literal["copy", "pip"] | None = None
    own = look["own"]
    versions: Mapping[str, str] = packages.versions
    if host.python is not None:
        python = _given(host.python, look["given"], packages)
        versions = {name: version for name, version in look["given"][2].items() if version is not None}
    elif own is not None and own[2] == packages.versions:
        python = own[0]
    else:
        python = f"{look['environment']}/bin/python"
        by: Literal["copy", "pip"] = "copy" if _runs_there(look) else "pip"
        versions = packages.versions if by == "copy" else packages.pinned
        if not look["has_environment"]:
            environment = by
    brings_parts = parts and not look["has_parts"]
    if look["problem"] is not None and (brings_code or brings_parts or environment is not None):
        raise Impossible(f"{look['problem']}; set folder = ... for this host to one that is its user's")
    cache = None if host.folder is None else f"{look['folder']}/{CACHE}"
    own_parts = look["parts"] if parts else None
    place = Place(python, code, look["folder"], _data(host, look, data), cache, own_parts)
    return Plan(host, look["identity"], place, brings_code, environment, versions, brings_parts)


def _runs_there(look: Mapping[str, Any]) -> bool:
    """Whether packages that run here run there: compiled ones may need this C library, or a newer one."""
    python: list[str] = look["python"]
    return python == this_python() and _numbers(look["libc_version"]) >= _numbers(libc_version())


def _numbers(version: str) -> list[int]:
    return [int(one) for one in re.findall(r"\d+", version)]


def _given(python: str, found: list[Any] | None, packages: Packages) -> str:
    if found is None:
        raise Impossible(f"python = {python} does not run or is older than 3.11; name another, or none")
    path, _, versions = found
    missing = packages.missing(versions)
    if missing:
        raise Impossible(
            f"python = {python} lacks {', '.join(missing)}; install them, or name none for a new environment"
        )
    return str(path)


def _data(host: Host, look: Mapping[str, Any], data: str | None) -> str | None:
    found: Mapping[str, str | None] = look["data"]
    if host.data is not None:
        if found[host.data] is None:
            raise Impossible(
                f"data = {host.data} is no folder; copy the data sets there, "
                f"or remove data and use --send-data"
            )
        return found[host.data]
    if data is not None and found[data] is not None:
        return found[data]
    sent: str | None = look["sent_data"]
    return sent


def disagreements(host: Host, look: Mapping[str, Any], packages: Packages) -> list[str]:
    """A line for every package of a given Python that is not the one here where that may change results."""
    if look["given"] is None:
        return []
    versions = look["given"][2]
    return [
        f"host {host.name} has {name} {versions[name]} and this one {packages.versions[name]}: "
        f"its results may differ in the last bits"
        for name in SAME_RESULTS
        if name in versions and release(versions[name]) != release(packages.versions[name])
    ]
