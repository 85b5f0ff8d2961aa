"""What the files of ``topologies/`` share: refusals, fixed graphs, and reading drawn graphs node by node."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from decentral.errors import ConfigError
from decentral.seeding import Seeds

Rows: TypeAlias = tuple[tuple[int, ...], ...]
"""One ascending tuple of node ids per node, or per fragment."""

Neighbors: TypeAlias = NDArray[np.int32]
"""Node ids of shape (..., n, degree), ascending along the last axis."""

Shape: TypeAlias = tuple[int, int, int, int]
"""Fragments, rounds of a block, nodes, degree."""

Draw: TypeAlias = Callable[[Seeds, int, Shape], Neighbors]
"""The graphs of a block of rounds: a pure function of seeds, block and shape, whose array has that shape.

The graphs of a fragment must not depend on the number of fragments.
"""

_BLOCK_VALUES = 2048
_RECENT_BLOCKS = 2  # nodes of one process are rarely more than a round apart


def refusal(topology: str, expectation: str, **given: object) -> ConfigError:
    """The error ``topology(key=value, ...): expectation``; the expectation ends with the next step."""
    shown = ", ".join(f"{key}={value}" for key, value in given.items())
    return ConfigError(f"{topology}({shown}): {expectation}")


def undirected_rows(n: int, edges: Iterable[tuple[int, int]]) -> Rows:
    """Neighbors of every node of an undirected graph; an edge given twice counts once."""
    neighbors: list[set[int]] = [set() for _ in range(n)]
    for i, j in edges:
        neighbors[i].add(j)
        neighbors[j].add(i)
    return tuple(tuple(sorted(row)) for row in neighbors)


def reachable(neighbors: Rows | list[list[int]]) -> set[int]:
    """Nodes that a walk from node 0 can reach."""
    seen = {0}
    frontier = [0]
    while frontier:
        fresh = set(neighbors[frontier.pop()]) - seen
        seen |= fresh
        frontier.extend(fresh)
    return seen


def read_edges(path: Path, n: int) -> list[tuple[int, int]]:
    """Edges of a file in DecentralizePy's ``.edges`` format: a line with n, then lines ``i j``.

    Raises:
        ConfigError: the file cannot be read, is not in the format, or is made for other nodes than 0..n-1.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        expectation = f"the file must be readable text ({error}); correct the path"
        raise refusal("edges", expectation, path=path) from error
    words = [(number, line.split()) for number, line in enumerate(lines, start=1) if line.strip()]
    if not words or words[0][1] != [str(n)]:
        expectation = f"the first line must be the number of nodes, {n}; correct the file or n"
        raise refusal("edges", expectation, path=path, n=n)
    edges = []
    for number, ends in words[1:]:
        ids = [int(end) for end in ends if end.isdecimal() and int(end) < n]
        if len(ends) != 2 or len(set(ids)) != 2:
            expectation = f"an edge is two different node ids from 0 to {n - 1}; correct `{' '.join(ends)}`"
            raise refusal("edges", expectation, path=path, line=number)
        edges.append((ids[0], ids[1]))
    return edges


def check_regular(topology: str, *, degree: int, connected: bool, **sizes: int) -> None:
    """Refuse regular graphs that do not exist; ``sizes`` multiply to the number of vertices.

    Raises:
        ConfigError: the degree is out of range, an edge has one end too few, or a connected graph of
            degree 1 is asked for.
    """
    vertices, product = math.prod(sizes.values()), " * ".join(sizes)
    if not 1 <= degree < vertices:
        possible = max(1, min(degree, vertices - 1))
        expectation = f"degree must be 1 or more and less than {product}; use degree = {possible} or n = "
        raise refusal(topology, f"{expectation}{max(possible, degree) + 1}", **sizes, degree=degree)
    if vertices * degree % 2:
        expectation = f"{product} * degree must be even; use n = {sizes['n'] + 1} or degree = {degree + 1}"
        raise refusal(topology, expectation, **sizes, degree=degree)
    if connected and degree == 1 and vertices > 2:
        expectation = "a static graph of degree 1 is not connected; use degree = 2 or dynamic = true"
        raise refusal(topology, expectation, **sizes, degree=degree)


def check_recipients(topology: str, *, n: int, degree: int) -> None:
    """Refuse a number of distinct recipients that ``n`` nodes cannot have.

    Raises:
        ConfigError: the degree is out of range.
    """
    if not 1 <= degree < n:
        possible = max(1, min(degree, n - 1))
        expectation = f"degree must be 1 or more and less than n; use degree = {possible} or n = "
        raise refusal(topology, f"{expectation}{max(possible, degree) + 1}", n=n, degree=degree)


class RoundGraphs:
    """All graphs of one round, read node by node.

    Args:
        targets: whom each node sends to, shape (fragments, n, degree), ascending along the last axis;
            may repeat a node and may name the node itself (an edge that nothing travels on).
    """

    def __init__(self, targets: Neighbors) -> None:
        self._array = targets
        self._targets: dict[int, Rows] = {}
        self._sources: dict[int, Rows] = {}

    def targets(self, i: int) -> Rows:
        """Nodes to which node ``i`` sends, one ascending tuple per fragment."""
        rows = self._targets.get(i)
        if rows is None:
            rows = tuple(tuple(j for j in row if j != i) for row in self._array[:, i].tolist())
            self._targets[i] = rows
        return rows

    def sources(self, i: int) -> Rows:
        """Nodes from which node ``i`` receives, one ascending tuple per fragment."""
        rows = self._sources.get(i)
        if rows is None:
            received: list[list[int]] = [[] for _ in self._array]
            for k, j in np.argwhere(self._array == i)[:, :2].tolist():
                if j != i:
                    received[k].append(j)
            rows = tuple(map(tuple, received))
            self._sources[i] = rows
        return rows


def drawn_round(draw: Draw, seeds: Seeds, t: int | None, shape: tuple[int, int, int]) -> RoundGraphs:
    """The graphs that ``draw`` gives for one round; the last ones drawn are kept.

    Small graphs are drawn for a block of rounds at once, so that they share the fixed cost of numpy's
    calls; the length of a block depends on ``n * degree`` alone.

    Args:
        draw: function that draws the block.
        seeds: the run's streams.
        t: round, or None for the one draw of a static graph.
        shape: fragments, n and degree.
    """
    fragments, n, degree = shape
    rounds = 1 if t is None else max(1, _BLOCK_VALUES // (n * degree))
    block, position = divmod(t or 0, rounds)
    return _drawn_block(draw, seeds, block, (fragments, rounds, n, degree))[position]


@lru_cache(maxsize=_RECENT_BLOCKS)
def _drawn_block(draw: Draw, seeds: Seeds, block: int, shape: Shape) -> list[RoundGraphs]:
    drawn = draw(seeds, block, shape)
    return [RoundGraphs(drawn[:, r]) for r in range(shape[1])]
