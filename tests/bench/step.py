"""Speed of decentral's GN-LeNet learner over the hand-tuned loop's, one process, measured in one run.

    python tests/bench/step.py --rounds 8

alternates short runs of both, compares each run of the learner with the hand-tuned loop just before and
just after it, and prints the median of these ratios as one JSON line. Target: 0.97.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from decentral.model import FlatModel, TorchLearner, draw
from decentral.tasks.base import Sgd
from decentral.tasks.cifar import gn_lenet, gn_lenet_shapes, normalise
from tests.bench.handtuned import BATCH, MALLOC, SHARD_ROWS, HandTuned, synthetic


def learner() -> TorchLearner:
    """decentral's learner on the hand-tuned loop's data."""
    images, labels = synthetic(SHARD_ROWS)
    factory, shapes = partial(gn_lenet, 10), gn_lenet_shapes(10)
    model = FlatModel(factory, shapes)
    model.load(draw(factory, shapes, 1))
    return TorchLearner(
        model=model,
        inputs=images.numpy(),
        targets=labels.numpy(),
        shard=np.arange(SHARD_ROWS),
        sgd=Sgd(lr=0.01, batch=BATCH),
        loss=cross_entropy,
        prepare=normalise,
    )


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    """Parse the command line; print one JSON line."""
    parser = argparse.ArgumentParser(description="decentral's steps/s over the hand-tuned loop's.")
    parser.add_argument("--rounds", type=int, default=8, help="runs of the learner")
    parser.add_argument("--steps", type=int, default=64, help="steps per run")
    arguments = parser.parse_args()
    if not MALLOC.items() <= os.environ.items():  # glibc reads them when a process starts
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **MALLOC})
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    tuned, trained = HandTuned(), learner()
    tuned_run, trained_run = partial(tuned.run, arguments.steps), partial(trained.train, arguments.steps, rng)
    tuned.run(BATCH)
    trained.train(BATCH, rng)
    tuned_s, trained_s = [_seconds(tuned_run)], []
    for _ in range(arguments.rounds):
        trained_s.append(_seconds(trained_run))
        tuned_s.append(_seconds(tuned_run))
    ratios = [
        (before + after) / 2 / own
        for before, own, after in zip(tuned_s, trained_s, tuned_s[1:], strict=False)
    ]
    print(
        json.dumps(
            {
                "ratio": round(statistics.median(ratios), 3),
                "decentral_ms_per_step": round(statistics.median(trained_s) / arguments.steps * 1e3, 2),
                "handtuned_ms_per_step": round(statistics.median(tuned_s) / arguments.steps * 1e3, 2),
            }
        )
    )


if __name__ == "__main__":
    main()
