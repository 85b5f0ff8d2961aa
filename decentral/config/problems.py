"""Every refusal as one sentence: ``key.path = value: expectation; next step``."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterable, Mapping, Sequence

_SHOWN_LENGTH = 60
_NOT_SET = "(not set)"


def shown(value: object) -> str:
    """``value`` as the file would spell it, cut to a readable length."""
    text = _spelled(value)
    return text if len(text) <= _SHOWN_LENGTH else text[: _SHOWN_LENGTH - 3] + "..."


def _spelled(value: object) -> str:
    if value is None:
        return _NOT_SET
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else f"{'-' * (value < 0)}inf"
    if isinstance(value, bool | int | float | str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {_spelled(item)}" for key, item in value.items()) + "}"
    if isinstance(value, Sequence):
        return "[" + ", ".join(map(_spelled, value)) + "]"
    return str(value)


def sentence(key: str, value: object, expectation: str, step: str) -> str:
    """One problem; ``None`` is a key that is not set."""
    return f"{key} = {shown(value)}: {expectation}; {step}"


def choose(word: object, known: Iterable[str]) -> str:
    """The next step after an unknown ``word``: the nearest of ``known``, or all of them."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1) if isinstance(word, str) else []
    if near:
        return f"did you mean {near[0]}?"
    return f"use one of {', '.join(known)}" if known else "remove it"


def common(problems: Mapping[str, Sequence[str]]) -> list[str]:
    """Problems of several arms, each once: as it is where all arms have it, else after ``arm "NAME": ``.

    Args:
        problems: by the arm's prefix (``arm "NAME"``).
    """
    shared = set.intersection(*map(set, problems.values())) if problems else set()
    found = [
        problem if problem in shared else f"{arm}: {problem}" for arm in problems for problem in problems[arm]
    ]
    return list(dict.fromkeys(found))


def dotted(*keys: object) -> str:
    """A key path as the file would spell it."""
    path = ""
    for key in keys:
        if isinstance(key, int):
            path += f"[{key}]"
        elif key != "":
            text = str(key)
            bare = text != "" and all(c.isascii() and (c.isalnum() or c in "_-.") for c in text)
            path += ("." if path else "") + (text if bare else json.dumps(text, ensure_ascii=False))
    return path
