"""What an experiment would put on every host: plain data for the command line; no host is touched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import TypeAlias

from decentral.config import Arm, Experiment
from decentral.config.problems import common, sentence
from decentral.errors import ConfigError
from launch.compose import settled
from launch.crossing import crossings
from launch.files import check_sizes
from launch.host_schema import Host, Hosts
from launch.overview import size
from launch.own import check_own, own_modules
from launch.placement import Placement, ranges
from launch.placing import check_placement, place_arm
from launch.preflight import Demand
from launch.rounds import most_rounds

Rows: TypeAlias = tuple[tuple[str, ...], ...]

UNKNOWN = "unknown"
NONE = "-"
PLACEMENT_HEADER = (
    *("host", "reached at", "listens on", "ports", "sockets", "cores"),
    *("nodes", "also", "processes per core", "pinned to"),
)
LOAD_HEADER = ("arms", "host", "memory", "disk", "to other hosts", "to other hosts in a run")


def check_hosts(experiment: Experiment, hosts: Hosts) -> None:
    """Refuse hosts that do not fit every arm of ``experiment``, which is checked.

    Raises:
        ConfigError: lists that do not fit, ranges of ports too small for what is placed, or files too large
            to be sent, modules that cannot be: all problems.
    """
    arms = settled(experiment).arms
    check_placement(arms, experiment.seeds, hosts)
    found = {
        f'arm "{arm.name}"': [
            problem
            for seed in experiment.seeds
            for problem in _port_problems(place_arm(arm, seed, hosts), hosts)
        ]
        + _size_problems(arm)
        for arm in arms
    }
    if problems := common(found) + check_own(own_modules(experiment), hosts.hosts):
        raise ConfigError(problems)


def _size_problems(arm: Arm) -> list[str]:
    try:
        check_sizes(arm)
    except ConfigError as error:
        return list(error.problems)
    return []


def host_tables(
    experiment: Experiment, hosts: Hosts, cores: Mapping[str, int] | None = None
) -> list[tuple[str, Sequence[str], list[list[str]]]]:
    """Title, heading and rows: every placement that arms have, and what they load hosts with.

    Args:
        experiment: complete and checked, as are ``hosts`` with it.
        hosts: of the run.
        cores: usable ones by host where that is known.
    """
    seed = experiment.seeds[0]
    placed: dict[Rows, list[str]] = {}
    loads: dict[Rows, list[str]] = {}
    for arm in settled(experiment).arms:
        placement = place_arm(arm, seed, hosts, cores)
        rows = tuple(_placed(host, placement) for host in hosts.hosts)
        placed.setdefault(rows, []).append(arm.name)
        loads.setdefault(_loads(arm, seed, placement), []).append(arm.name)
    tables: list[tuple[str, Sequence[str], list[list[str]]]] = [
        (
            f"placement of {'all arms' if len(placed) == 1 else ', '.join(names)}",
            PLACEMENT_HEADER,
            _listed(rows),
        )
        for rows, names in placed.items()
    ]
    loaded = [[", ".join(names), *row] for rows, names in loads.items() for row in rows]
    return [*tables, ("load of the hosts", LOAD_HEADER, loaded)]


def _listed(rows: Rows) -> list[list[str]]:
    return [list(row) for row in rows]


def notes(experiment: Experiment, hosts: Hosts, cores: Mapping[str, int] | None = None) -> list[str]:
    """What a reader must know of ``host_tables``."""
    arms = settled(experiment).arms
    told = [
        "to other hosts: payload at most, in a round of all nodes; snapshots for the observer are in the "
        "sum of a run alone, control messages in neither; disk: of one run"
    ]
    silent = [host.name for host in hosts.hosts if host.cores is None and host.name not in (cores or {})]
    if silent:
        told.append(
            f"cores of {_names(silent, hosts)} are unknown and taken to be as many as the fewest that are "
            "known; decentral doctor counts them, and a run places nodes by what it finds"
        )
    if any(host.bind is None for host in hosts.hosts):
        told.append(
            "hosts without bind listen on the address that ssh comes in by, else on the one from which the "
            "way to the other hosts leads"
        )
    if len(experiment.seeds) > 1:
        told.append(f"regions, graphs and so placements and traffic are those of seed {experiment.seeds[0]}")
    return [*told, _duration(arms)]


def _placed(host: Host, placement: Placement) -> tuple[str, ...]:
    members = placement.members_on(host.name)
    cores = placement.cores[host.name]
    names = {placement.n: "observer", placement.n + 1: "timekeeper"}
    pins = [core for member in members if (core := placement.core_of[member]) is not None]
    return (
        host.name,
        _reached(host),
        host.bind or NONE,
        host.ports or "any",
        str(placement.tcp_sockets(host.name)),
        UNKNOWN if cores is None else str(cores),
        ranges(placement.nodes_on(host.name)) or NONE,
        ", ".join(names[member] for member in members if member >= placement.n) or NONE,
        UNKNOWN if cores is None else f"{len(members) / cores:.3g}",
        UNKNOWN if cores is None else ranges(pins) or NONE,
    )


def _loads(arm: Arm, seed: int, placement: Placement) -> Rows:
    demand, rounds = Demand.of(arm, seed), most_rounds(arm, seed)
    evaluations = 1 + ceil(rounds / arm.run.test_after)  # the first and the last state always are
    rows = []
    for host, sent in crossings(demand, seed, placement).items():
        nodes, used = len(placement.nodes_on(host)), bool(placement.members_on(host))
        needs = (demand.memory_bytes(nodes), demand.disk_bytes(nodes)) if used else (0, 0)
        counts = (*needs, sent.round_bytes, sent.run_bytes(rounds, evaluations))
        rows.append((host, *(UNKNOWN if count is None else size(count) for count in counts)))
    return tuple(rows)


def _port_problems(placement: Placement, hosts: Hosts) -> list[str]:
    problems = []
    for host in hosts.hosts:
        if host.port_range is None:
            continue
        count, needed = host.port_range[1] - host.port_range[0] + 1, placement.tcp_sockets(host.name)
        if needed > count:
            told = f"are {count} ports, and {needed} processes are placed there, each with one"
            step = (
                f'write a longer range such as "{host.port_range[0]}-{host.port_range[0] + 2 * needed - 1}"'
            )
            problems.append(f'host "{host.name}": {sentence("ports", host.ports, told, step)}')
    return problems


def _reached(host: Host) -> str:
    if host.local:
        return "this machine"
    user = f"{host.user}@" if host.user else ""
    return f"{user}{host.target}" + (f" port {host.port}" if host.port else "")


def _names(names: Sequence[str], hosts: Hosts) -> str:
    return "all hosts" if len(names) == len(hosts.hosts) else ", ".join(names)


def _duration(arms: Sequence[Arm]) -> str:
    limits = [arm.run.time_limit_s for arm in arms if arm.run.clock == "wall"]
    known = [limit for limit in limits if limit is not None]
    if len(known) == len(arms):
        return f"real time: at most {sum(known):g} s for each seed, and the start"
    return (
        "real time: unknown, it depends on how fast these hosts train; decentral run --dry-run --predict "
        "tells the emulated time"
    )
