"""AD-PSGD, and what SwarmSGD shares with it: exchanges of pairs (algorithms.md 4.2, 8.2, 14.12)."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import nodes.adpsgd
from decentral.arrays import FloatArray
from decentral.errors import ConfigError
from decentral.fragments import Fragments
from decentral.messages import Message
from decentral.mixing import Mixer, pair_average
from decentral.node import Node
from launch.build import load_workload
from nodes.adpsgd import AdPsgd
from tests.asynchronous import ROUND_S, accounts, contender, initial_models, rounds, star, waits
from tests.harness import run

INDEPENDENT = {"init": "independent"}


@pytest.mark.parametrize("overlap", [False, True])
def test_the_sum_of_a_pair_is_conserved_to_the_bit(
    overlap: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """14.12, with training going on: a passive node's snapshot and average are one act on its live model."""
    served: dict[bytes, tuple[FloatArray, FloatArray]] = {}
    settled: list[tuple[bytes, FloatArray, FloatArray]] = []

    def rule(x: FloatArray, received: FloatArray) -> FloatArray:
        before = x.copy()
        reply = pair_average(x, received)
        assert reply.tobytes() == before.tobytes()
        served[reply.tobytes() + received.tobytes()] = (before + received, x.copy())
        return reply

    update, apply = Node.update, Node.apply

    def updated(node: Node, mix: Mixer, received: list[Message], fragments: Fragments) -> None:
        sent = node.x.copy()
        update(node, mix, received, fragments)
        settled.append((received[0].values.tobytes() + sent.tobytes(), sent, node.x.copy()))

    asked: dict[int, FloatArray] = {}
    ask, answer = Node.ask, Node.answer
    replies: dict[int, FloatArray] = {}

    def asking(node: Node, destination: int, message: Message) -> None:
        asked[node.id] = message.values.copy()
        ask(node, destination, message)

    def answered(node: Node, timeout_s: float | None = None, *, more: bool = False) -> Message | None:
        reply = answer(node, timeout_s, more=more)
        assert reply is not None
        replies[node.id] = reply.values
        return reply

    def applied(node: Node, change: FloatArray) -> None:
        sent = asked[node.id]
        settled.append((replies[node.id].tobytes() + sent.tobytes(), sent, sent + change))
        apply(node, change)

    monkeypatch.setattr(nodes.adpsgd, "pair_average", rule)
    monkeypatch.setattr(Node, "update", updated)
    monkeypatch.setattr(Node, "ask", asking)
    monkeypatch.setattr(Node, "answer", answered)
    monkeypatch.setattr(Node, "apply", applied)
    slow = star(stragglers=3, latency_ms=0.02)
    result = run(
        contender("adpsgd", {"overlap": overlap}, network=slow, run=INDEPENDENT, train={"lr": 0.2}), tmp_path
    )
    assert len(settled) == len(served) == sum(rounds(result, i) for i in range(8)) // 2
    for key, sent, active_after in settled:
        total, passive_after = served[key]
        if not overlap:
            assert active_after.tobytes() == passive_after.tobytes(), "both ends get the same model"
            assert (active_after + passive_after).tobytes() == total.tobytes()
        np.testing.assert_allclose(active_after + passive_after, total, rtol=1e-5, atol=1e-6)
        assert not np.array_equal(sent, active_after)


@st.composite
def schedules(draw: st.DrawFn) -> dict[str, Any]:
    """Random networks, compute times and sizes."""
    network = star(
        fast_mbps=draw(st.sampled_from([2.0, 10.0, 60.0])),
        stragglers=draw(st.integers(0, 2)),
        latency_ms=draw(st.sampled_from([0.0, 0.01, 0.3])),
        jitter_ms=draw(st.sampled_from([0.0, 0.1])),
        contention=draw(st.sampled_from(["uplink", "both"])),
        concurrency=draw(st.sampled_from([1, 2, "all"])),
    )
    compute = {
        "time_per_round": ROUND_S,
        "slow_nodes": draw(st.integers(0, 2)),
        "slow_factor": draw(st.sampled_from([1.0, 2.0, 7.5])),
        "jitter": draw(st.sampled_from([0.0, 0.5])),
    }
    ends: dict[str, Any] = {"max_rounds": draw(st.integers(1, 6))}
    if draw(st.booleans()):
        ends = {"max_rounds": None, "time_limit_s": draw(st.floats(2.0, 8.0)) * ROUND_S * 1.5}
    return {
        "nodes": draw(st.sampled_from([2, 4, 6])),
        "network": network,
        "compute": compute,
        "train": {"lr": 0.0},
        "run": {**INDEPENDENT, **ends},
    }


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(
        [
            ("adpsgd", {}),
            ("adpsgd", {"roles": "parity"}),
            ("adpsgd", {"overlap": True}),
            ("swarm", {}),
            ("swarm", {"steps_dist": "geometric"}),
        ]
    ),
    schedules(),
    st.integers(0, 1000),
)
def test_no_schedule_deadlocks_and_the_sum_of_all_models_stays(
    algorithm: tuple[str, dict[str, Any]], tables: dict[str, Any], seed: int
) -> None:
    """14.12: every request is answered, also those that are under way when nodes stop."""
    made = contender(*algorithm, **tables)
    with tempfile.TemporaryDirectory() as folder:
        result = run(made, Path(folder) / "run", seed=seed)
        sums = accounts(Path(folder) / "run")
    expected = initial_models(made, seed).astype(np.float64).sum(axis=0)
    np.testing.assert_allclose(result.models.sum(axis=0), expected, rtol=1e-4, atol=1e-4)
    made_in_all = sum(each["made"] for each in sums.values())
    assert made_in_all == sum(each["delivered"] for each in sums.values())
    ends = [lines[-1] for lines in result.nodes]
    assert sum(end["aggregated"] for end in ends) == made_in_all
    if algorithm[0] == "swarm":
        assert made_in_all == 2 * sum(rounds(result, i) for i in range(made.nodes))


def test_a_passive_node_answers_while_it_trains(tmp_path: Path) -> None:
    """14.12: the active node does not wait for its partner's round, which lasts 50 times as long."""
    compute = {"time_per_round": ROUND_S, "slow_nodes": 1, "slow_factor": 50.0, "slow_which": "first"}
    limit = {"max_rounds": None, "time_limit_s": 40 * ROUND_S}
    made = contender("adpsgd", {"roles": "parity"}, nodes=2, compute=compute, run=limit)
    result = run(made, tmp_path)
    assert rounds(result, 0) == 1
    transfer_s = 16 * 4 * 8 / 60e6
    assert rounds(result, 1) == np.ceil(40 * ROUND_S / (ROUND_S + 2 * transfer_s))
    assert waits(result, 1) == pytest.approx([2 * transfer_s] * rounds(result, 1), rel=1e-3)


def test_training_meanwhile_is_added_to_what_averaging_made(tmp_path: Path) -> None:
    """x = average of the snapshots + the update found meanwhile, at the end of the window."""
    compute = {"time_per_round": ROUND_S, "slow_nodes": 1, "slow_factor": 10.0, "slow_which": "first"}
    ends = {"max_rounds": 1, **INDEPENDENT}
    own = {"roles": "parity"}
    made = contender("adpsgd", own, nodes=2, compute=compute, run=ends, train={"lr": 0.3, "local_steps": 3})
    workload = load_workload(made, 1, {})
    trained = []
    for i in range(2):
        learner = workload.loaded.learner(workload.shards[i], workload.composition.sgd)
        learner.x[:] = workload.initial(i)
        learner.train(3, workload.composition.seeds.rng("node/batch", i, 0))
        trained.append(learner.x.copy())
    average = (workload.initial(0) + trained[1]) / 2
    result = run(made, tmp_path)
    np.testing.assert_allclose(result.models[1], average, rtol=1e-6)
    np.testing.assert_allclose(result.models[0], average + (trained[0] - workload.initial(0)), rtol=1e-5)


def test_answers_queued_at_a_node_that_leaves_are_sent(tmp_path: Path) -> None:
    """1.7: a passive node asked by two is still sending the first answer when its rounds are over."""
    # A model takes 1 ms: requests come at 2.3 ms, passive nodes leave at 2.5 ms, answers end from 3.3 ms on.
    late = {"time_per_round": 1.25e-3}
    made = contender("adpsgd", {}, network=star(fast_mbps=0.512), compute=late, rounds=2, run=INDEPENDENT)
    result = run(made, tmp_path)
    active = [i for i in range(8) if any(waits(result, i))]
    assert len(active) == 4
    first_waits = [waits(result, i)[0] for i in active]
    assert max(first_waits) > 2.9e-3, "somebody waited behind another one's answer"
    sums = accounts(tmp_path).values()
    assert sum(each["delivered"] for each in sums) == sum(each["made"] for each in sums) == 2 * 2 * 4


@pytest.mark.parametrize("name", ["adpsgd", "swarm"])
def test_nodes_that_have_finished_go_on_answering(name: str, tmp_path: Path) -> None:
    """B16, 1.7: also with answers queued at a node that leaves; the run ends with requesters waiting."""
    slow = star(fast_mbps=0.5)  # a millisecond per model, 20 rounds of training
    result = run(contender(name, {}, network=slow, rounds=3, run=INDEPENDENT), tmp_path)
    assert [rounds(result, i) for i in range(8)] == [3] * 8
    left_s = [max(line["time_s"] for line in lines if line["event"] == "round") for lines in result.nodes]
    assert max(left_s) > min(left_s)
    assert sum(each["dropped_end"] + each["in_flight"] for each in accounts(tmp_path).values()) == 0
    limit = {"max_rounds": None, "time_limit_s": 4 * ROUND_S, **INDEPENDENT}
    stopped = run(contender(name, {}, network=slow, run=limit), tmp_path / "limit")
    asking = [i for i in range(8) if any(waits(stopped, i))]
    assert len(asking) == (4 if name == "adpsgd" else 8)
    assert all(rounds(stopped, i) == 1 for i in asking)
    assert all(stopped.nodes[i][-1]["time_s"] > 4 * ROUND_S for i in asking)


def test_a_request_can_time_out(tmp_path: Path) -> None:
    """1.8: then averaging is skipped and the model kept; a late answer is discarded, not used for another."""
    slow = star(fast_mbps=2.0)
    own = {"request_timeout_s": ROUND_S}
    run_ = {**INDEPENDENT}
    made = contender("adpsgd", own, network=slow, rounds=6, run=run_, train={"lr": 0.0})
    result = run(made, tmp_path)
    active = [i for i in range(8) if any(waits(result, i))]
    assert len(active) == 4
    for i in active:
        assert waits(result, i) == pytest.approx([ROUND_S] * 6)
        end = result.nodes[i][-1]
        assert end["aggregated"] == 0
        assert np.array_equal(result.models[i], initial_models(made)[i])
    assert sum(result.nodes[i][-1]["discarded"] for i in active) > 0


def test_roles_are_halves_and_follow_the_seed() -> None:
    seen = set()
    for seed in range(20):
        made = contender("adpsgd", nodes=10)
        seeds = load_workload(made, seed, {}).composition.seeds
        node = _node_with(seeds, 10)
        passive = AdPsgd(local_steps=1).passive(node)
        assert len(set(passive.tolist())) == 5
        seen.add(tuple(passive.tolist()))
        assert AdPsgd(local_steps=1, roles="parity").passive(node).tolist() == [0, 2, 4, 6, 8]
    assert len(seen) > 15


def _node_with(seeds: Any, n: int) -> Node:
    node = object.__new__(Node)
    node.n, node._seeds = n, seeds
    return node


def test_odd_numbers_of_nodes_are_refused() -> None:
    AdPsgd(local_steps=1).check(6)
    with pytest.raises(ConfigError, match=r"nodes = 7: adpsgd pairs .* use an even n = 8"):
        AdPsgd(local_steps=1).check(7)
