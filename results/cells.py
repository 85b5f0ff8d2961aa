"""Tables of a report before they are HTML."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from results.tables import DASH, MINUS


@dataclass(frozen=True)
class Cell:
    """One cell of a table: its text and, where it is the best of its column or a warning, a CSS class."""

    text: str
    look: str = ""


@dataclass(frozen=True)
class Table:
    """Headings and rows; the first ``words`` columns are text, the others numbers."""

    headings: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    words: int = 1


def words(headings: Sequence[str], rows: Sequence[Sequence[str]], count: int) -> Table:
    """A table of plain text cells of which the first ``count`` columns are words."""
    return Table(headings, [[Cell(text) for text in row] for row in rows], count)


def number(value: float, decimals: int) -> str:
    """A number with thin spaces between thousands; a dash for none."""
    if math.isnan(value):
        return DASH
    return f"{value:,.{decimals}f}".replace(",", "\u202f").replace("-", MINUS)
