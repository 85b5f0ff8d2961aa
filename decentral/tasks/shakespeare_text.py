"""Shakespeare's lines as numbered characters: the vocabulary, and readers of plays and of LEAF's JSON."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase, digits
from typing import Any, NamedTuple

import numpy as np

from decentral.arrays import AnyArray, IntArray
from decentral.errors import DataError

SEQUENCE = 80
"""Characters a model reads before it predicts the next one (LEAF)."""

VOCABULARY = ("\n\r !\"#$%&'()*,-./" + digits + ":;<>?@" + ascii_uppercase + "[]_" + ascii_lowercase) + "{{}}"
"""92 entries, 90 distinct: both braces occur twice, as in the models of the literature, whose size follows
from it; the first of each pair is never used. The order, of no effect on learning, is ours."""

UNKNOWN = "_"
"""What characters outside the vocabulary are read as; the plays have neither."""

_CODES = np.full(256, VOCABULARY.index(UNKNOWN), dtype=np.uint8)
for _index, _character in enumerate(VOCABULARY):
    _CODES[ord(_character)] = _index

_BEGIN = re.compile(r"^\s*ACT I\s*$", re.MULTILINE)
_HEADING = re.compile(r"(ACT|SCENE)\b")
_INTERLUDE = re.compile(r"(PROLOGUE|EPILOGUE)\.?")
# The play's title stands before every act and scene; nobody says it.
_TITLE = re.compile(r"^[ \t]+[A-Z0-9 ,.']+\n\s*\n(?=ACT [IVX]+\b)", re.MULTILINE)
# Bars join lines that several say; a bracket is left over where a direction holds an empty line.
_MARKS = str.maketrans("|]", "  ")
# Some directions lack their closing bracket; they end with their paragraph.
_DIRECTION = re.compile(r"\[(?:[^\]\n]|\n(?!\s*\n))*\]?")


class Corpus(NamedTuple):
    """Encoded text and where its samples lie.

    Sample i reads ``text[starts[i] : starts[i] + 80]`` and predicts ``text[starts[i] + 80]``; samples of one
    group may overlap, those of two groups never do.
    """

    text: AnyArray
    """Indices into ``VOCABULARY``, uint8, shape (characters,)."""
    starts: IntArray
    """Ascending, shape (samples,)."""
    groups: IntArray
    """Speaking role (LEAF: user) of every sample, numbered from 0, ascending, shape (samples,)."""


def encode(text: str) -> AnyArray:
    """Indices into ``VOCABULARY``, uint8, one per character."""
    points = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    return _CODES[np.minimum(points, len(_CODES) - 1)]


def read_plays(files: Sequence[Path], stride: int, min_characters: int) -> Corpus:
    """Samples every ``stride`` characters of what each role of each play says.

    Args:
        files: plays in the layout of ``speeches``; files without ``ACT I`` (poems) are skipped.
        stride: distance between the starts of two samples of a role.
        min_characters: roles that say less are left out.
    """
    return _corpus(
        (text, range(0, len(text) - SEQUENCE, stride))
        for file in files
        for text in speeches(file.read_text(encoding="utf-8", errors="replace")).values()
        if len(text) >= min_characters
    )


def speeches(play: str) -> dict[str, str]:
    """All that each role says, line after line, by the role's name in the order of appearance.

    A line is ``ROLE<tab>speech``; a continuation starts with a tab. A name may spread over two lines, and a
    few lines have a colon for the tab. What stands before ``ACT I``, stage directions in brackets, headings
    and the play's title are left out; runs of blanks become one blank.
    """
    begin = _BEGIN.search(play)
    if begin is None:
        return {}
    lines = defaultdict(list)
    role = half_name = ""
    for line in _DIRECTION.sub("", _TITLE.sub("", play[begin.start() :])).splitlines():
        name, tab, said = line.partition("\t" if "\t" in line else ":")
        name = name.strip().removesuffix(":")
        said = " ".join(said.translate(_MARKS).split())
        if _HEADING.match(name) or (not name and _INTERLUDE.fullmatch(said)):
            role = half_name = ""
        elif not tab:
            half_name = name  # the other half follows at once, so a blank line forgets it
        else:
            if name or (half_name and said):
                role, half_name = f"{half_name} {name}".strip(), ""
            if role and said:
                lines[role].append(said)
    return {role: "\n".join(said) for role, said in lines.items()}


def read_leaf(files: Sequence[Path], stride: int, min_characters: int) -> Corpus:
    """Samples as LEAF's preprocessing wrote them, every ``stride``-th of each user.

    A sample that continues the one before by one character shares its text.

    Args:
        files: ``all_data_*.json`` with ``users``, ``num_samples``, ``user_data``.
        stride: 1 takes all samples.
        min_characters: users with less text are left out.

    Raises:
        DataError: a file is no such JSON; names the file and the user.
    """
    seen: dict[str, Path] = {}

    def users() -> Iterator[tuple[str, Sequence[int]]]:
        for file in files:
            for user, samples in _leaf_users(file):
                if user in seen:
                    raise DataError(f"{file}: user {user} is in {seen[user].name} too; keep one of the two")
                seen[user] = file
                text, starts = _joined(samples)
                if len(text) >= min_characters:
                    yield text, starts[::stride]

    return _corpus(users())


def _corpus(groups: Iterable[tuple[str, Sequence[int]]]) -> Corpus:
    """Text and sample starts of each group put one after the other; groups without samples are dropped."""
    texts, starts, sizes, length = [np.empty(0, np.uint8)], [np.empty(0, np.int64)], [], 0
    for text, begins in groups:
        if len(begins):
            texts.append(encode(text))
            starts.append(np.asarray(begins, dtype=np.int64) + length)
            sizes.append(len(begins))
            length += len(text)
    return Corpus(np.concatenate(texts), np.concatenate(starts), np.repeat(np.arange(len(sizes)), sizes))


def _leaf_users(file: Path) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    step = "make it again with LEAF's preprocessing"
    try:
        content: Any = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{file}: no complete JSON ({error}); {step}") from error
    keys = ("users", "num_samples", "user_data")
    if not isinstance(content, dict) or any(key not in content for key in keys):
        raise DataError(f"{file}: expected the keys {', '.join(keys)}; {step}")
    if len(content["users"]) != len(content["num_samples"]):
        raise DataError(
            f"{file}: {len(content['users'])} users but {len(content['num_samples'])} num_samples; {step}"
        )
    for user, count in zip(content["users"], content["num_samples"], strict=True):
        data = content["user_data"].get(user, {})
        x, y = data.get("x", []), data.get("y", [])
        if not len(x) == len(y) == count:
            raise DataError(f"{file}: user {user} has {len(x)} x and {len(y)} y instead of {count}; {step}")
        if any(len(read) != SEQUENCE or len(after) != 1 for read, after in zip(x, y, strict=True)):
            raise DataError(f"{file}: user {user}: expected x of {SEQUENCE} characters, y of one; {step}")
        yield user, list(zip(x, y, strict=True))


def _joined(samples: Iterable[tuple[str, str]]) -> tuple[str, list[int]]:
    pieces: list[str] = []
    starts: list[int] = []
    length, expected = 0, None
    for read, after in samples:
        piece = after if read == expected else read + after
        pieces.append(piece)
        length += len(piece)
        starts.append(length - SEQUENCE - 1)
        expected = read[1:] + after
    return "".join(pieces), starts
