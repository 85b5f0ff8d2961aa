"""MovieLens: the published numbers, the split, and SGD against torch's autograd."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from decentral.arrays import FloatArray
from decentral.errors import ConfigError, DataError
from decentral.partition.by_group import ByGroup
from decentral.seeding import Seeds
from decentral.tasks.base import LoadedTask, Sgd, Shapes, Split, Task, size_of
from decentral.tasks.matrix_factorization import MatrixFactorization, Ratings
from decentral.tasks.movielens import LoadedMovieLens, MovieLens

SHAPES: Shapes = (("users.weight", (4, 5)), ("items.weight", (6, 5)))


def synthetic(count: int, seed: int = 0) -> Ratings:
    """So few users and items that most batches hold one of them twice."""
    draw = np.random.default_rng(seed)
    values = draw.choice(np.arange(1, 11, dtype=np.float32) / np.float32(2), count)
    return Ratings(draw.integers(0, 4, count), draw.integers(0, 6, count), values)


def torch_sgd(
    start: FloatArray, ratings: Ratings, batches: list[list[int]], sgd: Sgd
) -> tuple[FloatArray, float]:
    """Dense autograd and torch.optim.SGD over the given batches; the final flat model and the mean loss."""
    (_, (users, factors)), (_, (items, _)) = SHAPES
    table = torch.nn.Parameter(torch.from_numpy(start.reshape(users + items, factors).copy()))
    optimizer = torch.optim.SGD([table], lr=sgd.lr, momentum=sgd.momentum, weight_decay=sgd.weight_decay)
    losses = []
    for batch in batches:
        rows = np.array(batch)
        predicted = (table[ratings.users[rows]] * table[users + ratings.items[rows]]).sum(dim=1)
        loss = torch.nn.functional.mse_loss(predicted, torch.from_numpy(ratings.values[rows]))
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(loss.item())
    return table.detach().numpy().ravel(), float(np.mean(losses))


def order(count: int, size: int, steps: int, draw: np.random.Generator) -> list[list[int]]:
    """algorithms.md 1.4 in the plainest way: epochs of shuffled rows, the last batch of each may be short."""
    batches: list[list[int]] = []
    while len(batches) < steps:
        epoch = draw.permutation(count).tolist()
        batches += [epoch[start : start + size] for start in range(0, count, size)]
    return batches[:steps]


@pytest.mark.parametrize(("momentum", "weight_decay"), [(0.0, 0.0), (0.7, 0.0), (0.0, 0.01), (0.5, 0.02)])
@pytest.mark.parametrize(
    ("count", "size", "steps"), [(23, 2, 40), (23, 1, 30), (24, 8, 20), (5, 64, 6), (20, 6, 3)]
)
def test_training_is_dense_sgd(
    count: int, size: int, steps: int, momentum: float, weight_decay: float
) -> None:
    ratings = synthetic(count)
    sgd = Sgd(lr=0.02, batch=size, momentum=momentum, weight_decay=weight_decay)
    learner = MatrixFactorization(ratings, SHAPES, sgd)
    start = np.random.default_rng(1).uniform(-0.5, 0.5, 50).astype(np.float32)
    learner.x[:] = start
    loss = learner.train(steps, Seeds(1).rng("batch", 0, 0))
    expected, expected_loss = torch_sgd(
        start, ratings, order(count, size, steps, Seeds(1).rng("batch", 0, 0)), sgd
    )
    np.testing.assert_allclose(learner.x, expected, rtol=2e-5, atol=2e-6)
    assert loss == pytest.approx(expected_loss, rel=1e-5)


def test_the_velocity_outlives_a_call() -> None:
    ratings = synthetic(12)
    sgd = Sgd(lr=0.02, batch=3, momentum=0.9)
    learner = MatrixFactorization(ratings, SHAPES, sgd)
    start = np.random.default_rng(1).uniform(-0.5, 0.5, 50).astype(np.float32)
    learner.x[:] = start
    batches = []
    for call in range(3):
        learner.train(5, Seeds(1).rng("batch", 0, call))
        batches += order(12, 3, 5, Seeds(1).rng("batch", 0, call))
    expected, _ = torch_sgd(start, ratings, batches, sgd)
    np.testing.assert_allclose(learner.x, expected, rtol=5e-5, atol=5e-6)


def test_plain_sgd_leaves_other_rows_alone_to_the_bit() -> None:
    ratings = Ratings(np.array([1, 1]), np.array([2, 2]), np.array([3.0, 4.0], dtype=np.float32))
    learner = MatrixFactorization(ratings, SHAPES, Sgd(lr=0.1, batch=2))
    start = np.random.default_rng(1).uniform(-0.5, 0.5, 50).astype(np.float32)
    learner.x[:] = start
    learner.train(7, Seeds(1).rng("batch"))
    changed = np.flatnonzero((learner.x != start).reshape(10, 5).any(axis=1))
    assert changed.tolist() == [1, 4 + 2]


def test_x_is_live_and_training_repeats() -> None:
    learner = MatrixFactorization(synthetic(30), SHAPES, Sgd(lr=0.05, batch=2))
    results = []
    for _ in range(2):
        learner.x[:] = 0.1
        results.append((learner.train(25, Seeds(3).rng("batch")), learner.x.copy()))
    assert results[0][0] == results[1][0]
    assert np.array_equal(results[0][1], results[1][1])
    assert learner.x is learner.x


def test_a_diverging_model_reports_it_without_a_warning() -> None:
    learner = MatrixFactorization(synthetic(30), SHAPES, Sgd(lr=1e6, batch=2))
    learner.x[:] = 0.1
    assert not np.isfinite(learner.train(50, Seeds(3).rng("batch")))
    loaded = LoadedMovieLens({"test": synthetic(30)}, SHAPES, (0.5, 5.0))
    assert not np.isfinite(loaded.evaluate(learner.x, "test")["rmse"])


def test_an_empty_shard_is_refused() -> None:
    with pytest.raises(ConfigError, match="no training ratings"):
        MatrixFactorization(synthetic(0), SHAPES, Sgd(lr=0.1, batch=2))


def test_scores_are_those_of_single_ratings() -> None:
    test = Ratings(np.array([0, 1, 1]), np.array([0, 0, 1]), np.array([5.0, 1.0, 3.0], dtype=np.float32))
    loaded = LoadedMovieLens({"test": test}, (("u", (2, 1)), ("v", (2, 1))), (0.5, 5.0))
    x = np.array([3, 1, 2, -1], dtype=np.float32)  # predictions 6, 2, -1; errors 1, 1, -4
    scores = loaded.evaluate(x, "test")
    assert scores == pytest.approx(
        {
            "loss": 6.0,
            "mse": 6.0,
            "rmse": 6.0**0.5,
            "mae": 2.0,
            "rmse_clipped": ((0 + 1 + 2.5**2) / 3) ** 0.5,
        }
    )
    assert loaded.evaluate(x, "test", np.array([1]))["loss"] == 1.0
    with pytest.raises(ConfigError, match="no test rows to score"):
        loaded.evaluate(x, "test", np.array([], dtype=np.int64))


def test_shapes_need_no_data() -> None:
    assert size_of(MovieLens().shapes()) == 206_680
    assert size_of(MovieLens(version="100k", factors=8).shapes()) == (943 + 1682) * 8
    assert isinstance(MovieLens(), Task)
    assert MovieLens().metric.name == "rmse"
    assert not MovieLens().metric.higher_is_better


def test_missing_ratings_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DECENTRAL_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"ratings.csv is missing; .*ml-latest-small.zip"):
        MovieLens().check()
    monkeypatch.setenv("DECENTRAL_OFFLINE", "1")
    with pytest.raises(DataError, match=r"put ml-100k/u.data into"):
        MovieLens(version="100k").fetch()


def test_truncated_and_altered_ratings_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DECENTRAL_DATA", str(tmp_path))
    path = tmp_path / "ml-latest-small" / "ratings.csv"
    path.parent.mkdir()
    path.write_text("userId,movieId,rating,timestamp\n1,1,4.0,964982703\n")
    with pytest.raises(DataError, match=r"ratings.csv has 50 bytes instead of 2483723"):
        MovieLens().check()
    path.write_bytes(bytes(2_483_723))
    MovieLens().check()
    with pytest.raises(
        DataError, match=r"ratings.csv has md5 \w+ instead of 325a6f09399d1c45671f187505e1a100"
    ):
        MovieLens().load()


@pytest.fixture
def real_data(data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip without the ratings; give the test a cache for itself."""
    for name in ("ml-latest-small/ratings.csv", "ml-100k/u.data"):
        if not (data_folder / name).is_file():
            pytest.skip(f"DECENTRAL_DATA does not hold {name}")
    monkeypatch.setenv("DECENTRAL_CACHE", str(tmp_path))


@pytest.mark.usefixtures("real_data")
@pytest.mark.parametrize(
    ("task", "users", "items", "ratings"),
    [
        (MovieLens(), 610, 9_724, 100_836),
        (MovieLens(version="100k"), 943, 1_682, 100_000),
    ],
)
def test_published_counts_and_the_split(task: MovieLens, users: int, items: int, ratings: int) -> None:
    loaded = task.load()
    assert isinstance(loaded, LoadedTask)
    splits: tuple[Split, ...] = ("train", "test")
    held = [loaded.splits[split] for split in splits]
    assert sum(loaded.rows(split) for split in splits) == ratings
    every_user = np.concatenate([part.users for part in held])
    every_item = np.concatenate([part.items for part in held])
    assert len(np.unique(every_user)) == every_user.max() + 1 == users
    assert len(np.unique(every_item)) == every_item.max() + 1 == items
    # No rating is in two splits: (user, item) pairs are unique in both sets.
    assert len(np.unique(every_user * items + every_item)) == ratings
    per_user = np.bincount(every_user)
    assert np.array_equal(np.bincount(held[1].users, minlength=users), np.rint(0.3 * per_user))
    assert loaded.examples.count == loaded.rows("train")
    values = np.concatenate([part.values for part in held])
    assert (values.min(), values.max()) == loaded.scale


@pytest.mark.usefixtures("real_data")
def test_the_split_varies_with_its_seed_alone() -> None:
    first, again, other = (MovieLens(data_seed=seed).load() for seed in (1, 1, 2))
    assert abs(first.rows("train") - 70_600) < 100
    assert np.array_equal(first.splits["test"].items, again.splits["test"].items)
    assert first.rows("test") == other.rows("test")
    assert not np.array_equal(first.splits["test"].items, other.splits["test"].items)
    assert np.array_equal(first.initial(1), again.initial(1))
    assert not np.array_equal(first.initial(1), again.initial(2))
    assert first.initial(1).shape == (206_680,)
    assert 0.0499 < np.abs(first.initial(1)).max() <= 0.05


@pytest.mark.usefixtures("real_data")
def test_a_known_rating_arrives_under_its_renumbered_ids() -> None:
    """User 1 gave film 47 five stars; films 1, 3, 6, 47 have ranks 0, 2, 5, 43 among the rated ones."""
    loaded = MovieLens().load()
    held = [*loaded.splits.values()]
    users, items, values = (np.concatenate(columns) for columns in zip(*held, strict=True))
    mine = {
        int(item): float(value) for item, value in zip(items[users == 0], values[users == 0], strict=True)
    }
    assert len(mine) == 232
    assert {item: mine[item] for item in (0, 2, 5, 43)} == {0: 4.0, 2: 4.0, 5: 4.0, 43: 5.0}


@pytest.mark.usefixtures("real_data")
def test_local_rows_are_those_of_the_nodes_own_users() -> None:
    loaded = MovieLens().load()
    shards = ByGroup().split(loaded.examples, 60, Seeds(1).rng("partition"))
    assert 1000 < np.mean([len(shard) for shard in shards]) < 1300
    local = [loaded.local_rows("test", shard) for shard in shards]
    assert np.array_equal(np.sort(np.concatenate(local)), np.arange(loaded.rows("test")))
    assert np.unique(loaded.splits["test"].users[local[0]]).tolist() == list(range(11))


@pytest.mark.usefixtures("real_data")
def test_one_node_learns_the_ratings() -> None:
    """All data on one node with DivShare's lr and b: two epochs reach its target (algorithms.md 10.1)."""
    loaded = MovieLens().load()
    learner = loaded.learner(np.arange(loaded.rows("train")), Sgd(lr=0.05, batch=2))
    learner.x[:] = loaded.initial(1)
    assert loaded.evaluate(learner.x, "test")["rmse"] > 3.5
    draw = Seeds(1).rng("batch", 0)
    losses = [learner.train(35_300, draw) for _ in range(2)]
    assert losses[1] < losses[0] / 3
    assert loaded.evaluate(learner.x, "test")["rmse"] < 1.25
