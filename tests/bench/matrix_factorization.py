"""Microseconds per SGD step of matrix factorization, against dense autograd in the same process.

``python tests/bench/matrix_factorization.py`` prints one JSON line. The target is 15 us a step of batch 2 on
MovieLens latest-small; where ``DECENTRAL_DATA`` lacks it, ratings of the same shape are drawn.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from decentral.arrays import IntArray
from decentral.errors import DataError
from decentral.partition.by_group import ByGroup
from decentral.seeding import Seeds
from decentral.tasks.base import Sgd
from decentral.tasks.matrix_factorization import Ratings
from decentral.tasks.movielens import LoadedMovieLens, MovieLens

NODES = 60
SGD = Sgd(lr=0.05, batch=2)
SPARSE_STEPS = 4000  # ten of DivShare's local rounds
DENSE_STEPS = 400
REPEATS = 7


def load() -> tuple[LoadedMovieLens, str]:
    """MovieLens latest-small, or ratings with its counts and a skewed choice of items."""
    task = MovieLens()
    try:
        return task.load(), "ml-latest-small"
    except DataError:
        draw = Seeds(1).rng("data")
        (_, (users, _)), (_, (items, _)) = task.shapes()
        values = draw.choice(np.arange(1, 11, dtype=np.float32) / np.float32(2), 70_600)
        chosen = np.minimum(draw.geometric(0.001, 70_600), items) - 1
        train = Ratings(np.sort(draw.integers(0, users, 70_600)), chosen, values)
        return LoadedMovieLens({"train": train}, task.shapes(), (0.5, 5.0)), "synthetic"


def us_per_step(train: Callable[[], None], steps: int) -> float:
    """Microseconds per step of one call."""
    start = time.perf_counter()
    train()
    return (time.perf_counter() - start) / steps * 1e6


def dense_autograd(loaded: LoadedMovieLens, shard: IntArray) -> Callable[[], None]:
    """``DENSE_STEPS`` steps of two torch embeddings with dense gradients and torch.optim.SGD."""
    ratings = loaded.splits["train"].take(shard)
    (_, (user_count, factors)), (_, (item_count, _)) = loaded.shapes
    users, items = (torch.nn.Embedding(count, factors) for count in (user_count, item_count))
    optimizer = torch.optim.SGD([*users.parameters(), *items.parameters()], lr=SGD.lr)
    columns = [torch.from_numpy(column) for column in ratings]

    def train() -> None:
        order = torch.randint(len(shard), (DENSE_STEPS, SGD.batch))
        for rows in order:
            user, item, value = (column[rows] for column in columns)
            loss = torch.nn.functional.mse_loss((users(user) * items(item)).sum(dim=1), value)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()

    return train


def main() -> None:
    """Interleave both loops, so that a busy machine slows both, and print their medians."""
    torch.set_num_threads(1)
    loaded, data = load()
    shard = ByGroup().split(loaded.examples, NODES, Seeds(1).rng("partition"))[0]
    learner = loaded.learner(shard, SGD)
    learner.x[:] = loaded.initial(1)
    draw = Seeds(1).rng("batch", 0)
    dense = dense_autograd(loaded, shard)

    def sparse() -> None:
        learner.train(SPARSE_STEPS, draw)

    timings = [
        (us_per_step(sparse, SPARSE_STEPS), us_per_step(dense, DENSE_STEPS)) for _ in range(1 + REPEATS)
    ][1:]
    ours, autograd = (statistics.median(column) for column in zip(*timings, strict=True))
    line = {
        "bench": "matrix_factorization",
        "data": data,
        "batch": SGD.batch,
        "us_per_step": round(ours, 2),
        "us_per_step_autograd": round(autograd, 2),
        "speedup": round(autograd / ours, 2),
        "target_us": 15,
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
