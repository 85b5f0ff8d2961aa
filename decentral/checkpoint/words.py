"""What the timekeeper and all other members tell each other to make a checkpoint (``leader``).

A node stands still where it waits or between two local steps: it reads nothing and pushes nothing. When all
do, the numbers of batches that they have pushed say what is still on its way; each reads what is on its way
to it, saves itself, and goes on when all have.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple, TypeAlias

from decentral.columns import column, listed, whole


class Present(NamedTuple):
    """From a member that has passed the start barrier: it can be told something now."""

    member: int


class Frozen(NamedTuple):
    """From a member that stands still.

    Attributes:
        member: who.
        pushed: (destination, batches pushed there since the beginning of the run).
    """

    member: int
    pushed: Sequence[tuple[int, int]]


class Saved(NamedTuple):
    """From a member that has saved itself and still stands.

    Attributes:
        member: who.
        name: its file.
        nbytes: length of the file.
        digest: its checksum.
        log_bytes: length of its log at the moment it will go on from.
    """

    member: int
    name: str
    nbytes: int
    digest: str
    log_bytes: int


class Freeze(NamedTuple):
    """To a member: stand still, checkpoint ``number`` is to be made."""

    number: int


class Save(NamedTuple):
    """To a member that stands still: read what is on its way to you, then save yourself.

    Attributes:
        number: of the checkpoint.
        expected: (sender, batches that it has pushed to you).
        least: what you saved for checkpoints before this one is not needed any more.
    """

    number: int
    expected: Sequence[tuple[int, int]]
    least: int


class Thaw(NamedTuple):
    """To a member that stands still: go on, whether the checkpoint was made or given up."""

    number: int


Order: TypeAlias = Freeze | Save | Thaw
Report: TypeAlias = Present | Frozen | Saved

MAX_NAME = 200


def encode(word: Order | Report) -> tuple[Any, ...]:
    """The fields of a word, for msgpack; the first says which it is."""
    match word:
        case Freeze() | Thaw() | Present():
            return type(word).__name__.lower(), word[0]
        case Frozen():
            return "frozen", word.member, _column(word.pushed)
        case Save():
            return "save", word.number, _column(word.expected), word.least
        case Saved():
            return "saved", *word


def decode_order(fields: Sequence[Any]) -> Order | None:
    """An order of the timekeeper; None if it is none.

    Raises:
        ValueError, TypeError, struct.error: it is one, but not whole.
    """
    match fields:
        case ["freeze", number]:
            return Freeze(whole(number))
        case ["thaw", number]:
            return Thaw(whole(number))
        case ["save", number, expected, least]:
            return Save(whole(number), _pairs(expected), whole(least))
    return None


def decode_report(fields: Sequence[Any]) -> Report | None:
    """A member's report; None if it is none.

    Raises:
        ValueError, TypeError, struct.error: it is one, but not whole.
    """
    match fields:
        case ["present", member]:
            return Present(whole(member))
        case ["frozen", member, pushed]:
            return Frozen(whole(member), _pairs(pushed))
        case ["saved", member, str(name), nbytes, str(digest), log_bytes]:
            if len(name) > MAX_NAME or "/" in name or len(digest) > MAX_NAME:
                raise ValueError("no name of a file, or no checksum")
            return Saved(whole(member), name, whole(nbytes), digest, whole(log_bytes))
    return None


def _column(pairs: Sequence[tuple[int, int]]) -> bytes:
    return column(chain.from_iterable(pairs))


def _pairs(data: bytes) -> list[tuple[int, int]]:
    numbers = map(whole, listed(data))
    return list(zip(numbers, numbers, strict=True))
