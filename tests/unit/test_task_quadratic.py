"""The quadratic task against its closed forms."""

from __future__ import annotations

import time

import numpy as np
import pytest

from decentral.errors import ConfigError
from decentral.tasks.base import Learner, LoadedTask, Sgd, Task, size_of
from decentral.tasks.quadratic import TASKS, Quadratic


def test_it_keeps_the_contracts() -> None:
    task = Quadratic(d=7)
    task.check()
    loaded = task.load()
    assert list(TASKS.values()) == [Quadratic]
    assert isinstance(task, Task)
    assert isinstance(loaded, LoadedTask)
    assert isinstance(loaded.learner(np.arange(3), Sgd(lr=0.1, batch=1)), Learner)
    assert size_of(task.shapes()) == 7
    assert len(task.shapes()) == 2
    assert loaded.examples.count == loaded.rows("train") == loaded.rows("test") == 1024
    assert task.metric.name in loaded.evaluate(loaded.initial(0), "test")
    with pytest.raises(ConfigError, match="no owners"):
        loaded.local_rows("test", np.arange(3))


def test_the_matrix_has_the_condition_asked_for() -> None:
    loaded = Quadratic(condition=50.0).load()
    values = np.linalg.eigvalsh(loaded.matrix)
    np.testing.assert_allclose([values[0], values[-1]], [1 / 50, 1], rtol=1e-9)
    np.testing.assert_allclose(loaded.matrix, loaded.matrix.T, atol=1e-15)


def test_heterogeneity_scatters_the_optima() -> None:
    assert np.ptp(Quadratic(heterogeneity=0.0).load().optima, axis=0).max() == 0
    spread = Quadratic(heterogeneity=3.0, rows=20_000).load().optima.std()
    assert spread == pytest.approx(3.0, rel=0.2)
    first, same, other = (Quadratic(data_seed=seed).load().optima for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, other)


def test_full_batch_descent_follows_the_closed_form() -> None:
    loaded = Quadratic(rows=40).load()
    shard = np.arange(5, 25)
    learner = loaded.learner(shard, Sgd(lr=0.3, batch=20))
    learner.x[:] = start = loaded.initial(2)
    mean = learner.train(15, np.random.default_rng(0))
    optimum = loaded.optima[shard].mean(axis=0)
    contraction = np.eye(16) - 0.3 * loaded.matrix
    visited = [optimum + np.linalg.matrix_power(contraction, k) @ (start - optimum) for k in range(16)]
    np.testing.assert_allclose(learner.x, visited[15], rtol=1e-5, atol=1e-5)
    losses = [loaded.evaluate(x.astype(np.float32), "train", shard)["loss"] for x in visited[:15]]
    assert mean == pytest.approx(np.mean(losses), rel=1e-5)


def test_steps_follow_the_batches_with_momentum_and_weight_decay() -> None:
    loaded = Quadratic(rows=10).load()
    learner = loaded.learner(np.arange(10), Sgd(lr=0.2, batch=4, momentum=0.8, weight_decay=0.1))
    learner.x[:] = x = loaded.initial(2)
    velocity, rng = np.zeros(16), np.random.default_rng(3)
    for seed in (3, 4):
        rng = np.random.default_rng(seed)
        epochs = [rng.permutation(10) for _ in range(2)]
        for rows in (part for order in epochs for part in np.split(order, [4, 8])):
            gradient = loaded.matrix @ (x - loaded.optima[rows].mean(axis=0)) + 0.1 * x
            velocity = 0.8 * velocity + gradient
            x = x - 0.2 * velocity
        learner.train(6, np.random.default_rng(seed))
    np.testing.assert_allclose(learner.x, x, rtol=1e-4, atol=1e-5)


def test_gradient_noise_has_the_variance_asked_for() -> None:
    # With one optimum the stationary covariance solves C = (I - lr A) C (I - lr A) + lr^2 noise^2 I.
    loaded = Quadratic(d=4, heterogeneity=0.0, condition=2.0, noise=0.5).load()
    learner = loaded.learner(np.arange(10), Sgd(lr=0.5, batch=2))
    learner.x[:] = loaded.optimum
    rng = np.random.default_rng(1)
    squares = []
    for _ in range(4000):
        learner.train(2, rng)
        squares.append(np.square(learner.x - loaded.optimum).sum())
    values = np.linalg.eigvalsh(loaded.matrix)
    expected = (0.5**2 * 0.5**2 / (1 - (1 - 0.5 * values) ** 2)).sum()
    assert np.mean(squares) == pytest.approx(expected, rel=0.1)


def test_loss_and_distance_at_the_optimum() -> None:
    loaded = Quadratic(heterogeneity=0.5).load()
    best = loaded.evaluate(loaded.optimum.astype(np.float32), "test")
    assert best["distance"] < 1e-5
    moved = loaded.optimum.copy()
    moved[0] += 3
    away = loaded.evaluate(moved.astype(np.float32), "test")
    assert away["distance"] == pytest.approx(3, rel=1e-5)
    assert away["loss"] - best["loss"] == pytest.approx(0.5 * 9 * loaded.matrix[0, 0], rel=1e-4)


def test_same_seed_same_bits() -> None:
    loaded = Quadratic(noise=0.1).load()
    results = []
    for seed in (1, 1, 2):
        learner = loaded.learner(np.arange(50), Sgd(lr=0.1, batch=8))
        learner.x[:] = loaded.initial(0)
        learner.train(30, np.random.default_rng(seed))
        results.append(learner.x.tobytes())
    assert results[0] == results[1] != results[2]


def test_a_step_is_cheap() -> None:
    learner = Quadratic().load().learner(np.arange(100), Sgd(lr=0.1, batch=8))
    rng = np.random.default_rng(0)
    best = np.inf
    for _ in range(5):
        start = time.process_time()
        learner.train(1000, rng)
        best = min(best, time.process_time() - start)
    assert best / 1000 < 50e-6  # measured: 4 us
