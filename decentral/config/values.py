"""Checks of single values, each with a sentence of ours."""

from __future__ import annotations

import re

from pydantic_core import PydanticCustomError

NAME_LENGTH = 80
_RUN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
PERTURB = re.compile(r"perturb\(\s*([0-9.]+(?:[eE][+-]?[0-9]+)?)\s*\)")


def refusal(
    expectation: str, step: str, key: str = "", value: object = None, incomplete: bool = False
) -> PydanticCustomError:
    """An error whose sentence is ours.

    Args:
        expectation: what was expected.
        step: what the user should do next.
        key: dotted key below the table that is validated, where the error is about one of its keys.
        value: that key's value.
        incomplete: the error may vanish when more keys are given (it is no error of an arm's defaults alone).
    """
    context = {"expectation": expectation, "step": step, "key": key, "value": value}
    return PydanticCustomError("incomplete" if incomplete else "refused", "refused", context)


def run_name(name: str) -> str:
    """The name of a run, which names its folder; characters that shells may take for more are refused."""
    if not _RUN_NAME.fullmatch(name) or len(name) > NAME_LENGTH:
        raise refusal(
            f"must be 1 to {NAME_LENGTH} of the characters A-Z a-z 0-9 . _ - and not start with . or -",
            'use a name such as "mosaic-vs-el"',
        )
    return name


def arm_name(name: str) -> str:
    """The name of an arm; what does not print, names no folder or lies in another one is refused."""
    if not name.strip() or len(name) > NAME_LENGTH or not name.isprintable() or name in {".", ".."}:
        raise refusal(
            f'must be 1 to {NAME_LENGTH} printable characters and not "." or ".."',
            'use a name such as "Mosaic K=16"',
        )
    if "/" in name or "\\" in name:
        raise refusal(r"names a folder, so / and \ are not allowed", "use - in their place")
    return name


def init(text: str) -> str:
    """How models begin; anything but the three ways is refused."""
    match = PERTURB.fullmatch(text)
    if text in {"common", "independent"} or (match and _positive(match[1])):
        return text
    raise refusal(
        'must be "common", "independent" or "perturb(m)" with a number m > 0', 'use for example "common"'
    )


def _positive(text: str) -> bool:
    try:
        return 0 < float(text) < float("inf")
    except ValueError:
        return False


def nodes(n: int) -> int:
    """The number of nodes; fewer than 2 are refused."""
    if n < 2:  # a single node has nobody to exchange models with, so every algorithm here is undefined
        raise refusal("at least 2 nodes are needed to learn together", "use for example nodes = 16")
    return n


def distinct(seeds: tuple[int, ...]) -> tuple[int, ...]:
    """Seeds; one that occurs twice is refused."""
    if len(set(seeds)) < len(seeds):
        raise refusal("a seed repeats, which would count one run twice", "list every seed once")
    return seeds
