"""Topologies without fragments: their edges are the ones their names stand for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest

from decentral.errors import ConfigError
from decentral.seeding import Seeds
from decentral.topology import Topology
from topologies.bipartite import Bipartite
from topologies.complete import Complete
from topologies.edges import Edges
from topologies.exponential import Exponential
from topologies.ring import Ring
from topologies.small_world import SmallWorld
from topologies.star import Star
from topologies.torus import Torus

SEEDS = Seeds(4)


def graph_of(topology: Topology) -> Any:
    assert topology.symmetric
    edges = [(i, j) for i in range(topology.n) for j in topology.targets(i, 0, 0)]
    graph = nx.Graph()
    graph.add_nodes_from(range(topology.n))
    graph.add_edges_from(edges)
    assert len(edges) == 2 * graph.number_of_edges()
    return graph


def same_edges(ours: Any, theirs: Any) -> bool:
    return bool(nx.utils.edges_equal(ours.edges, theirs.edges))


@pytest.mark.parametrize("n", [2, 3, 10])
def test_ring_complete_and_star_are_networkx_graphs(n: int) -> None:
    assert same_edges(graph_of(Ring(n=n, seeds=SEEDS)), nx.cycle_graph(n) if n > 2 else nx.path_graph(n))
    assert same_edges(graph_of(Complete(n=n, seeds=SEEDS)), nx.complete_graph(n))
    assert same_edges(graph_of(Star(n=n, seeds=SEEDS)), nx.star_graph(n - 1))


@pytest.mark.parametrize(
    ("n", "given", "shape"),
    [
        (4, {}, (2, 2)),
        (12, {}, (3, 4)),
        (16, {}, (4, 4)),
        (10, {}, (2, 5)),
        (12, {"rows": 6}, (6, 2)),
        (15, {"columns": 3}, (5, 3)),
        (60, {"rows": 5, "columns": 12}, (5, 12)),
    ],
)
def test_torus_is_a_closed_grid(n: int, given: dict[str, int], shape: tuple[int, int]) -> None:
    grid = nx.grid_2d_graph(*shape, periodic=True)
    expected = nx.relabel_nodes(grid, {(row, column): row * shape[1] + column for row, column in grid})
    expected.remove_edges_from(list(nx.selfloop_edges(expected)))
    assert same_edges(graph_of(Torus(n=n, seeds=SEEDS, **given)), expected)


def test_small_world_keeps_the_edges_of_its_lattice_and_is_connected() -> None:
    lattice = graph_of(SmallWorld(n=20, seeds=SEEDS, degree=4, rewiring=0.0))
    assert same_edges(lattice, nx.watts_strogatz_graph(20, 4, 0))
    rewired = graph_of(SmallWorld(n=20, seeds=SEEDS, degree=4, rewiring=0.5))
    assert rewired.number_of_edges() == 40
    assert not same_edges(rewired, lattice)
    assert nx.is_connected(rewired)


@pytest.mark.parametrize("n", [2, 4, 8, 16])
def test_one_peer_exponential_graph_averages_exactly_after_one_cycle(n: int) -> None:
    topology = Exponential(n=n, seeds=SEEDS, dynamic=True)
    product = np.eye(n)
    for t in range((n - 1).bit_length()):
        w = np.eye(n) / 2
        for i in range(n):
            (j,) = topology.sources(i, t, 0)
            w[i, j] += 0.5
        product = w @ product
    np.testing.assert_allclose(product, np.full((n, n), 1 / n), atol=1e-12)


def test_static_exponential_graph_has_every_power_of_two() -> None:
    assert Exponential(n=12, seeds=SEEDS).targets(10, 5, 0) == (0, 2, 6, 11)
    assert Exponential(n=12, seeds=SEEDS).sources(10, 5, 0) == (2, 6, 8, 9)
    assert Exponential(n=12, seeds=SEEDS, dynamic=True).targets(10, 6, 0) == (2,)


@pytest.mark.parametrize("roles", ["random_half", "parity"])
def test_bipartite_joins_every_active_to_every_passive_node(roles: Any) -> None:
    topology = Bipartite(n=14, seeds=SEEDS, roles=roles)
    active = [i for i in range(14) if topology.role(i) == "active"]
    passive = [i for i in range(14) if topology.role(i) == "passive"]
    assert len(active) == len(passive) == 7
    assert (active == list(range(1, 14, 2))) is (roles == "parity")
    for i in active:
        assert topology.targets(i, 3, 0) == tuple(passive)
    for i in passive:
        assert topology.targets(i, 3, 0) == tuple(active)


def test_edges_file_gives_the_graph(tmp_path: Path) -> None:
    path = tmp_path / "square.edges"
    path.write_text("4\n0 1\n1 2\n3 2\n3 0\n0 3\n", encoding="utf-8")
    assert same_edges(graph_of(Edges(n=4, seeds=SEEDS, path=path)), nx.cycle_graph(4))
    path.write_text("4\n0 1\n2 3\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="node 0 reaches 2 of 4 nodes; add edges"):
        Edges(n=4, seeds=SEEDS, path=path)
    with pytest.raises(ConfigError, match="the first line must be the number of nodes, 5"):
        Edges(n=5, seeds=SEEDS, path=path)


@pytest.mark.parametrize(
    ("topology", "arguments", "message"),
    [
        (Ring, {"n": 1}, "ring(n=1): a ring needs 2 nodes or more; use n = 2 or topology complete"),
        (Complete, {"n": 0}, "complete(n=0): a graph needs a node"),
        (Star, {"n": 1}, "star(n=1): a star needs 2 nodes or more"),
        (Star, {"n": 4, "center": 4}, "star(n=4, center=4): center must be a node's id; use center = 0 to 3"),
        (Torus, {"n": 13}, "torus(n=13): n must be a product of two sides of 2 or more; use n = 14 or"),
        (Torus, {"n": 3}, "torus(n=3): n must be a product of two sides"),
        (Torus, {"n": 12, "rows": 5}, "torus(n=12, rows=5, columns=None): rows * columns must be n"),
        (Torus, {"n": 12, "columns": 24}, "rows * columns must be n"),
        (SmallWorld, {"n": 7, "degree": 3}, "degree must be even and less than n; use degree = 2"),
        (SmallWorld, {"n": 4, "degree": 4}, "degree must be even and less than n; use degree = 2"),
        (Exponential, {"n": 1}, "exponential(n=1): hops need 2 nodes or more"),
        (Bipartite, {"n": 7}, "bipartite(n=7): n must be even; use n = 8"),
        (Bipartite, {"n": 0}, "bipartite(n=0): n must be even; use n = 2"),
    ],
)
def test_impossible_sizes_are_refused(topology: Any, arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        topology(**arguments, seeds=SEEDS)
