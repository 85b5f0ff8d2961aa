"""Random graphs have the structure and the law they promise, and refusals say what to do."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from decentral.errors import ConfigError
from decentral.graphs import RoundGraphs, check_regular, drawn_round, reachable, read_edges, undirected_rows
from decentral.random_graphs import (
    random_connected_regular,
    random_order,
    random_recipients,
    random_regular,
    virtual_regular,
)
from decentral.seeding import Seeds

SEEDS = Seeds(11)
SAFE_P = 1e-4


def adjacency(neighbors: np.ndarray) -> np.ndarray:
    matrices = np.zeros((len(neighbors), neighbors.shape[1], neighbors.shape[1]), dtype=np.int64)
    np.put_along_axis(matrices, neighbors.astype(np.int64), 1, axis=2)
    return matrices


@st.composite
def regular_sizes(draw: st.DrawFn) -> tuple[int, int]:
    n = draw(st.integers(2, 24))
    degree = draw(st.integers(1, n - 1).filter(lambda degree: n * degree % 2 == 0))
    return n, degree


@settings(deadline=None, max_examples=150)
@given(size=regular_sizes(), seed=st.integers(0, 2**32))
def test_regular_graphs_are_simple_and_regular(size: tuple[int, int], seed: int) -> None:
    n, degree = size
    neighbors = random_regular(Seeds(seed), 3, (2, 3, n, degree))
    assert neighbors.shape == (2, 3, n, degree)
    assert (np.diff(neighbors, axis=-1) > 0).all()
    assert not (neighbors == np.arange(n)[:, None]).any()
    matrices = adjacency(neighbors.reshape(6, n, degree))
    assert (matrices == matrices.swapaxes(1, 2)).all()
    assert (matrices.sum(axis=2) == degree).all()


@pytest.mark.parametrize(("n", "degree"), [(6, 3), (7, 4), (8, 4), (9, 6)])
@pytest.mark.parametrize("draw", [random_regular, random_connected_regular])
def test_of_many_dense_graphs_those_that_are_redrawn_are_sound_too(draw, n, degree):
    """Of a thousand graphs on few vertices some always run out of words; their complements are no graphs."""
    matrices = adjacency(draw(Seeds(1), 0, (1024, 1, n, degree))[:, 0])
    assert (matrices == matrices.swapaxes(1, 2)).all()
    assert (matrices.sum(axis=2) == degree).all()
    assert not matrices[:, range(n), range(n)].any()


@pytest.mark.parametrize("draw", [random_regular, random_connected_regular, random_recipients])
def test_a_fragments_graphs_do_not_depend_on_the_number_of_fragments(draw) -> None:
    # Degree 2 makes connected graphs rare, so that attempts differ between the fragments.
    alone, many = draw(SEEDS, 4, (1, 2, 20, 2)), draw(SEEDS, 4, (9, 2, 20, 2))
    np.testing.assert_array_equal(alone[0], many[0])
    assert not (many[0] == many[1]).all()


@pytest.mark.parametrize(("n", "degree"), [(20, 4), (12, 3), (10, 7), (6, 2)])
def test_edges_of_regular_graphs_are_equally_frequent(n: int, degree: int) -> None:
    graphs = 4000
    counts = adjacency(random_regular(SEEDS, 0, (graphs, 1, n, degree))[:, 0]).sum(axis=0)
    seen = counts[np.triu_indices(n, 1)]
    probability = degree / (n - 1)
    # Edges of a graph exclude each other a little, so this statistic is conservative.
    chi_square = ((seen - graphs * probability) ** 2 / (graphs * probability * (1 - probability))).sum()
    assert stats.chi2.sf(chi_square, len(seen) - 1) > SAFE_P
    assert seen.sum() == graphs * n * degree // 2


def test_expected_squared_adjacency_is_that_of_exchangeable_graphs() -> None:
    n, degree, graphs = 10, 4, 20000
    matrices = adjacency(random_regular(SEEDS, 1, (graphs, 1, n, degree))[:, 0])
    common = (matrices @ matrices).mean(axis=0)
    expected = np.full((n, n), degree * (degree - 1) / (n - 1))
    np.fill_diagonal(expected, degree)
    np.testing.assert_allclose(common, expected, atol=0.05)


@pytest.mark.parametrize("n", [4, 6])
def test_perfect_matchings_are_equally_likely(n: int) -> None:
    draws = random_regular(SEEDS, 0, (9000, 1, n, 1))[:, 0, :, 0]
    ours = Counter(map(tuple, draws.tolist()))
    assert len(ours) == {4: 3, 6: 15}[n]
    assert stats.chisquare(list(ours.values())).pvalue > SAFE_P
    theirs: Counter[tuple[int, ...]] = Counter()
    for seed in range(1000):
        graph = nx.random_regular_graph(1, n, seed=seed)
        theirs[tuple(next(iter(graph[i])) for i in range(n))] += 1
    table = [[ours[key] for key in sorted(ours)], [theirs[key] for key in sorted(ours)]]
    assert stats.chi2_contingency(table).pvalue > SAFE_P


# Number of labelled graphs by (sizes of components, triangles, |det(A + 2 I)|): n! / |automorphisms|.
CLASSES = {
    (6, 2): {((3, 3), 2, 16): 10, ((6,), 0, 0): 60},
    (8, 3): {
        ((4, 4), 8, 25): 35,
        ((8,), 0, 135): 840,
        ((8,), 0, 45): 2520,
        ((8,), 1, 20): 3360,
        ((8,), 2, 15): 10080,
        ((8,), 4, 15): 2520,
    },
}


def classes(rows: list[list[list[int]]], n: int) -> dict[object, float]:
    found: Counter[object] = Counter()
    for row in rows:
        graph = nx.from_edgelist((i, j) for i in range(n) for j in row[i])
        sizes = tuple(sorted(len(component) for component in nx.connected_components(graph)))
        determinant = np.linalg.det(nx.to_numpy_array(graph) + 2 * np.eye(n))
        found[sizes, sum(nx.triangles(graph).values()) // 3, abs(round(determinant))] += 1
    return {key: count / len(rows) for key, count in found.items()}


@pytest.mark.parametrize(("n", "degree"), CLASSES)
def test_isomorphism_classes_are_about_as_frequent_as_labelled_graphs(n: int, degree: int) -> None:
    total = sum(CLASSES[n, degree].values())
    exact = {key: count / total for key, count in CLASSES[n, degree].items()}
    ours = classes(random_regular(SEEDS, 2, (3000, 1, n, degree))[:, 0].tolist(), n)
    graphs = [nx.random_regular_graph(degree, n, seed=seed) for seed in range(1000)]
    theirs = classes([[list(graph[i]) for i in range(n)] for graph in graphs], n)
    assert ours.keys() <= exact.keys()

    def variation(frequencies: dict[object, float]) -> float:
        return sum(abs(frequencies.get(key, 0) - exact[key]) for key in exact) / 2

    assert variation(ours) < 0.1
    assert variation(ours) < variation(theirs) + 0.02


def test_connected_graphs_are_connected_and_the_others_need_not_be() -> None:
    free = random_regular(SEEDS, 0, (40, 1, 30, 2))[:, 0].tolist()
    connected = random_connected_regular(SEEDS, 0, (40, 1, 30, 2))[:, 0].tolist()
    assert {len(reachable(graph)) for graph in connected} == {30}
    assert any(len(reachable(graph)) < 30 for graph in free)


def test_a_graph_that_is_never_connected_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=re.escape("regular(n=4, degree=1): no connected graph in 1000 draws")
    ):
        random_connected_regular(SEEDS, 0, (1, 1, 4, 1))


@settings(deadline=None, max_examples=100)
@given(n=st.integers(2, 20), data=st.data())
def test_recipients_are_distinct_others(n: int, data: st.DataObject) -> None:
    degree = data.draw(st.integers(1, n - 1))
    chosen = random_recipients(Seeds(n), degree, (2, 2, n, degree))
    assert chosen.shape == (2, 2, n, degree)
    assert (np.diff(chosen, axis=-1) > 0).all()
    assert ((chosen >= 0) & (chosen < n)).all()
    assert not (chosen == np.arange(n)[:, None]).any()


def test_recipients_are_uniform_over_subsets() -> None:
    draws = random_recipients(SEEDS, 0, (6000, 1, 5, 2))[:, 0]
    for i in range(5):
        subsets = Counter(map(tuple, draws[:, i].tolist()))
        assert len(subsets) == 6
        assert stats.chisquare(list(subsets.values())).pvalue > SAFE_P


def test_orders_are_permutations_and_uniform() -> None:
    orders = Counter(tuple(random_order(Seeds(seed), 3)) for seed in range(3000))
    assert len(orders) == 6
    assert stats.chisquare(list(orders.values())).pvalue > SAFE_P


def test_virtual_nodes_keep_their_degree_and_every_message_has_a_receiver() -> None:
    owners = virtual_regular(SEEDS, 0, (4, 2, 6, 3))
    assert owners.shape == (4, 2, 6, 3)
    # A node owns 4 virtual nodes of degree 3, so 12 edge ends per round lead to it.
    for r in range(2):
        assert np.bincount(owners[:, r].reshape(-1), minlength=6).tolist() == [12] * 6


def test_round_graphs_leave_self_edges_out_and_repeat_targets() -> None:
    graphs = RoundGraphs(np.array([[[0, 1, 1], [0, 1, 2], [0, 0, 1]]], dtype=np.int32))
    assert graphs.targets(0) == ((1, 1),)
    assert graphs.targets(1) == ((0, 2),)
    assert graphs.sources(0) == ((1, 2, 2),)
    assert graphs.sources(1) == ((0, 0, 2),)


def test_blocks_of_rounds_join_without_repeating() -> None:
    rounds = [drawn_round(random_regular, SEEDS, t, (1, 16, 4)).targets(0) for t in range(100)]
    assert len(set(rounds)) > 90
    static = drawn_round(random_connected_regular, SEEDS, None, (1, 16, 4))
    assert static is drawn_round(random_connected_regular, SEEDS, None, (1, 16, 4))


@pytest.mark.parametrize(
    ("sizes", "degree", "connected", "message"),
    [
        ({"n": 15}, 3, False, "x(n=15, degree=3): n * degree must be even; use n = 16 or degree = 4"),
        (
            {"n": 4},
            6,
            False,
            "x(n=4, degree=6): degree must be 1 or more and less than n; use degree = 3 or n = 7",
        ),
        (
            {"n": 9},
            0,
            False,
            "x(n=9, degree=0): degree must be 1 or more and less than n; use degree = 1 or n = 2",
        ),
        ({"n": 3, "fragments": 3}, 3, False, "n * fragments * degree must be even; use n = 4 or degree = 4"),
        ({"n": 6}, 1, True, "a static graph of degree 1 is not connected; use degree = 2 or dynamic = true"),
    ],
)
def test_impossible_regular_graphs_are_refused(sizes, degree: int, connected: bool, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        check_regular("x", **sizes, degree=degree, connected=connected)


def test_undirected_rows_merge_repeated_edges() -> None:
    assert undirected_rows(4, [(2, 0), (0, 2), (0, 1)]) == ((1, 2), (0,), (0,), ())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the first line must be the number of nodes, 3"),
        ("4\n0 1\n", "the first line must be the number of nodes, 3"),
        ("3\n0 1\n1 3\n", "line=3): an edge is two different node ids from 0 to 2; correct `1 3`"),
        ("3\n0 -1\n", "line=2): an edge is two different node ids"),
        ("3\n1 01\n", "line=2): an edge is two different node ids"),
        ("3\n0 1 2\n", "line=2): an edge is two different node ids"),
        ("3\n0 one\n", "line=2): an edge is two different node ids"),
    ],
)
def test_damaged_edge_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "graph.edges"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=re.escape(message)):
        read_edges(path, 3)


def test_edge_files_are_read(tmp_path: Path) -> None:
    path = tmp_path / "graph.edges"
    path.write_text("3\n0 1\n\n 2 1 \n1 0\n", encoding="utf-8")
    assert read_edges(path, 3) == [(0, 1), (2, 1), (1, 0)]
    with pytest.raises(ConfigError, match="must be readable text"):
        read_edges(tmp_path / "absent.edges", 3)
