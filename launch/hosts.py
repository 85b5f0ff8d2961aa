"""The machines of a run: from a TOML file, from a list of names, or what Slurm has allocated."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from decentral.config.explain import explain
from decentral.config.problems import choose, common, dotted, sentence
from decentral.config.values import NAME_LENGTH
from decentral.errors import ConfigError
from launch.host_schema import NAME, OF_SSH, Host, Hosts
from launch.hostlist import cores_of, expand

__all__ = ["Host", "Hosts", "load_hosts", "slurm_hosts"]

_OF_ONE_HOST = ("name", "address", "bind", "nodes", "regions", "local")
"""Keys that no two hosts can share, so they have no place in [defaults]."""
_TOML_LINE = re.compile(r"\s*(?:\[|[\w\"'.-]+\s*=)")


def load_hosts(path: Path) -> Hosts:
    """The hosts in the file ``path``: TOML with ``[[host]]`` and ``[defaults]``, or a name on every line.

    Raises:
        ConfigError: it cannot be read or anything in it is impossible: all problems at once.
    """
    text = _read(path)
    lines = [line.split("#", 1)[0].strip() for line in text.splitlines()]
    names = [line for line in lines if line]
    if path.suffix == ".toml" or any(map(_TOML_LINE.match, names)):
        defaults, tables = _parse(path, text)
    else:
        defaults, tables = {}, [{"name": name} for name in names]
    if not tables:
        step = 'add a table [[host]] with name = "..." for every host, or write a name on every line'
        raise ConfigError(sentence("hosts", str(path), "names no host", step))
    return Hosts(hosts=_judge(defaults, tables), source=str(path), kind="ssh")


def slurm_hosts(environ: Mapping[str, str]) -> Hosts:
    """The hosts of the Slurm allocation that ``environ`` tells of, each with its cores.

    Raises:
        ConfigError: there is none, or it is told in a form that Slurm does not use.
    """
    listed = environ.get("SLURM_JOB_NODELIST")
    if not listed:
        step = "run it inside salloc or sbatch, or name the hosts with --hosts FILE"
        raise ConfigError(
            sentence("$SLURM_JOB_NODELIST", listed, "is not set outside a Slurm allocation", step)
        )
    names = expand(listed)
    cpus = environ.get("SLURM_JOB_CPUS_PER_NODE")
    cores = cores_of(cpus) if cpus else [None] * len(names)
    if len(cores) != len(names):
        told = f"is for {len(cores)} hosts, and $SLURM_JOB_NODELIST names {len(names)}"
        step = "unset it; cores are then counted on each host"
        raise ConfigError(sentence("$SLURM_JOB_CPUS_PER_NODE", cpus, told, step))
    hosts = tuple(Host(name=name, local=False, cores=count) for name, count in zip(names, cores, strict=True))
    return Hosts(hosts=hosts, source="$SLURM_JOB_NODELIST", kind="slurm")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        problem, step = f"is not UTF-8 text (byte {error.start})", "save it as UTF-8"
    except OSError as error:
        problem, step = f"cannot be read ({error.strerror})", "give the path of a readable hosts file"
    raise ConfigError(sentence("hosts", str(path), problem, step))


def _parse(path: Path, text: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """[defaults] and the [[host]] tables."""
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        step = "correct that line, or write nothing but a name on every line"
        raise ConfigError(sentence("hosts", str(path), f"is not TOML: {error}", step)) from error
    known = ("host", "defaults")
    problems = [
        sentence(dotted(key), document[key], "is not a known key", choose(key, known))
        for key in document
        if key not in known
    ]
    defaults, tables = document.get("defaults", {}), document.get("host", [])
    if not isinstance(defaults, dict):
        problems.append(sentence("defaults", defaults, "must be a table", "write [defaults] above its keys"))
    else:
        problems += [
            sentence(dotted("defaults", key), defaults[key], "is of one host alone", "move it to [[host]]")
            for key in _OF_ONE_HOST
            if key in defaults
        ]
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        problems.append(
            sentence("host", tables, "must be a list of tables", "write [[host]] above every host")
        )
    if problems:
        raise ConfigError(problems)
    return defaults, tables


def _judge(defaults: Mapping[str, Any], tables: Sequence[Mapping[str, Any]]) -> tuple[Host, ...]:
    """The hosts; raises all problems at once, those of ``defaults`` and those that all hosts share once."""
    _, own = _host({**defaults, "name": "defaults"})
    hosts: list[Host] = []
    by_host: dict[str, list[str]] = {}
    for number, table in enumerate(tables, 1):
        here = table.get("local", table.get("name") == "localhost")
        inherited = {key: defaults[key] for key in defaults if not (here and key in OF_SSH)}
        host, problems = _host({**inherited, **table})
        hosts += [host] if host is not None else []
        label = f'host "{table.get("name")}"' if host is not None or _is_name(table) else f"host {number}"
        label = f"host {number}" if label in by_host else label
        by_host[label] = [problem for problem in problems if problem not in own]
    found = [f"defaults.{problem}" for problem in own] + common(by_host) + _clashes(hosts)
    if found:
        raise ConfigError(found)
    return tuple(hosts)


def _is_name(table: Mapping[str, Any]) -> bool:
    name = table.get("name")
    return isinstance(name, str) and len(name) <= NAME_LENGTH and NAME.fullmatch(name) is not None


def _host(table: Mapping[str, Any]) -> tuple[Host | None, list[str]]:
    try:
        return Host.model_validate(table), []
    except ValidationError as error:
        return None, explain(error, Host, table)


def _clashes(hosts: Sequence[Host]) -> list[str]:
    """What two hosts cannot both have."""
    step = "give every host a name of its own, and address = ... where they are one machine"
    problems = [
        sentence("host.name", name, f"is the name of {count} hosts", step)
        for name, count in Counter(host.name for host in hosts).items()
        if count > 1
    ]
    for key in ("nodes", "regions"):
        entries = Counter(entry for host in hosts for entry in getattr(host, key) or ())
        for entry in (entry for entry, count in entries.items() if count > 1):
            owners = ", ".join(host.name for host in hosts if entry in (getattr(host, key) or ()))
            problems.append(sentence(f"host.{key}", entry, f"is listed by {owners}", "leave it to one host"))
    return problems
