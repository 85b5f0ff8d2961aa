"""One log file: JSON lines as ``decentral.records`` writes them, up to wherever the writer ended."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from decentral.records import SCHEMA_VERSION

Event: TypeAlias = Mapping[str, Any]
Columns: TypeAlias = dict[str, npt.NDArray[Any]]

KINDS = ("round", "evaluation", "lost", "end")
_OF_A_ROUND = frozenset({"round", "evaluation"})
_TEXT = frozenset({"split", "reason", "model_sha256", "outcome"})
_PLAIN = frozenset({float, int, type(None)})


@dataclass(frozen=True)
class Log:
    """What could be read of one file.

    Attributes:
        header: the header event, empty if there is none.
        events: the other events by kind, in the order of the file.
        problems: one sentence for everything that could not be read as promised.
    """

    header: Event
    events: Mapping[str, Sequence[Event]]
    problems: tuple[str, ...]


@dataclass
class _Findings:
    """Sentences about one file, the same kind of finding counted instead of repeated."""

    sentences: list[str] = field(default_factory=list)
    damaged: list[int] = field(default_factory=list)
    unknown: dict[str, int] = field(default_factory=dict)

    def all(self) -> tuple[str, ...]:
        found = list(self.sentences)
        if self.damaged:
            found.append(f"{len(self.damaged)} damaged line(s) left out, the first is line {self.damaged[0]}")
        found += [f"unknown event {kind!r}: {count} line(s) left out" for kind, count in self.unknown.items()]
        return tuple(found)


def read_log(path: Path, kinds: Sequence[str] = KINDS) -> Log:
    """Read one JSON-lines file; damage is reported in ``problems``, and all whole lines are kept.

    A last line that was cut off (its writer was killed) costs that line only. A file with an unknown schema
    version is read as far as its fields are known, and reported.

    Args:
        path: the file.
        kinds: events besides the header that such a file has; others are counted and left out.
    """
    findings = _Findings()
    try:
        content = path.read_bytes()
    except OSError as error:
        return Log({}, {kind: () for kind in kinds}, (f"cannot be read: {error.strerror}",))
    header: Event = {}
    events: dict[str, list[Event]] = {kind: [] for kind in kinds}
    for event in _lines(content, findings):
        kind = str(event.get("event"))
        if kind == "header":
            if header:
                findings.sentences.append("a second header was ignored: two writers used one file")
            else:
                header = event
        elif kind in kinds and (kind not in _OF_A_ROUND or _is_round(event.get("round"))):
            events[kind].append(event)
        elif kind in kinds:
            findings.unknown[f"{kind} without a round"] = (
                findings.unknown.get(f"{kind} without a round", 0) + 1
            )
        else:
            findings.unknown[kind] = findings.unknown.get(kind, 0) + 1
    if not header:
        findings.sentences.append(
            "has no header: what it would say is taken from its name and the other files, or missing"
        )
    elif header.get("v") != SCHEMA_VERSION:
        findings.sentences.append(
            f"schema version {header.get('v')!r} is unknown (this version reads {SCHEMA_VERSION}): "
            "read as far as its fields are known; use the version that wrote it to be sure"
        )
    return Log(header, events, findings.all())


def _is_round(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _lines(content: bytes, findings: _Findings) -> list[Event]:
    *lines, tail = content.split(b"\n")
    parsed = _at_once(lines)
    if parsed is None:
        parsed = _one_by_one(lines, findings)
    if tail.strip():
        last = _parse(tail)
        if isinstance(last, dict):
            parsed.append(last)
        else:
            findings.sentences.append(
                f"its last line is cut off after {len(tail)} bytes (its writer was ended); "
                "everything before it was read"
            )
    return parsed


def _at_once(lines: Sequence[bytes]) -> list[Event] | None:
    # One call of the parser for the whole file is three times as fast as one for every line.
    try:
        parsed = json.loads(b"[" + b",".join(lines) + b"]")
    except (ValueError, RecursionError):
        return None
    whole = len(parsed) == len(lines) and all(isinstance(event, dict) for event in parsed)
    return parsed if whole else None


def _one_by_one(lines: Iterable[bytes], findings: _Findings) -> list[Event]:
    parsed: list[Event] = []
    for number, line in enumerate(lines, start=1):
        event = _parse(line) if line.strip() else None
        if isinstance(event, dict):
            parsed.append(event)
        else:
            findings.damaged.append(number)
    return parsed


def _parse(line: bytes) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def columns(events: Sequence[Event], required: Iterable[str]) -> tuple[Columns, tuple[str, ...]]:
    """Turn events into one array per field: float64 for numbers (null is NaN), object for text.

    Args:
        events: events of one kind from one file.
        required: fields that get a column even if no event has them.

    Returns:
        The columns, each of shape (len(events),), and one sentence for every field with unusable values.
    """
    # Events of one kind and file have the same fields, but the final evaluation may have more.
    names = dict.fromkeys([*required, *(key for event in (*events[:1], *events[-1:]) for key in event)])
    table: Columns = {}
    problems = []
    for name in names:
        if name in ("event", "v"):
            continue
        values = [event.get(name) for event in events]
        if name in _TEXT:
            table[name] = np.array(
                [value if isinstance(value, str) else "" for value in values], dtype=object
            )
        elif name == "final":
            table[name] = np.array([value is True for value in values], dtype=bool)
        else:
            table[name], unusable = _numbers(values)
            if unusable:
                problems.append(f"{unusable} value(s) of {name!r} are no numbers and count as missing")
    return table, tuple(problems)


def _numbers(values: Sequence[object]) -> tuple[npt.NDArray[np.float64], int]:
    if set(map(type, values)) <= _PLAIN:
        with contextlib.suppress(OverflowError):
            return _finite(np.array(values, dtype=np.float64)), 0
    # An integer beyond 64 bits is damage too, and more than a float can hold.
    usable = [
        value if type(value) is float or (type(value) is int and abs(value) < 1 << 63) else None
        for value in values
    ]
    unusable = sum(value is not None and kept is None for value, kept in zip(values, usable, strict=True))
    return _finite(np.array(usable, dtype=np.float64)), unusable


def _finite(numbers: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    numbers[~np.isfinite(numbers)] = np.nan
    return numbers
