"""From the spelling of the file to complete arms: short forms, defaults, overrides."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from decentral.config.problems import sentence
from decentral.errors import ConfigError

Table = dict[str, Any]

Path: TypeAlias = tuple[str, ...]

_PARTS: set[Path] = {("algorithm",), ("topology",), ("network",), ("data",), ("data", "partition")}
_NO_SETTINGS: dict[Path, Path] = {
    ("data",): ("partition", "validation")
}  # keys of a part's table that do not belong to the part
_ALTERNATIVES: dict[Path, dict[str, str]] = {
    ("train",): {"local_steps": "full_epochs", "full_epochs": "local_steps"}
}
_KEY = r"(?:[A-Za-z0-9_-]+|\"[^\"\\]*\"|'[^']*')"
_ASSIGNMENT = re.compile(rf"\s*({_KEY}(?:\.{_KEY})*)\s*=(.*)", re.DOTALL)


@dataclass(frozen=True)
class Override:
    """One ``--set``: ``table`` is merged over every arm, or over the arm of the name ``arm`` alone."""

    table: Table
    arm: str | None = None


def parse_override(text: str) -> Override:
    """``key.path=value``, the value in TOML's spelling or else a bare string.

    ``arm.NAME.key.path=value`` addresses one arm; a name with other characters than letters, digits, ``_``
    and ``-`` is quoted as in TOML.

    Raises:
        ConfigError: not of that form.
    """
    match = _ASSIGNMENT.fullmatch(text)
    if match is None:
        raise ConfigError(
            sentence("--set", text, "must be key.path=value", "write for example train.lr=0.05")
        )
    keys = [key.strip("\"'") for key in re.findall(_KEY, match[1])]
    arm = None
    if keys[0] == "arm":
        if len(keys) < 3:
            step = 'write arm."NAME".key.path=value, or edit the file to change the list of arms'
            raise ConfigError(sentence("--set", text, "must name an arm and one of its keys", step))
        arm, keys = keys[1], keys[2:]
    table: Any = _value(match[2].strip())
    for key in reversed(keys):
        table = {key: table}
    return Override(table, arm)


def _value(text: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return parsed["value"] if len(parsed) == 1 else text


def merged(base: Mapping[str, Any], over: Mapping[str, Any], path: Path = ()) -> Table:
    """``base`` with the keys of ``over`` in place of its own, table by table.

    Where ``over`` gives a part another name, ``base``'s settings of that part are dropped; where it gives
    one of two alternatives, the other is dropped.
    """
    kept = dict(base)
    if path in _PARTS and "name" in over and over["name"] != base.get("name"):
        kept = {key: base[key] for key in _NO_SETTINGS.get(path, ()) if key in base}
    for key, other in _ALTERNATIVES.get(path, {}).items():
        if key in over:
            kept.pop(other, None)
    for key, value in over.items():
        inner = (*path, key)
        below, above = _table(kept.get(key), inner), _table(value, inner)
        mergeable = isinstance(below, Mapping) and isinstance(above, Mapping)
        kept[key] = merged(below, above, inner) if mergeable else value
    return kept


def _table(value: Any, path: Path) -> Any:
    return {"name": value} if path in _PARTS and isinstance(value, str) else value


def canonical(arm: Mapping[str, Any]) -> Table:
    """``arm`` with every part as ``name`` and ``settings``; values of other types are left to the schema."""
    result = dict(arm)
    for key in ("algorithm", "topology", "network", "data"):
        if key in result:
            result[key] = _part(result[key], (key,))
    return result


def _part(value: Any, path: Path) -> Any:
    value = _table(value, path)
    if not isinstance(value, Mapping):
        return value
    own = ("name", *_NO_SETTINGS.get(path, ()))
    part = {key: value[key] for key in own if key in value}
    if "partition" in part:
        part["partition"] = _part(part["partition"], (*path, "partition"))
    return {**part, "settings": {key: value[key] for key in value if key not in own}}
