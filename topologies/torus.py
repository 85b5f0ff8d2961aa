"""Torus: a grid whose rows and columns close to rings, node ids in row-major order."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge

from decentral.graphs import refusal
from decentral.seeding import Seeds


@dataclass(frozen=True, kw_only=True)
class Torus:
    """Static undirected torus; degree 4, or less where a side of 2 makes two neighbors one.

    Args:
        rows: first side; where left out, n / columns, or the most square choice.
        columns: second side; where left out, n / rows.
    """

    n: int
    seeds: Seeds
    rows: Annotated[int, Ge(2)] | None = None
    columns: Annotated[int, Ge(2)] | None = None

    symmetric: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.n < 4 or (self.rows is None and self.columns is None and self._shape()[0] == 1):
            near = max(4, self.n + self.n % 2)
            expectation = f"n must be a product of two sides of 2 or more; use n = {near} or topology ring"
            raise refusal("torus", expectation, n=self.n)
        rows, columns = self._shape()
        if min(rows, columns) < 2 or rows * columns != self.n:
            expectation = "rows * columns must be n, both 2 or more; leave both out for the most square torus"
            raise refusal("torus", expectation, n=self.n, rows=self.rows, columns=self.columns)

    def _shape(self) -> tuple[int, int]:
        square = next(side for side in range(math.isqrt(self.n), 0, -1) if self.n % side == 0)
        rows = self.rows or (self.n // self.columns if self.columns else square)
        return rows, self.columns or self.n // rows

    def targets(self, i: int, t: int, k: int) -> tuple[int, ...]:
        """Nodes above, below, left and right of node ``i``, the same for every round and fragment."""
        columns = self._shape()[1]
        left = i - i % columns
        sideways = {left + (i - 1) % columns, left + (i + 1) % columns}
        return tuple(sorted(sideways | {(i - columns) % self.n, (i + columns) % self.n}))

    def sources(self, i: int, t: int, k: int) -> tuple[int, ...]:
        """The targets: edges are undirected."""
        return self.targets(i, t, k)


TOPOLOGY = Torus
EXAMPLES: list[dict[str, object]] = [{"n": 4}, {"n": 10}, {"n": 9}, {"n": 12, "rows": 6, "columns": 2}]
