"""Topologies drawn per fragment: degrees, independence of the number of fragments, and theory."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import numpy as np
import pytest

from decentral.errors import ConfigError
from decentral.graphs import reachable
from decentral.seeding import Seeds
from topologies.epidemic import Epidemic
from topologies.regular import Regular
from topologies.vn_regular import VnRegular

SEEDS = Seeds(6)


@pytest.mark.parametrize("topology", [Regular, Epidemic])
@pytest.mark.parametrize("dynamic", [True, False])
def test_one_fragment_is_the_first_of_sixteen(topology: Any, dynamic: bool) -> None:
    one = topology(n=20, seeds=SEEDS, degree=3, dynamic=dynamic)
    many = topology(n=20, seeds=SEEDS, degree=3, dynamic=dynamic, fragments=16)
    for t in (0, 1, 33, 34, 35, 1000):
        for i in range(20):
            assert one.targets(i, t, 0) == many.targets(i, t, 0)
            assert one.sources(i, t, 0) == many.sources(i, t, 0)


@pytest.mark.parametrize("topology", [Regular, Epidemic])
def test_a_shared_graph_is_that_of_the_first_fragment(topology: Any) -> None:
    shared = topology(n=20, seeds=SEEDS, degree=3, fragments=4, per_fragment=False)
    own = topology(n=20, seeds=SEEDS, degree=3, fragments=4)
    for t in (0, 50):
        assert {shared.targets(5, t, k) for k in range(4)} == {own.targets(5, t, 0)}
        assert len({own.targets(5, t, k) for k in range(4)}) > 1


@pytest.mark.parametrize("degree", [2, 3, 8])
def test_static_regular_graphs_are_connected_for_every_fragment(degree: int) -> None:
    topology = Regular(n=60, seeds=SEEDS, degree=degree, fragments=8, dynamic=False)
    for k in range(8):
        graph = tuple(topology.targets(i, 0, k) for i in range(60))
        assert {len(row) for row in graph} == {degree}
        assert len(reachable(graph)) == 60


def test_dynamic_regular_graphs_of_degree_2_are_not_repaired() -> None:
    topology = Regular(n=60, seeds=SEEDS, degree=2)
    graphs = [tuple(topology.targets(i, t, 0) for i in range(60)) for t in range(40)]
    assert {len(row) for graph in graphs for row in graph} == {2}
    assert any(len(reachable(graph)) < 60 for graph in graphs)


def test_epidemic_mixing_contracts_disagreement_as_theory_says() -> None:
    """E |x_i - x_j|^2 after one round is below beta_s of before (algorithms.md 6), and close to it."""
    n, degree, rounds = 16, 3, 400
    topology = Epidemic(n=n, seeds=SEEDS, degree=degree)
    x = SEEDS.rng("test").standard_normal(n)
    x -= x.mean()
    after = []
    for t in range(rounds):
        mixed = [np.mean([x[i], *(x[j] for j in topology.sources(i, t, 0))]) for i in range(n)]
        after.append(np.var(mixed))
    beta = (1 - (1 - degree / (n - 1)) ** n) / degree - 1 / (n - 1)
    assert 0.85 * beta < np.mean(after) / np.var(x) < 1.05 * beta


def test_epidemic_in_degrees_are_binomial() -> None:
    n, degree = 20, 4
    topology = Epidemic(n=n, seeds=SEEDS, degree=degree, fragments=2)
    received = np.array(
        [len(topology.sources(i, t, k)) for t in range(150) for k in (0, 1) for i in range(n)]
    )
    assert received.mean() == degree
    p = degree / (n - 1)
    assert received.var() == pytest.approx((n - 1) * p * (1 - p), rel=0.05)


def test_virtual_nodes_send_as_much_as_they_receive_and_drop_self_edges() -> None:
    topology = VnRegular(n=4, seeds=SEEDS, fragments=4, degree=5)
    dropped = repeated = 0
    for t in range(4):
        for i in range(4):
            sent = [topology.targets(i, t, k) for k in range(4)]
            assert sum(map(len, sent)) == sum(len(topology.sources(i, t, k)) for k in range(4))
            own_ends = 4 * 5 - sum(map(len, sent))
            assert own_ends % 2 == 0  # an edge inside a node has both its ends there
            dropped += own_ends
            repeated += sum(len(row) > len(set(row)) for row in sent)
    assert dropped > 0
    assert repeated > 0


def test_virtual_nodes_are_symmetric_where_all_or_one_are_neighbors() -> None:
    one = VnRegular(n=8, seeds=SEEDS, fragments=1, degree=3)
    regular = Regular(n=8, seeds=SEEDS, degree=3)
    complete = VnRegular(n=5, seeds=SEEDS, fragments=2, degree=9)
    assert one.symmetric
    assert complete.symmetric
    for i in range(5):
        assert one.targets(i, 2, 0) == one.sources(i, 2, 0)
        assert len(one.targets(i, 2, 0)) == len(regular.targets(i, 2, 0))
        assert complete.targets(i, 0, 1) == complete.sources(i, 0, 1)
        assert Counter(complete.targets(i, 0, 1)) == dict.fromkeys(set(range(5)) - {i}, 2)


@pytest.mark.parametrize(
    ("topology", "arguments", "message"),
    [
        (
            Regular,
            {"n": 15, "degree": 3},
            "regular(n=15, degree=3): n * degree must be even; use n = 16 or degree = 4",
        ),
        (Regular, {"n": 6, "degree": 1, "dynamic": False}, "a static graph of degree 1 is not connected"),
        (
            Epidemic,
            {"n": 4, "degree": 4},
            "epidemic(n=4, degree=4): degree must be 1 or more and less than n",
        ),
        (
            VnRegular,
            {"n": 4, "fragments": 2, "degree": 3, "drop_self_edges": False},
            "vn_regular(drop_self_edges=False): a node sends itself nothing; use drop_self_edges = true",
        ),
        (
            VnRegular,
            {"n": 3, "fragments": 5, "degree": 3},
            "vn_regular(n=3, fragments=5, degree=3): n * fragments * degree must be even; use n = 4 or",
        ),
    ],
)
def test_impossible_degrees_are_refused(topology: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        topology(**arguments, seeds=SEEDS)
