"""SwarmSGD: communication copies and rounds of random length (algorithms.md 8.2); more in test_pairs.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from launch.build import load_workload
from tests.asynchronous import ROUND_S, contender, initial_models
from tests.harness import run

INDEPENDENT = {"init": "independent"}


def test_a_swarm_partner_keeps_what_it_learned_since_its_last_averaging(tmp_path: Path) -> None:
    """8.2: both ends move by half the difference of their copies, so the sum changes by training alone."""
    made = contender("swarm", {}, nodes=2, rounds=1, run=INDEPENDENT, train={"lr": 0.3, "local_steps": 3})
    workload = load_workload(made, 1, {})
    learned = []
    for i in range(2):
        learner = workload.loaded.learner(workload.shards[i], workload.composition.sgd)
        learner.x[:] = workload.initial(i)
        learner.train(3, workload.composition.seeds.rng("node/batch", i, 0))
        learned.append(learner.x - workload.initial(i))
    result = run(made, tmp_path)
    expected = workload.initial(0) + workload.initial(1) + learned[0] + learned[1]
    np.testing.assert_allclose(result.models.sum(axis=0), expected, rtol=1e-5, atol=1e-6)
    # Both ask at once and serve each other meanwhile: each ends up with the other's copy and its own update.
    np.testing.assert_allclose(result.models[0], workload.initial(1) + learned[0], rtol=1e-5, atol=1e-6)


def test_a_swarm_partner_asked_twice_moves_its_copy_twice(tmp_path: Path) -> None:
    """8.2: node 1 asks twice while node 0 trains; the second time both have the same copy already."""
    compute = {"time_per_round": ROUND_S, "slow_nodes": 1, "slow_factor": 10.0, "slow_which": "first"}
    made = contender("swarm", {}, nodes=2, rounds=2, run=INDEPENDENT, compute=compute, train={"lr": 0.0})
    mean = initial_models(made).mean(axis=0)
    np.testing.assert_allclose(run(made, tmp_path).models, [mean, mean], rtol=1e-5, atol=1e-6)


def test_geometric_rounds_last_as_long_as_their_steps(tmp_path: Path) -> None:
    own = {"steps_dist": "geometric"}
    result = run(contender("swarm", own, rounds=60, train={"local_steps": 4}), tmp_path)
    lengths = [
        line["train_s"] / (ROUND_S / 4)
        for lines in result.nodes
        for line in lines
        if line["event"] == "round"
    ]
    steps = np.round(lengths)
    np.testing.assert_allclose(lengths, steps, atol=1e-2)
    assert steps.min() == 1
    # Mean 4 and variance 12 of a geometric variable, 480 draws: the error of the mean is 0.16.
    assert steps.mean() == pytest.approx(4, abs=0.7)
    assert steps.var() == pytest.approx(12, rel=0.5)
