"""Placement of an arm's members over the hosts of a run."""

from __future__ import annotations

from collections.abc import Mapping

from decentral.config import Arm
from decentral.config.problems import common
from decentral.errors import ConfigError
from decentral.seeding import Seeds
from launch import parts
from launch.host_schema import Host, Hosts
from launch.placement import Capacity, Placement, place


def place_arm(arm: Arm, seed: int, hosts: Hosts, cores: Mapping[str, int] | None = None) -> Placement:
    """Where every member of ``arm`` under ``seed`` runs; with regions it depends on the seed, as they do.

    Args:
        arm: complete and checked.
        seed: the run seed.
        hosts: of the run.
        cores: usable ones that agents found, by host, of which the hosts file may allow fewer. None, and
            hosts that are left out: unknown.

    Raises:
        ConfigError: what hosts list does not fit this arm.
    """
    found = cores or {}
    capacities = [
        Capacity(host.name, _cores(host, found.get(host.name)), host.share, host.nodes, host.regions)
        for host in hosts.hosts
    ]
    virtual = arm.run.clock == "virtual"
    return place(arm.nodes, capacities, regions=regions_of(arm, seed), timekeeper=virtual)


def _cores(host: Host, found: int | None) -> int | None:
    return min((count for count in (host.cores, found) if count is not None), default=None)


def regions_of(arm: Arm, seed: int) -> tuple[str, ...] | None:
    """The region of each node in the emulated network of ``arm``; None where it knows none.

    Raises:
        ConfigError: the network is unknown or its settings are impossible.
    """
    preset = parts.build("network", arm.network, {})
    if not hasattr(preset, "regions"):
        return None
    regions: tuple[str, ...] = preset.regions(arm.nodes, Seeds(seed))
    return regions


def check_placement(arms: tuple[Arm, ...], seeds: tuple[int, ...], hosts: Hosts) -> None:
    """Refuse hosts whose lists do not fit every arm under every seed.

    Raises:
        ConfigError: all problems of all arms, each once.
    """
    found: dict[str, list[str]] = {}
    for arm in arms:
        problems = found.setdefault(f'arm "{arm.name}"', [])
        for seed in seeds:
            try:
                place_arm(arm, seed, hosts)
            except ConfigError as error:
                problems += [problem for problem in error.problems if problem not in problems]
    if problems := common(found):
        raise ConfigError(problems)
