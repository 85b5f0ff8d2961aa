"""Drawing random graphs: every node draws the same ones from the run seed, without a coordinator.

The graphs of all fragments, and of a block of rounds where they are small, are drawn at once from
counter-based words, in integer arithmetic only. The words of fragment k are row k of one array, so its
graphs depend neither on the number of fragments nor on evaluation order, platform or numpy's
distributions.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from decentral.graphs import Neighbors, Shape, reachable, refusal
from decentral.seeding import Seeds

Words: TypeAlias = NDArray[np.uint64]
IntArray: TypeAlias = NDArray[np.int64]

_ATTEMPTS = 1000


def random_order(seeds: Seeds, n: int) -> list[int]:
    """A uniformly random order of the nodes 0..n-1."""
    order: list[int] = _permutations(_words(seeds, 0, 0, 1, n))[0].tolist()
    return order


def random_regular(seeds: Seeds, block: int, shape: Shape) -> Neighbors:
    """Independent random ``degree``-regular simple undirected graphs (algorithms.md 3.3).

    Configuration model; each loop or repeated edge is then switched with a random edge of the graph. No
    step looks at a vertex's number, so the law is exactly exchangeable: every edge has probability
    degree / (n - 1) and E[A A] is that of the uniform law, so one round of mixing contracts as theory
    says. Among isomorphism classes the law is close to uniform without being equal to it, as networkx's
    is. No ring is added to connect a graph: that would change the degrees (algorithms.md 3.3, 13).

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
        edges = _configuration(words[:, :stubs], n, sparse)
        simple = _make_simple(edges, words[:, stubs:], n)
        neighbors, kept = _neighbors(edges[simple], n, sparse), missing[simple]
        if sparse < degree:
            neighbors = _complement(neighbors)
        if connected:
            whole = np.array([len(reachable(graph.tolist())) == n for graph in neighbors], dtype=bool)
            neighbors, kept = neighbors[whole], kept[whole]
        if len(kept) == graphs:
            return neighbors.reshape(shape)
        drawn[kept] = neighbors
        missing = np.setdiff1d(missing, kept)
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


def _words(seeds: Seeds, block: int, attempt: int, graphs: int, count: int) -> Words:
    """Raw words of shape (graphs, count); row k does not depend on the number of graphs."""
    bits = seeds.rng("topology", block, attempt).bit_generator
    words: Words = bits.random_raw(graphs * count).reshape(graphs, count)
    return words


def _permutations(words: Words) -> IntArray:
    """One random permutation of 0..m-1 for each row of words of shape (graphs, m)."""
    # The position in the low bits makes keys distinct: no tie is left to the sorting algorithm.
    size = words.shape[1]
    low = np.uint64((1 << size.bit_length()) - 1)
    keys = (words & ~low) | np.arange(size, dtype=np.uint64)
    keys.sort(axis=1)
    return (keys & low).astype(np.int64)


def _configuration(words: Words, n: int, degree: int) -> IntArray:
    """Random pairings of ``n * degree`` stubs: ascending codes ``low * n + high`` of all edges."""
    ends = _permutations(words) // max(degree, 1)
    left, right = ends[:, 0::2], ends[:, 1::2]
    edges: IntArray = np.minimum(left, right) * n + np.maximum(left, right)
    edges.sort(axis=1)
    return edges


def _make_simple(edges: IntArray, spare: Words, n: int) -> NDArray[np.bool_]:
    """Replace each faulty edge (u, v) and a sound edge (x, y) by (u, x) and (v, y), in place.

    Faulty are loops and all but one copy of a repeated edge. The sound edge is picked at random; switches
    that would make a fault are left out, as are those that want the same sound edge, until no fault is
    left. No choice looks at a vertex's number, so that all vertices are alike.

    Args:
        edges: codes of shape (graphs, size), ascending along the last axis.
        spare: random words of shape (graphs, tries), one for each switch tried.
        n: vertices.

    Returns:
        Which graphs are simple; the others ran out of words.
    """
    simple = np.ones(len(edges), dtype=bool)
    open_graphs, used = np.arange(len(edges)), np.zeros(len(edges), dtype=np.int64)
    rows = edges
    while True:
        faulty = rows % (n + 1) == 0  # a loop: u * n + u
        faulty[:, 1:] |= rows[:, 1:] == rows[:, :-1]
        faults = faulty.sum(axis=1)
        exhausted = used + faults > spare.shape[1]
        simple[open_graphs[exhausted]] = False
        going = (faults > 0) & ~exhausted
        if not going.any():
            return simple
        open_graphs, used, faults = open_graphs[going], used[going], faults[going]
        rows, faulty = rows[going], faulty[going]

        graph, place = np.nonzero(faulty)
        rank = np.arange(len(graph)) - np.repeat(np.cumsum(faults) - faults, faults)
        word = spare[open_graphs[graph], used[graph] + rank]
        partner = ((word >> np.uint64(32)) % np.uint64(rows.shape[1])).astype(np.int64)
        used += faults

        u, v = np.divmod(rows[graph, place], n)
        ends = np.divmod(rows[graph, partner], n)
        turned = (word & np.uint64(1)).astype(bool)
        x, y = np.where(turned, ends, ends[::-1])
        first = np.minimum(u, x) * n + np.maximum(u, x)
        second = np.minimum(v, y) * n + np.maximum(v, y)

        present = (rows + np.arange(len(rows))[:, None] * (n * n)).reshape(-1)
        wanted = np.bincount(graph * rows.shape[1] + partner, minlength=rows.size)
        sound = (u != x) & (v != y) & ~faulty[graph, partner]
        sound &= wanted[graph * rows.shape[1] + partner] == 1
        sound &= ~_contains(present, graph * (n * n) + first) & ~_contains(present, graph * (n * n) + second)
        rows[graph[sound], place[sound]] = first[sound]
        rows[graph[sound], partner[sound]] = second[sound]
        rows.sort(axis=1)
        edges[open_graphs] = rows


def _contains(ascending: IntArray, values: IntArray) -> NDArray[np.bool_]:
    """Which values occur in the ascending array."""
    at = np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)
    found: NDArray[np.bool_] = ascending[at] == values
    return found


def _neighbors(edges: IntArray, n: int, degree: int) -> Neighbors:
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
