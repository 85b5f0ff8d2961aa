"""What was found on hosts as tables, and what follows from it: problems to be mended, and notes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from decentral.config import Experiment
from launch import parts
from launch.deploy.packages import Packages
from launch.deploy.plan import Impossible
from launch.doctor import bringing
from launch.doctor.diagnosis import brief
from launch.doctor.examine import Clock, Examined, Way
from launch.host_schema import Hosts
from launch.overview import size
from launch.preflight import check_facts
from launch.versions import release

SKEW_S = 1.0
"""Clocks that differ by less are not worth a word."""

HOSTS_HEADER = (
    *("host", "answers", "user", "Python", "packages", "code", "cores", "memory", "disk", "descriptors"),
    *("listens on", "free ports", "clock"),
)
CODE = {"shared": "shared", "here": "the same", "absent": "not there yet"}
WAYS_HEADER = ("from", "to", "round trip", "rate")


def host_rows(examined: Sequence[Examined], pinned: Mapping[str, str]) -> list[list[str]]:
    """A row per host under ``HOSTS_HEADER``; ``pinned``: the versions that are asked for, by package."""
    return [_row(found, pinned) for found in examined]


def _row(found: Examined, pinned: Mapping[str, str]) -> list[str]:
    facts = found.facts
    if found.diagnosis is not None or found.clock is None:
        return [found.host.name, "no", *["-"] * (len(HOSTS_HEADER) - 2)]
    ports = "any" if found.host.ports is None else f"{facts['ports_free']} of {found.host.ports}"
    if facts["ports_free"] is None and found.host.ports is not None:
        ports = "-"  # where they would be is not known
    unlimited = facts["nofile_hard"] < 0
    return [
        found.host.name,
        "yes",
        facts["user"],
        facts["python"],
        _packages(found, pinned),
        "this" if found.host.local else CODE[facts["code"]],
        _cores(facts),
        size(facts["memory_available"]),
        "not writable" if facts["unwritable"] else size(facts["disk_free"]),
        "unlimited" if unlimited else str(facts["nofile_hard"]),
        facts["address"] or "-",
        ports,
        _offset(found.clock),
    ]


def _offset(clock: Clock) -> str:
    if abs(clock.offset_s) < SKEW_S:
        return f"{1000 * clock.offset_s:+.1f} ± {1000 * clock.uncertainty_s:.1f} ms"
    return f"{clock.offset_s:+.1f} ± {clock.uncertainty_s:.2g} s"


def way_rows(ways: Sequence[Way]) -> list[list[str]]:
    """A row per measurement under ``WAYS_HEADER``."""
    return [
        [
            way.sender,
            way.receiver,
            way.error or "-" if way.round_trip_s is None else f"{1000 * way.round_trip_s:.3g} ms",
            "-" if way.bits_per_s is None else f"{way.bits_per_s / 1e6:.4g} Mbit/s",
        ]
        for way in ways
    ]


def cores_of(examined: Sequence[Examined]) -> dict[str, int]:
    """Usable cores by host that answers."""
    return {found.host.name: found.facts["cores"] for found in examined if found.facts}


def problems(
    examined: Sequence[Examined],
    ways: Sequence[Way],
    hosts: Hosts,
    experiment: Experiment,
    packages: Packages,
    *,
    data_comes: bool = False,
) -> list[str]:
    """Why ``experiment`` cannot run on ``hosts``, one sentence each; empty if all is well.

    Args:
        examined: every host.
        ways: between them.
        hosts: of the run.
        experiment: checked with them.
        packages: that agents need.
        data_comes: the run will send data sets to hosts that have none.
    """
    found: list[str] = []
    for each in examined:
        if each.diagnosis is not None:
            found.append(f"host {each.host.name}: {each.diagnosis.cause}; {each.diagnosis.step}")
        else:
            faults = [*_faults(each, len(examined)), *bringing.faults(each, packages)]
            found += [f"host {each.host.name}: {text}" for text in faults]
    found += [
        f"host {way.sender} does not reach host {way.receiver}: {way.error}; look at bind and ports of "
        f"{way.receiver} and at the firewalls between them"
        for way in ways
        if way.error is not None and not way.error.startswith("not measured")
    ]
    if all(each.diagnosis is None for each in examined):
        found += _misfits(examined, hosts, experiment, packages, data_comes)
    return found


def _faults(found: Examined, hosts: int) -> list[str]:
    """What is wrong with one host whatever is to run there."""
    facts, host = found.facts, found.host
    faults = []
    if facts["unsafe"]:
        faults.append(f"others could change {facts['folder']}: {facts['unsafe']}; chmod go-w, or set folder")
    if facts["unwritable"]:
        faults.append(f"cannot write in {facts['folder']}: {facts['unwritable']}; set folder for this host")
    if found.deaf is not None and hosts > 1:
        faults.append(f"{found.deaf}; correct bind and ports")
    if host.data is not None and facts["data"] is None:
        faults.append(f"data = {host.data!r} is no folder there; put the data sets there or correct it")
    return faults


def _misfits(
    examined: Sequence[Examined],
    hosts: Hosts,
    experiment: Experiment,
    packages: Packages,
    data_comes: bool,
) -> list[str]:
    """What hosts lack for ``experiment``."""
    facts = {found.host.name: _for_preflight(found, packages) for found in examined}
    misfits = check_facts(experiment, hosts, facts)
    task = None if data_comes else _task_with_data(experiment)
    for found in examined:
        if task and found.facts["data"] is None and found.host.data is None:
            misfits.append(
                f"host {found.host.name}: there is no folder of data sets for {task}; bring them there "
                f"and set data for this host, or have those of this machine sent with --send-data"
            )
    return misfits


def not_looked_at(examined: Sequence[Examined], experiment: Experiment, packages: Packages) -> list[str]:
    """What must be right too where there are no ``problems``."""
    task = _task_with_data(experiment)
    if task is None:
        return []
    found = [each for each in examined if each.facts["data"] is not None]
    where = ", ".join(f"{bringing.data_folder(each, packages)} on {each.host.name}" for each in found)
    return [f"data sets for {task}: {where}: the folders are there, what they hold was not looked at"]


def _task_with_data(experiment: Experiment) -> str | None:
    """The first task that reads data sets which do not come with a package."""
    names = [arm.data.name for arm in experiment.arms if arm.train.mode != "none"]
    return next((name for name in names if hasattr(parts.resolve("task", name), "fetch")), None)


def _for_preflight(found: Examined, packages: Packages) -> dict[str, Any]:
    facts = found.facts
    try:
        plan = bringing.plan_of(found, packages)
    except Impossible:
        plan = None  # told of as a fault
    installed = {name: version for name, version in facts["packages"].items() if version is not None}
    keys = (
        *("cores", "memory_available", "disk_free", "nofile_hard", "address"),
        *("ports_free", "ports_taken"),
    )
    return {
        **{key: facts[key] for key in keys if facts[key] is not None},
        "disk_planned": bringing.size_of(plan, packages),
        "versions": installed if found.host.local else {} if plan is None else plan.versions,
    }


def notes(examined: Sequence[Examined], pinned: Mapping[str, str]) -> list[str]:
    """What is worth knowing and hinders nothing."""
    told = []
    for found in examined:
        if found.diagnosis is not None or found.clock is None:
            continue
        name, facts, clock = found.host.name, found.facts, found.clock
        if abs(clock.offset_s) > SKEW_S + clock.uncertainty_s:
            told.append(
                f"the clock of {name} is {abs(clock.offset_s):.1f} s "
                f"{'ahead' if clock.offset_s > 0 else 'behind'}: harmless, as emulated time ignores it; "
                "only dates in what that host writes are off"
            )
        if found.noise.strip():
            told.append(f"the login shell of {name} prints {brief(found.noise)}: tolerated")
        if facts["core_limit"] is not None and facts["core_limit"] < facts["cores"]:
            told.append(
                f"a control group allows {name} {facts['core_limit']:.3g} of its {facts['cores']} cores"
            )
        if found.host.cores is not None and found.host.cores > facts["cores"]:
            told.append(
                f"cores = {found.host.cores} of {name} is more than it has; its {facts['cores']} count"
            )
        if differing := _differing(found, pinned):
            told.append(f"{name} has other versions than constraints.txt: {differing}")
    return told


def _differing(found: Examined, pinned: Mapping[str, str]) -> str:
    """Packages that are not as pinned; a local version (``+cpu``) is as good."""
    if found.host.python is None:
        return ""
    return ", ".join(
        f"{name} {version} ({pinned[name]})"
        for name, version in found.facts["packages"].items()
        if version is not None and name in pinned and release(version) != release(pinned[name])
    )


def _packages(found: Examined, pinned: Mapping[str, str]) -> str:
    facts = found.facts
    if found.host.python is None and not found.host.local:
        return bringing.how(found)
    missing = sum(version is None for version in facts["packages"].values())
    if missing:
        return f"{missing} of {len(facts['packages'])} missing"
    return "all, some others" if _differing(found, pinned) else f"all {len(facts['packages'])}"


def _cores(facts: Mapping[str, Any]) -> str:
    limit = facts["core_limit"]
    return str(facts["cores"]) if limit is None else f"{facts['cores']} (limited to {limit:.3g})"
