"""Whole numbers in words between members: each is checked; many are columns of 8 bytes, little-endian."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

from decentral.network.model import INFINITE_NS


def whole(number: Any, *, least: int = 0) -> int:
    """``number``, if it is a whole one from ``least`` to ``INFINITE_NS``.

    Raises:
        ValueError: it is not.
    """
    if type(number) is not int or not least <= number <= INFINITE_NS:
        raise ValueError(f"{number!r} instead of a whole number")
    return number


def column(numbers: Iterable[int]) -> bytes:
    """``numbers`` as a column."""
    values = tuple(numbers)
    return struct.pack(f"<{len(values)}q", *values)


def listed(column: bytes) -> list[int]:
    """The numbers in ``column``.

    Raises:
        TypeError, struct.error: it is none.
    """
    return list(struct.unpack(f"<{len(column) // 8}q", column))
