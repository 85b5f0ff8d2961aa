"""SWIFT and Gossip Learning, which use what lies in their mailboxes (algorithms.md 5, 8.1, 14.13, 14.15)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decentral.arrays import FloatArray
from decentral.ccs import ccs_weights
from decentral.errors import ConfigError
from decentral.fragments import Fragments
from decentral.messages import Message
from decentral.mixing import Mixer, age_weight, limited_age_weight, metropolis_hastings
from decentral.node import Node
from launch.build import Workload, load_workload
from launch.compose import compose
from nodes.gossip import GossipLearning
from tests.asynchronous import ROUND_S, accounts, contender, star, transfers
from tests.harness import Result, run

FAST: dict[str, Any] = {"name": "ideal"}


def per_round(result: Result, node: int, key: str) -> list[Any]:
    """``key`` of every round of ``node``."""
    return [line[key] for line in result.nodes[node] if line["event"] == "round"]


def rows_of(graph: nx.Graph) -> tuple[tuple[int, ...], ...]:
    """Neighbors of every node."""
    return tuple(tuple(sorted(graph[i])) for i in range(len(graph)))


def matrix_of(graph: nx.Graph) -> np.ndarray[Any, np.dtype[np.float64]]:
    """W of CCS with the own weights on the diagonal."""
    matrix = np.zeros((len(graph), len(graph)))
    for i, row in enumerate(ccs_weights(rows_of(graph))):
        for j, weight in row.items():
            matrix[i, j] = weight
        matrix[i, i] = 1 - matrix[i].sum()
    return matrix


@given(st.integers(2, 14), st.floats(0.1, 1), st.integers(0, 10_000))
def test_ccs_is_symmetric_doubly_stochastic_and_keeps_one_nth(n: int, density: float, seed: int) -> None:
    """14.13, on connected random graphs of any shape."""
    graph = nx.compose(nx.gnp_random_graph(n, density, seed=seed), nx.random_labeled_tree(n, seed=seed))
    matrix = matrix_of(graph)
    np.testing.assert_array_equal(matrix, matrix.T)
    np.testing.assert_allclose(matrix.sum(axis=1), 1)
    assert (matrix[nx.to_numpy_array(graph) > 0] > 0).all()
    assert np.diag(matrix).min() >= 1 / n - 1e-9
    assert np.sort(np.abs(np.linalg.eigvalsh(matrix)))[-2] < 1, "it mixes"


@pytest.mark.parametrize("graph", [nx.cycle_graph(6), nx.complete_graph(5), nx.hypercube_graph(3)])
def test_ccs_on_a_regular_graph_is_uniform(graph: nx.Graph) -> None:
    """5.2: all 1 / (d + 1)."""
    graph = nx.convert_node_labels_to_integers(graph)
    matrix = matrix_of(graph)
    degree = graph.degree[0]
    np.testing.assert_allclose(matrix[matrix > 0], 1 / (degree + 1))


def test_ccs_by_hand() -> None:
    """A hub 0 of degree 4 with leaves 1 and 2, and a pair 3, 4 that also know each other."""
    graph = nx.Graph([(0, 1), (0, 2), (0, 3), (0, 4), (3, 4)])
    row = [dict(each) for each in ccs_weights(rows_of(graph))]
    assert row[0] == pytest.approx({1: 0.2, 2: 0.2, 3: 0.2, 4: 0.2})
    assert row[1] == pytest.approx({0: 0.2})
    # 3 has given 0.2 to the hub and shares the rest with 4 and itself; Metropolis-Hastings would give 1/3.
    assert row[3] == pytest.approx({0: 0.2, 4: 0.4})
    assert metropolis_hastings(2, {4: 2}) == {4: 1 / 3}


def test_ccs_never_takes_a_nodes_whole_weight() -> None:
    """Each neighbor of node 0 has little to give to others: the published shares sum to 3 * 0.4 there."""
    hubs = [(j, hub) for j in (1, 2, 3) for hub in range(3 * j + 1, 3 * j + 4)]
    leaves = [(hub, 13 + 9 * place + leaf) for place, (_, hub) in enumerate(hubs) for leaf in range(9)]
    graph = nx.Graph([(0, 1), (0, 2), (0, 3), *hubs, *leaves])
    graph = nx.convert_node_labels_to_integers(graph, ordering="sorted")
    matrix = matrix_of(graph)
    assert matrix[0, 0] == pytest.approx(1 / len(graph))
    np.testing.assert_array_equal(matrix, matrix.T)


def reference_swift(workload: Workload, rounds: int, set_size: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """SWIFT in lockstep on an infinite network: neighbors' models are those broadcast a round before."""
    composition, n = workload.composition, workload.arm.nodes
    assert composition.topology is not None
    rows = tuple(composition.topology.targets(i, 0, 0) for i in range(n))
    weights = ccs_weights(rows)
    learners = [workload.loaded.learner(shard, composition.sgd) for shard in workload.shards]
    x = np.stack([workload.initial(i) for i in range(n)]).astype(np.float64)
    mailbox, ended = x.copy(), x.copy()
    for k in range(rounds):
        before = x.copy()
        for i, learner in enumerate(learners):
            learner.x[:] = x[i]
            learner.train(2, composition.seeds.rng("node/batch", i, k))
            update = learner.x - before[i].astype(np.float32)
            if (k + 1) % set_size == 0:
                x[i] = (1 - sum(weights[i].values())) * before[i]
                for j, weight in weights[i].items():
                    x[i] += weight * mailbox[j]
            ended[i] = x[i]
            x[i] += update
        mailbox = before
    return ended


@pytest.mark.parametrize("comm_set", [0, 1])
@pytest.mark.parametrize("topology", ["star", "ring"])
def test_swift_in_lockstep_is_its_recursion(comm_set: int, topology: str, tmp_path: Path) -> None:
    """5.1: gradient at x, broadcast of x, average, step; who was not heard of counts with the first model."""
    made = contender("swift", {"comm_set": comm_set}, topology={"name": topology}, network=FAST, rounds=7)
    expected = reference_swift(load_workload(made, 1, {}), 7, comm_set + 1)
    np.testing.assert_allclose(run(made, tmp_path).models, expected, rtol=1e-5, atol=1e-6)


def test_a_silent_neighbor_counts_with_the_initial_model(tmp_path: Path) -> None:
    """14.13: nobody waits for nodes 0 and 1, whose first rounds last longer than the run."""
    compute = {"time_per_round": ROUND_S, "slow_nodes": 2, "slow_factor": 1e4, "slow_which": "first"}
    limit = {"max_rounds": None, "time_limit_s": 9.5 * ROUND_S}
    ring = {"name": "ring"}
    made = contender(
        "swift", nodes=3, topology=ring, compute=compute, run=limit, network=FAST, train={"lr": 0.2}
    )
    result = run(made, tmp_path)
    assert len(per_round(result, 2, "wait_s")) == 10
    assert not any(per_round(result, 2, "wait_s"))
    workload = load_workload(made, 1, {})
    learner = workload.loaded.learner(workload.shards[2], workload.composition.sgd)
    x = workload.initial(2).copy()
    for k in range(10):
        learner.x[:] = x
        learner.train(2, workload.composition.seeds.rng("node/batch", 2, k))
        update = learner.x - x
        averaged = x / 3 + 2 * workload.initial(0) / 3
        x = averaged + update
    np.testing.assert_allclose(result.models[2], averaged, rtol=1e-5, atol=1e-6)


def test_the_communication_set_says_when_swift_averages_and_broadcasts(tmp_path: Path) -> None:
    """5.1: C_2 averages in every third round, and broadcasts in all of them unless told otherwise."""
    for broadcast, times in (("every_step", 8), ("on_average", 2)):
        own = {"comm_set": 2, "broadcast": broadcast}
        result = run(contender("swift", own, network=FAST), tmp_path / broadcast)
        assert {lines[-1]["made"] for lines in result.nodes} == {3 * times}
        for i in range(8):
            averaged = [staleness is not None for staleness in per_round(result, i, "staleness")]
            assert averaged == [k % 3 == 2 for k in range(8)]


@pytest.mark.parametrize(
    ("topology", "why"),
    [
        ({"name": "exponential"}, "directed"),
        ({"name": "regular", "settings": {"degree": 3}}, "redrawn every round"),
    ],
)
def test_swift_refuses_graphs_on_which_its_weights_mean_nothing(topology: dict[str, Any], why: str) -> None:
    with pytest.raises(
        ConfigError, match=f"topology = .*static undirected graph, this one is {why}; use ring"
    ):
        compose(contender("swift", topology=topology), 1)


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_age_weights(own: int, received: int) -> None:
    """14.15, 8.1: equal ages are the pair's mean; two models that nobody trained leave the own one alone."""
    weight = age_weight(own, received)
    assert 0 <= weight <= 1
    assert weight + age_weight(received, own) == pytest.approx(1 if own or received else 0)
    assert age_weight(own, own) == (0.5 if own else 0.0)
    assert age_weight(own, 0) == 0
    limited = limited_age_weight(own, received, 1)
    assert limited == (0 if own > received + 1 else 1 if received > own + 1 else weight)
    assert GossipLearning(local_steps=1, period_s=1.0).weight(own, received) == weight
    assert GossipLearning(local_steps=1, period_s=1.0, merge="limited").weight(own, received) == limited
    assert GossipLearning(local_steps=1, period_s=1.0, merge="plain").weight(own, received) == 0.5


def test_gossip_merges_by_the_ages_of_the_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """8.1: x = (1 - w) x + w y with w = b / (a + b), then a = max(a, b), then a grows by the steps."""
    hear, update = Node.hear, Node.update
    heard: dict[int, list[Message]] = {i: [] for i in range(8)}
    merged: dict[tuple[int, int], tuple[FloatArray, FloatArray]] = {}

    def hearing(node: Node) -> Message:
        heard[node.id].append(hear(node))
        return heard[node.id][-1]

    def updating(node: Node, mix: Mixer, received: list[Message], fragments: Fragments) -> None:
        before = node.x.copy()
        update(node, mix, received, fragments)
        merged[node.id, len(heard[node.id]) - 1] = (before, node.x.copy())

    monkeypatch.setattr(Node, "hear", hearing)
    monkeypatch.setattr(Node, "update", updating)
    result = run(contender("gossip", rounds=12, run={"init": "independent"}), tmp_path)
    for i in range(8):
        own = 0
        ages = per_round(result, i, "age")
        assert len(ages) == len(heard[i])
        for k, message in enumerate(heard[i]):
            if message.age == 0:
                assert (i, k) not in merged
            else:
                before, after = merged[i, k]
                weight = message.age / (own + message.age)
                np.testing.assert_allclose(after, (1 - weight) * before + weight * message.values, atol=1e-5)
            own = max(own, message.age) + 2
            assert ages[k] == own
    assert len(merged) > 30


@pytest.mark.parametrize("merge", ["age", "plain", "limited"])
def test_gossip_ages_grow_and_merging_keeps_models_where_they_are(merge: str, tmp_path: Path) -> None:
    """14.15; and no merge halves the parameters, as gossipy's for matrix factorization does (8.1)."""
    made = contender("gossip", {"merge": merge}, rounds=12, train={"lr": 0.0, "local_steps": 3})
    result = run(made, tmp_path)
    for i in range(8):
        ages = per_round(result, i, "age")
        assert len(ages) >= 3
        assert ages[0] >= 3
        assert min(np.diff(ages)) >= 3
    common = load_workload(made, 1, {}).common
    np.testing.assert_allclose(result.models, np.broadcast_to(common, result.models.shape), rtol=1e-5)


def test_a_gossip_round_takes_the_newest_model_alone(tmp_path: Path) -> None:
    """8.1: of what comes while a node trains only the newest is kept; a round is one model heard."""
    own = {"period_s": ROUND_S / 5}
    result = run(contender("gossip", own, rounds=10, run={"init": "independent"}), tmp_path)
    ends = [lines[-1] for lines in result.nodes]
    for i, end in enumerate(ends):
        assert end["aggregated"] == len(per_round(result, i, "age"))
        assert len(per_round(result, i, "age")) <= 10
    assert sum(end["discarded"] for end in ends) > 2 * sum(end["aggregated"] for end in ends)


def test_gossip_pushes_in_time_also_while_it_trains(tmp_path: Path) -> None:
    """8.1: every period, from a random phase on, to random others."""
    period_s = ROUND_S / 3
    made = contender("gossip", {"period_s": period_s}, rounds=12, network=star(fast_mbps=600.0))
    run(made, tmp_path)
    phases, peers = [], set()
    for node in range(8):
        starts = [each["start_s"] for each in transfers(tmp_path) if each["node"] == node]
        peers |= {(node, each["to"]) for each in transfers(tmp_path) if each["node"] == node}
        assert len(starts) >= 8
        np.testing.assert_allclose(np.diff(starts), period_s, atol=2e-9)
        assert 0 <= starts[0] < period_s
        phases.append(starts[0])
    assert len(set(phases)) == 8
    assert all(node != to for node, to in peers)
    assert len(peers) > 30
    assert sum(each["made"] for each in accounts(tmp_path).values()) >= 8 * 35
