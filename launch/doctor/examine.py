"""Asks all hosts at once what they have, then measures the network between them, one pair after the other."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from launch.deploy.line import FOLDER, Route
from launch.doctor.diagnosis import Diagnosis
from launch.doctor.line import ProbeLine, Unreachable
from launch.doctor.wanted import Wanted
from launch.host_schema import Host, Hosts

CONNECT_S = 20.0
ASK_S = 20.0
PAIRS_S = 120.0
"""How long all pairs may take together."""
CLOCK_READINGS = 5
_AT_ONCE = 32


@dataclass(frozen=True)
class Clock:
    """A host's real time less this machine's, in seconds, and by how much that may be wrong."""

    offset_s: float
    uncertainty_s: float


@dataclass
class Examined:
    """What was found of one host.

    Attributes:
        host: which.
        diagnosis: why it cannot be asked; None where it answers.
        facts: as ``launch.doctor.probe_host.facts``; empty where it does not answer.
        noise: what its login shell printed.
        clock: None where it does not answer.
        listens: address and port at which it listens for measurements.
        deaf: why it does not listen.
    """

    host: Host
    diagnosis: Diagnosis | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    noise: str = ""
    clock: Clock | None = None
    listens: tuple[str, int] | None = None
    deaf: str | None = None


@dataclass(frozen=True)
class Way:
    """What was measured from one host to another; without ``error`` both numbers are there."""

    sender: str
    receiver: str
    round_trip_s: float | None = None
    bits_per_s: float | None = None
    error: str | None = None


def examine(
    hosts: Hosts,
    route: Route,
    wanted: Wanted,
    *,
    all_pairs: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> tuple[list[Examined], list[Way]]:
    """Ask all ``hosts`` and measure between those that answer; nothing of it is left there.

    Args:
        hosts: which.
        route: how hosts are reached.
        wanted: what to look for.
        all_pairs: measure between every two, not just along a ring and to the first.
        tell: hears a line before what takes time.
    """
    tell(f"asking {len(hosts.hosts)} hosts")
    token = secrets.token_hex(16)
    lines: dict[str, ProbeLine] = {}
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        try:
            ask = partial(_ask, hosts=hosts, route=route, wanted=wanted, token=token, lines=lines)
            examined = list(pool.map(ask, hosts.hosts))
            ways = _measure(examined, lines, token, all_pairs, tell)
        finally:
            list(pool.map(ProbeLine.close, lines.values()))
    return examined, ways


def _ask(
    host: Host,
    *,
    hosts: Hosts,
    route: Route,
    wanted: Wanted,
    token: str,
    lines: dict[str, ProbeLine],
) -> Examined:
    found = Examined(host)
    folder = host.folder or FOLDER
    request = {
        **asdict(wanted),
        "do": "facts",
        "bind": host.bind,
        "remote": not host.local,
        "given": host.python is not None,
        "ports": host.port_range,
        "towards": [other.target for other in hosts.hosts if other is not host],
        "folder": folder,
        "data": [host.data] if host.data else [*wanted.data, f"{folder}/data"],
    }
    try:
        line = lines[host.name] = ProbeLine(host, route)
        line.greet(CONNECT_S)
        found.facts = line.ask(request, ASK_S)
        found.clock = _read_clock(line)
        if found.facts["address"] is None:
            found.deaf = found.facts["no_address"]
        elif len(hosts.hosts) > 1:
            _listen(line, found, token)
        found.noise = line.noise
    except Unreachable as unreachable:
        found.diagnosis = unreachable.diagnosis
    return found


def _read_clock(line: ProbeLine) -> Clock:
    """From the reading whose round trip was shortest; half of that trip is what is not known."""
    readings = []
    for _ in range(CLOCK_READINGS):
        asked_s, began_s = time.time(), time.monotonic()
        there_s = line.ask({"do": "clock"}, ASK_S)["unix_s"]
        half_s = (time.monotonic() - began_s) / 2
        readings.append((half_s, there_s - asked_s - half_s))
    uncertainty_s, offset_s = min(readings)
    return Clock(offset_s, uncertainty_s)


def _listen(line: ProbeLine, found: Examined, token: str) -> None:
    address = found.facts["address"]
    answer = line.ask(
        {"do": "listen", "address": address, "ports": found.host.port_range, "token": token}, ASK_S
    )
    if "port" in answer:
        found.listens = address, answer["port"]
    else:
        found.deaf = f"no port of {found.host.ports or address} can be listened on: {answer['error']}"


def pairs(names: Sequence[str], all_pairs: bool) -> list[tuple[str, str]]:
    """Sender and receiver of each measurement: along a ring, and from all to the first; or every two."""
    if all_pairs:
        return [(sender, receiver) for sender in names for receiver in names if sender != receiver]
    ring = [(name, names[(index + 1) % len(names)]) for index, name in enumerate(names)]
    star = [(name, names[0]) for name in names[1:]]
    return list(dict.fromkeys(pair for pair in ring + star if pair[0] != pair[1]))


def _measure(
    examined: Sequence[Examined],
    lines: Mapping[str, ProbeLine],
    token: str,
    all_pairs: bool,
    tell: Callable[[str], None],
) -> list[Way]:
    """One after the other, so that none slows another; what does not fit into ``PAIRS_S`` says so."""
    answering = {found.host.name: found for found in examined if found.diagnosis is None}
    chosen = pairs(list(answering), all_pairs)
    if chosen:
        tell(f"measuring {len(chosen)} ways between {len(answering)} hosts")
    deadline_s = time.monotonic() + PAIRS_S
    ways = []
    for sender, receiver in chosen:
        target = answering[receiver]
        if answering[sender].diagnosis is not None:
            continue  # it was lost meanwhile
        if target.listens is None:
            ways.append(Way(sender, receiver, error=target.deaf))
        elif time.monotonic() > deadline_s:
            ways.append(Way(sender, receiver, error=f"not measured: {PAIRS_S:g} s were over"))
        else:
            address, port = target.listens
            request = {"do": "measure", "address": address, "port": port, "token": token}
            try:
                ways.append(Way(sender, receiver, **lines[sender].ask(request, ASK_S)))
            except Unreachable as unreachable:
                answering[sender].diagnosis = unreachable.diagnosis
    return ways
