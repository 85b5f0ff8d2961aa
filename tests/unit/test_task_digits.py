"""The digits task: split, network, learning."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from decentral.errors import ConfigError
from decentral.model import FlatModel
from decentral.tasks.base import Learner, LoadedTask, Sgd, Task, size_of
from decentral.tasks.classifier import LoadedClassifier
from decentral.tasks.digits import TASKS, Digits


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)  # as in a node


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedClassifier:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DECENTRAL_CACHE", str(tmp_path_factory.mktemp("cache")))
        return Digits().load()


def test_it_keeps_the_contracts(loaded: LoadedClassifier) -> None:
    task = Digits()
    task.check()
    assert list(TASKS.values()) == [Digits]
    assert isinstance(task, Task)
    assert isinstance(loaded, LoadedTask)
    learner = loaded.learner(np.arange(3), Sgd(lr=0.1, batch=1))
    assert isinstance(learner, Learner)
    assert not learner.x.any()
    assert size_of(task.shapes()) == len(loaded.initial(0)) == len(learner.x) == 6186
    assert task.metric.name in loaded.evaluate(loaded.initial(0), "test", np.arange(5))
    with pytest.raises(ConfigError, match="no owners"):
        loaded.local_rows("test", np.arange(3))


def test_the_split_is_stratified_and_complete(loaded: LoadedClassifier) -> None:
    train, test = loaded._splits["train"], loaded._splits["test"]
    assert len(train.inputs) + len(test.inputs) == 1797
    everything = np.concatenate([train.inputs, test.inputs]).reshape(1797, 64)
    assert len(np.unique(everything, axis=0)) == 1797  # all images differ, so no row is in both splits
    assert everything.min() == -1
    assert everything.max() == 1
    assert everything.dtype == np.float32
    counts = np.bincount(test.labels) / (np.bincount(train.labels) + np.bincount(test.labels))
    np.testing.assert_allclose(counts, 0.2, atol=0.005)


def test_training_learns(loaded: LoadedClassifier) -> None:
    learner = loaded.learner(np.arange(loaded.examples.count), Sgd(lr=0.05, batch=16))
    learner.x[:] = loaded.initial(1)
    before = loaded.evaluate(learner.x, "test")
    rng = np.random.default_rng(0)
    first = learner.train(20, rng)
    last = [learner.train(60, rng) for _ in range(4)][-1]
    after = loaded.evaluate(learner.x, "test")
    assert last < 0.3 * first
    assert after["loss"] < 0.3 * before["loss"]
    assert before["acc"] < 0.3
    assert after["acc"] > 0.9


def test_same_seed_same_bits(loaded: LoadedClassifier) -> None:
    results = []
    for seed in (1, 1, 2):
        learner = loaded.learner(np.arange(100), Sgd(lr=0.1, batch=8))
        learner.x[:] = loaded.initial(seed)
        learner.train(15, np.random.default_rng(0))
        results.append(learner.x.tobytes())
    assert results[0] == results[1] != results[2]
    assert loaded.initial(1).tobytes() == loaded.initial(1).tobytes()


def test_the_network_agrees_with_its_shapes(loaded: LoadedClassifier) -> None:
    model = FlatModel(loaded._factory, Digits().shapes())
    names = [name for name, _ in model.module.named_parameters()]
    assert names == [name for name, _ in Digits().shapes()]
