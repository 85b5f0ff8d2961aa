"""Drawing communication graphs: what the files of ``topologies/`` share.

The graphs of all fragments, and of a block of rounds where they are small, are drawn at once from
counter-based words, in integer arithmetic only. The words of fragment k are row k of one array, so its
graphs depend neither on the number of fragments nor on evaluation order, platform or numpy's
distributions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import lru_cache
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

Words: TypeAlias = NDArray[np.uint64]

_BLOCK_VALUES = 2048
_RECENT_BLOCKS = 2  # nodes of one process are rarely more than a round apart
_ATTEMPTS = 1000


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


def random_order(seeds: Seeds, n: int) -> list[int]:
    """A uniformly random order of the nodes 0..n-1."""
    order: list[int] = _permutations(_words(seeds, 0, 0, 1, n))[0].tolist()
    return order


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


def random_regular(seeds: Seeds, block: int, shape: Shape) -> Neighbors:
    """Independent random ``degree``-regular simple undirected graphs (algorithms.md 3.3).

    Configuration model; each loop or repeated edge is then switched with a random edge of the graph. No
    step looks at a vertex's number, so the law is exactly exchangeable: every edge has probability
    degree / (n - 1) and E[A A] is that of the uniform law, so one round of mixing contracts as theory says. Among isomorphism classes the law is close to uniform, not equal to it (as
    is networkx's). No ring or other edge is added to make a graph connected (algorithms.md 13).

    Args:
        seeds: the run's streams; attempt a draws from ``("topology", block, a)``.
        block: number of the draw.
        shape: fragments, rounds, vertices n and neighbors of each vertex: ``n * degree`` even, degree < n.

    Returns:
        Neighbors of that shape.
    """
    return _random_regular(seeds, block, shape, connected=False)


def random_connected_regular(seeds: Seeds, block: int, shape: Shape) -> Neighbors:
    """As ``random_regular``, each graph redrawn until it is connected.

    Raises:
        ConfigError: no connected graph turned up.
    """
    return _random_regular(seeds, block, shape, connected=True)


def _random_regular(seeds: Seeds, block: int, shape: Shape, *, connected: bool) -> Neighbors:
    graphs, n, degree = shape[0] * shape[1], *shape[2:]
    # The complement of a random regular graph is one too, and the sparse one of both needs fewer repairs.
    sparse = min(degree, n - 1 - degree)
    stubs, spare = n * sparse, 2 * sparse * sparse + 16
    drawn = np.empty((graphs, n, degree), dtype=np.int32)
    missing = np.arange(graphs)
    for attempt in range(_ATTEMPTS):
        words = _words(seeds, block, attempt, int(missing[-1]) + 1, stubs + spare)[missing]
        edges, simple = _simple_edges(words[:, :stubs], words[:, stubs:], n, sparse)
        neighbors = _neighbors(edges, n, sparse)
        if sparse < degree:
            neighbors = _complement(neighbors)
        if connected:
            simple &= [len(reachable(graph.tolist())) == n for graph in neighbors]
        if attempt == 0 and simple.all():
            return neighbors.reshape(shape)
        drawn[missing[simple]] = neighbors[simple]
        missing = missing[~simple]
        if not missing.size:
            return drawn.reshape(shape)
    raise refusal(
        "regular",
        f"no connected graph in {_ATTEMPTS} draws; use a larger degree or a dynamic graph",
        n=n,
        degree=degree,
    )


def virtual_regular(seeds: Seeds, block: int, shape: Shape) -> Neighbors:
    """One random regular graph on n * K virtual nodes per round, as seen by their owners (algorithms.md 3.3).

    Virtual node ``k * n + i`` carries fragment k of node i to the owners of its neighbors.

    Args:
        seeds: the run's streams; attempt a draws from ``("topology", block, a)``.
        block: number of the draw.
        shape: fragments K, rounds, nodes n and neighbors of each virtual node.

    Returns:
        Owners of that shape; an owner may occur several times and may be the node itself.
    """
    return _owners(random_regular(seeds, block, _virtual(shape)), shape)


def virtual_connected_regular(seeds: Seeds, block: int, shape: Shape) -> Neighbors:
    """As ``virtual_regular``, the graph of virtual nodes redrawn until it is connected."""
    return _owners(random_connected_regular(seeds, block, _virtual(shape)), shape)


def _virtual(shape: Shape) -> Shape:
    fragments, rounds, n, degree = shape
    return 1, rounds, n * fragments, degree


def _owners(neighbors: Neighbors, shape: Shape) -> Neighbors:
    fragments, rounds, n, degree = shape
    owners = neighbors % n
    owners.sort(axis=-1)
    return owners.reshape(rounds, fragments, n, degree).swapaxes(0, 1)


def random_recipients(seeds: Seeds, block: int, shape: Shape) -> Neighbors:
    """For every graph and node, ``degree`` distinct other nodes, uniform without replacement.

    The draw of EL-Local (algorithms.md 6), by Floyd's subset sampling in ``degree`` vectorised steps.

    Args:
        seeds: the run's streams; draws from ``("topology", block, 0)``.
        block: number of the draw.
        shape: fragments, rounds, nodes n and recipients of each node: degree < n.

    Returns:
        Recipients, an array of that shape.
    """
    fragments, rounds, n, degree = shape
    words = _words(seeds, block, 0, fragments, rounds * n * degree).reshape(shape)
    chosen = np.empty(shape, dtype=np.int32)
    for step, last in enumerate(range(n - 1 - degree, n - 1)):
        # Multiply-shift of 32 bits: the bias, n / 2**32, is beyond what any run can see.
        pick = ((words[..., step] >> np.uint64(32)) * np.uint64(last + 1) >> np.uint64(32)).astype(np.int32)
        taken = (chosen[..., :step] == pick[..., None]).any(axis=-1)
        chosen[..., step] = np.where(taken, last, pick)
    chosen += chosen >= np.arange(n)[:, None]
    chosen.sort(axis=-1)
    return chosen


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

    def self_edges(self, i: int, k: int) -> int:
        """How often node ``i`` itself stands among the targets of its fragment ``k``."""
        return int(np.count_nonzero(self._array[k, i] == i))


def drawn_round(
    draw: Draw, seeds: Seeds, t: int | None, *, fragments: int, n: int, degree: int
) -> RoundGraphs:
    """The graphs that ``draw`` gives for round ``t``, or for every round of a static graph (None).

    Small graphs are drawn for a block of rounds at once, so that they share the fixed cost of numpy's
    calls; the length of a block depends on ``n * degree`` alone.
    """
    rounds = 1 if t is None else max(1, _BLOCK_VALUES // (n * degree))
    block, position = divmod(t or 0, rounds)
    return _drawn_block(draw, seeds, block, (fragments, rounds, n, degree))[position]


@lru_cache(maxsize=_RECENT_BLOCKS)
def _drawn_block(draw: Draw, seeds: Seeds, block: int, shape: Shape) -> list[RoundGraphs]:
    drawn = draw(seeds, block, shape)
    return [RoundGraphs(drawn[:, r]) for r in range(shape[1])]


def _words(seeds: Seeds, block: int, attempt: int, graphs: int, count: int) -> Words:
    """Raw words of shape (graphs, count); row k does not depend on the number of graphs."""
    bits = seeds.rng("topology", block, attempt).bit_generator
    words: Words = bits.random_raw(graphs * count).reshape(graphs, count)  # type: ignore[attr-defined]
    return words


def _permutations(words: Words) -> NDArray[np.int64]:
    """One random permutation of 0..m-1 for each row of words of shape (graphs, m)."""
    # The position in the low bits makes keys distinct: no tie is left to the sorting algorithm.
    size = words.shape[1]
    low = np.uint64((1 << size.bit_length()) - 1)
    keys = (words & ~low) | np.arange(size, dtype=np.uint64)
    keys.sort(axis=1)
    return (keys & low).astype(np.int64)


def _simple_edges(
    words: Words, spare: Words, n: int, degree: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Configuration model with repair: codes ``low * n + high`` of shape (graphs, n * degree / 2).

    The second array says which graphs are simple; the others ran out of spare words.
    """
    ends = _permutations(words) // max(degree, 1)
    left, right = ends[:, 0::2], ends[:, 1::2]
    edges = np.minimum(left, right) * n + np.maximum(left, right)
    edges.sort(axis=1)
    faulty = edges % (n + 1) == 0  # a loop: u * n + u
    faulty[:, 1:] |= edges[:, 1:] == edges[:, :-1]
    simple = np.ones(len(edges), dtype=bool)
    broken: dict[int, list[int]] = {}
    for g, position in np.argwhere(faulty).tolist():
        broken.setdefault(g, []).append(position)
    places: list[int] = []
    values: list[int] = []
    for g, positions in broken.items():
        switched = _switch(edges[g].tolist(), positions, spare[g].tolist(), n)
        places.extend(g * edges.shape[1] + position for position in switched)
        values.extend(switched.values())
        simple[g] = not positions
    edges.reshape(-1)[places] = values
    return edges, simple


def _switch(edges: list[int], broken: list[int], words: list[int], n: int) -> dict[int, int]:
    """Replace a broken edge (u, v) and a sound edge (x, y) by (u, x) and (v, y) until none is broken.

    Both are picked at random, and only switches that keep the sound edges simple are made. No choice
    looks at a vertex's number, so that all vertices are alike.

    Args:
        edges: codes of one graph, switched in place.
        broken: positions of loops and of all but one copy of repeated edges; those repaired are removed.
        words: random, one for each switch tried.
        n: vertices.

    Returns:
        The new edges by position.
    """
    present, size, switched = set(edges), len(edges), {}
    for word in words:
        chosen, position = (word & 0xFFFFFFFF) % (2 * len(broken)), (word >> 32) % size
        old = edges[position]
        x, y = divmod(old, n)
        u, v = divmod(edges[broken[chosen >> 1]], n)
        if chosen & 1:
            u, v = v, u
        first = u * n + x if u < x else x * n + u
        second = v * n + y if v < y else y * n + v
        if u == x or v == y or first in present or second in present or position in broken:
            continue
        present.remove(old)
        present.add(first)
        present.add(second)
        repaired = broken.pop(chosen >> 1)
        edges[position] = switched[position] = first
        edges[repaired] = switched[repaired] = second
        if not broken:
            break
    return switched


def _neighbors(edges: NDArray[np.int64], n: int, degree: int) -> Neighbors:
    """Adjacency of shape (graphs, n, degree) of edge codes."""
    low = edges // n
    both = np.concatenate((edges, edges * n - low * (n * n - 1)), axis=1)  # and high * n + low
    both.sort(axis=1)
    return (both % n).astype(np.int32).reshape(len(edges), n, degree)


def _complement(neighbors: Neighbors) -> Neighbors:
    """Adjacency of the complements of regular graphs of shape (graphs, n, degree)."""
    graphs, n, degree = neighbors.shape
    absent = np.ones((graphs, n, n), dtype=bool)
    np.put_along_axis(absent, neighbors.astype(np.int64), False, axis=2)
    absent[:, np.arange(n), np.arange(n)] = False
    return np.nonzero(absent)[2].astype(np.int32).reshape(graphs, n, n - 1 - degree)
