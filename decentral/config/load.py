"""Reading an experiment file."""

from __future__ import annotations

import datetime
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from decentral.config.explain import explain
from decentral.config.merge import Override, Table, canonical, merged, parse_override
from decentral.config.problems import choose, common, dotted, sentence, shown
from decentral.config.schema import Arm, Experiment, Header
from decentral.config.values import NAME_LENGTH
from decentral.errors import ConfigError

SHIPPED = Path(__file__).resolve().parents[2] / "launch" / "experiments"
"""Folder of the experiments that come with the project."""


def load(path: Path, overrides: Sequence[str] = (), seeds: Sequence[int] | None = None) -> Experiment:
    """The experiment in the file ``path``, or the shipped one where ``path`` is just a shipped name.

    Args:
        path: a TOML file.
        overrides: ``key.path=value`` each; they hold for every arm, or for one as ``arm.NAME.key=value``.
            A later one wins.
        seeds: take the place of the file's.

    Raises:
        ConfigError: the file is missing or no TOML, or anything in it or the overrides is impossible:
            all problems at once. Settings of parts are not looked at; ``launch.compose.check`` does that.
    """
    source = _read(path)
    try:
        document = tomllib.loads(source)
    except tomllib.TOMLDecodeError as error:
        reason, _, place = str(error).partition(" (at ")
        where = place.rstrip(")") or "an unknown place"
        raise ConfigError(
            sentence("experiment", str(path), f"is not TOML at {where}: {reason}", "correct that line")
        ) from error
    except RecursionError as error:
        raise ConfigError(
            sentence("experiment", str(path), "is nested too deeply", "flatten its lists and tables")
        ) from error
    problems: list[str] = []
    changes: list[Override] = []
    for text in overrides:
        try:
            changes.append(parse_override(text))
        except ConfigError as error:
            problems += error.problems
    dates = [
        text for table in (document, *(change.table for change in changes)) for text in _dates(table, ())
    ]
    if dates:
        raise ConfigError([*problems, *dates])
    if seeds is not None:
        changes.append(Override({"seeds": list(seeds)}))
    return _experiment(document, changes, problems, source)


def _read(path: Path) -> str:
    shipped = SHIPPED / f"{path.name}.toml"
    try:
        if path == Path(path.name) and not path.exists() and shipped.is_file():
            return shipped.read_text(encoding="utf-8")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        names = sorted(file.stem for file in SHIPPED.glob("*.toml"))
        step = f"give the path of a file or a shipped one: {', '.join(names)}"
        raise ConfigError(sentence("experiment", str(path), "is no file", step)) from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            sentence("experiment", str(path), f"is not UTF-8 text (byte {error.start})", "save it as UTF-8")
        ) from error
    except OSError as error:
        raise ConfigError(
            sentence("experiment", str(path), f"cannot be read ({error.strerror})", "give a readable file")
        ) from error


def _dates(value: Any, path: tuple[str | int, ...]) -> list[str]:
    """TOML's dates and times have no place in an experiment, nor in JSON."""
    if isinstance(value, datetime.date | datetime.time):
        return [sentence(dotted(*path), value, "is a date or time", "write a string in quotes or a number")]
    if isinstance(value, Mapping):
        return [text for key, item in value.items() for text in _dates(item, (*path, key))]
    if isinstance(value, list):
        return [text for index, item in enumerate(value) for text in _dates(item, (*path, index))]
    return []


def _experiment(document: Table, changes: list[Override], problems: list[str], source: str) -> Experiment:
    by_all = [change.table for change in changes if change.arm is None]
    top = document
    for table in by_all:
        top = merged(top, table)
    header = _header({key: top[key] for key in Header.model_fields if key in top}, problems)
    # Defaults are judged alone first: their mistakes are told once, and even where every arm overrides them.
    _, own = _judge({**_armwise(top), "name": "defaults"}, tolerate=True)
    complete: list[Table] = []
    overs = _arm_tables(document.get("arm", []), problems) or [{"name": _implicit_name(top)}]
    for over in overs:
        table = merged(_armwise(document), over)
        for change in by_all:
            table = merged(table, _armwise(change))
        complete.append(table)
    _address(complete, changes, problems)
    arms: list[Arm] = []
    by_arm: dict[str, list[str]] = {}
    for number, table in enumerate(complete, 1):
        arm, found = _judge(table)
        arms += [arm] if arm is not None else []
        name = table.get("name")
        label = f'arm "{name}"' if isinstance(name, str) and 0 < len(name) <= NAME_LENGTH else f"arm {number}"
        label = f"arm {number}" if label in by_arm or not label.isprintable() else label
        by_arm[label] = [text for text in found if text not in own]
    problems += own + common(by_arm) + _name_problems(arms)
    if problems or header is None:
        raise ConfigError(list(dict.fromkeys(problems)))
    inherited = {
        arm.name: _inherited(arm.name, top, over, changes) for arm, over in zip(arms, overs, strict=True)
    }
    return Experiment(**header.model_dump(), arms=tuple(arms), source=source, inherited=inherited)


def _armwise(top: Table) -> Table:
    """Keys of the top level that arms inherit."""
    return {key: value for key, value in top.items() if key not in {*Header.model_fields, "arm"}}


def _header(table: Table, problems: list[str]) -> Header | None:
    if isinstance(table.get("seeds"), list):
        table = {**table, "seeds": tuple(table["seeds"])}
    try:
        return Header.model_validate(table)
    except ValidationError as error:
        problems += explain(error, Header, table)
        return None


def _arm_tables(value: Any, problems: list[str]) -> list[Table]:
    if not isinstance(value, list) or not all(isinstance(table, dict) for table in value):
        problems.append(sentence("arm", value, "must be a list of tables", "write [[arm]] above every arm"))
        return []
    shared = Header.model_fields.keys() - {"name"}
    for table in value:
        for key in sorted(shared & table.keys()):
            step = "move it to the top of the file"
            problems.append(sentence(dotted("arm", key), table[key], "is the same for all arms", step))
    return [{key: item for key, item in table.items() if key not in shared} for table in value]


def _implicit_name(defaults: Table) -> Any:
    """Without [[arm]] the one arm is called after its algorithm."""
    part = defaults.get("algorithm")
    name = part.get("name") if isinstance(part, Mapping) else part
    return name.rpartition(":")[2] if isinstance(name, str) and name.rpartition(":")[2] else "arm"


def _address(tables: list[Table], changes: list[Override], problems: list[str]) -> None:
    """Apply the overrides that name an arm, in place."""
    for change in changes:
        if change.arm is None:
            continue
        hits = [index for index, table in enumerate(tables) if table.get("name") == change.arm]
        if not hits:
            names = [str(table["name"]) for table in tables if "name" in table]
            key = f"--set {dotted('arm', change.arm)}"
            problems.append(
                sentence(key, change.table, "there is no arm of this name", choose(change.arm, names))
            )
        for index in hits:
            tables[index] = merged(tables[index], change.table)


def _inherited(name: str, top: Table, over: Table, changes: list[Override]) -> tuple[str, ...]:
    """Keys of the arm ``name`` that neither its own table nor an override of this arm mentions."""
    own = {*over, *(key for change in changes if change.arm == name for key in change.table)}
    return tuple(key for key in _armwise(top) if key not in own)


def _judge(table: Table, tolerate: bool = False) -> tuple[Arm | None, list[str]]:
    document = canonical(table)
    try:
        return Arm.model_validate(document), []
    except ValidationError as error:
        known = Header.model_fields.keys() | {"arm"}
        found = explain(error, Arm, document, known=known, tolerate_incomplete=tolerate)
        return None, [f"arm.{text}" if text.startswith("name = ") else text for text in found]


def _name_problems(arms: list[Arm]) -> list[str]:
    problems = []
    names = Counter(arm.name for arm in arms)
    for name, count in names.items():
        if count > 1:
            step = "give each arm a name of its own"
            problems.append(sentence("arm.name", name, f"is the name of {count} arms", step))
    folders: dict[str, str] = {}
    for arm in arms:
        other = folders.setdefault(arm.slug.casefold(), arm.name)
        if other != arm.name:
            expectation = f"would share the folder {arm.slug} with arm {shown(other)}"
            problems.append(sentence("arm.name", arm.name, expectation, "rename one of the two"))
    return problems
