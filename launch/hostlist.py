"""Slurm's compressed notations: lists of node names and of their numbers of cores."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product
from math import prod

from decentral.config.problems import sentence
from decentral.config.values import NAME_LENGTH
from decentral.errors import ConfigError
from launch.host_schema import NAME

MOST_HOSTS = 10_000
_PIECE = re.compile(r"\[([^\[\]]*)\]|([^\[\],]+)")
_RANGE = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?")
_CPUS = re.compile(r"(\d{1,6})(?:\(x(\d{1,6})\))?")


def expand(listed: str) -> list[str]:
    """Names in Slurm's notation, each written out: ``n[08-10,12],x`` is n08, n09, n10, n12, x.

    Raises:
        ConfigError: not in that notation, more than ``MOST_HOSTS``, or no names.
    """
    names: list[str] = []
    for word in _words(listed):
        pieces = list(_PIECE.finditer(word))
        if not word or "".join(piece[0] for piece in pieces) != word:
            raise _malformed(listed, f"has the part {word!r}")
        choices = [[piece[2]] if piece[1] is None else _numbers(piece[1], listed) for piece in pieces]
        if len(names) + prod(map(len, choices)) > MOST_HOSTS:
            raise _malformed(listed, f"names more than {MOST_HOSTS} hosts")
        names += map("".join, product(*choices))
    for name in names:
        if not NAME.fullmatch(name) or len(name) > NAME_LENGTH:
            raise _malformed(listed, f"has the name {name!r}")
    if len(set(names)) < len(names):
        raise _malformed(listed, "names a host twice")
    return names


def cores_of(cpus: str) -> list[int | None]:
    """The numbers of ``4(x2),8``, one for every host: 4, 4, 8.

    Raises:
        ConfigError: not in that notation.
    """
    cores: list[int | None] = []
    for word in cpus.split(","):
        match = _CPUS.fullmatch(word)
        if match is None or int(match[1]) < 1 or int(match[2] or 1) > MOST_HOSTS:
            step = "unset it; cores are then counted on each host"
            raise ConfigError(
                sentence("$SLURM_JOB_CPUS_PER_NODE", cpus, f"has the part {word!r}, which is no number", step)
            )
        cores += [int(match[1])] * int(match[2] or 1)
    return cores


def _words(listed: str) -> Iterator[str]:
    """Cut at the commas that are outside brackets."""
    depth, start = 0, 0
    for position, character in enumerate(listed):
        depth += (character == "[") - (character == "]")
        if character == "," and depth == 0:
            yield listed[start:position]
            start = position + 1
    yield listed[start:]


def _numbers(text: str, listed: str) -> list[str]:
    """The numbers of ``08-10,12``, zeros in front kept."""
    numbers: list[str] = []
    for word in text.split(","):
        match = _RANGE.fullmatch(word)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if match is None or last < first:
            raise _malformed(listed, f"has the range {word!r}")
        if last - first >= MOST_HOSTS:
            raise _malformed(listed, f"names more than {MOST_HOSTS} hosts")
        numbers += [str(number).zfill(len(match[1])) for number in range(first, last + 1)]
    return numbers


def _malformed(listed: str, what: str) -> ConfigError:
    step = "name the hosts with --hosts FILE; `scontrol show hostnames` writes a list of them"
    return ConfigError(
        sentence("$SLURM_JOB_NODELIST", listed, f"{what}, which Slurm does not write so", step)
    )
