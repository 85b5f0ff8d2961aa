"""FlatModel against plain torch, the order of mini-batches, and the weighting of evaluations."""

from __future__ import annotations

import copy
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy

from decentral.errors import ConfigError
from decentral.model import FlatModel, TorchLearner, batch_rows, draw, evaluate
from decentral.tasks.base import Sgd, Shapes

SHAPES: Shapes = (
    ("0.weight", (4, 3, 3, 3)),
    ("0.bias", (4,)),
    ("1.weight", (4,)),
    ("1.bias", (4,)),
    ("4.weight", (5, 64)),
    ("4.bias", (5,)),
)
SIZE = 4 * 27 + 4 + 4 + 4 + 5 * 64 + 5


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)  # as in a node


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5)
    )


def images(rows: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    return rng.standard_normal((rows, 3, 4, 4)).astype(np.float32), rng.integers(0, 5, rows)


def as_is(batch: torch.Tensor) -> torch.Tensor:
    return batch


def learner(inputs: np.ndarray, targets: np.ndarray, shard: np.ndarray, sgd: Sgd) -> TorchLearner:
    model = FlatModel(network, SHAPES)
    model.load(draw(network, SHAPES, 1))
    return TorchLearner(
        model=model, inputs=inputs, targets=targets, shard=shard, sgd=sgd, loss=cross_entropy, prepare=as_is
    )


def plain_copy(model: FlatModel) -> nn.Module:
    plain = network()
    plain.load_state_dict(model.state_dict())
    return plain


def test_importing_the_tasks_does_not_import_torch() -> None:
    code = (
        "import sys; from decentral.tasks import cifar, digits, quadratic;"
        "[task().shapes() for module in (cifar, digits, quadratic) for task in module.TASKS.values()];"
        "sys.exit('torch' in sys.modules or 'sklearn' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_parameters_and_gradients_are_views_of_flat_buffers() -> None:
    model = FlatModel(network, SHAPES)
    assert model.x.shape == model.gradient.shape == (SIZE,)
    assert not model.x.any()
    assert model.x.ctypes.data % 64 == model.gradient.ctypes.data % 64 == 0
    model.load(np.arange(SIZE, dtype=np.float32))
    parameters = dict(model.module.named_parameters())
    kernel = parameters["0.weight"]
    assert kernel.is_contiguous(memory_format=torch.channels_last)
    # Memory order of a convolution is O, H, W, I.
    assert kernel[1, 2, 0, 1].item() == ((1 * 3 + 0) * 3 + 1) * 3 + 2
    assert parameters["4.bias"].tolist() == list(range(SIZE - 5, SIZE))
    for parameter in parameters.values():
        assert parameter.grad is not None
        parameter.grad.fill_(1.0)
    assert (model.gradient == 1.0).all()
    model.clear()
    assert not model.gradient.any()


def test_gradients_equal_a_plain_module() -> None:
    model = FlatModel(network, SHAPES)
    model.load(draw(network, SHAPES, 3))
    plain = plain_copy(model)
    inputs, targets = (torch.from_numpy(array) for array in images(6))
    for module in (model.module, plain):
        cross_entropy(module(inputs), targets).backward()  # type: ignore[no-untyped-call]
    for ours, theirs in zip(model.module.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-6)
    assert np.abs(model.gradient).max() > 0.01


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_steps_equal_torch_sgd(momentum: float, weight_decay: float) -> None:
    inputs, targets = images(12)
    sgd = Sgd(lr=0.1, batch=4, momentum=momentum, weight_decay=weight_decay)
    trained = learner(inputs, targets, np.arange(12), sgd)
    plain = plain_copy(trained._model)
    before = copy.deepcopy(plain.state_dict())
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=momentum, weight_decay=weight_decay)
    losses = []
    for call in range(2):  # momentum lasts from one call to the next
        rows, sizes = batch_rows(np.arange(12), 4, 5, np.random.default_rng(call))
        for chosen in torch.from_numpy(rows).split(sizes):  # type: ignore[no-untyped-call]
            optimizer.zero_grad()
            loss = cross_entropy(plain(torch.from_numpy(inputs)[chosen]), torch.from_numpy(targets)[chosen])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.item())
        mean = trained.train(5, np.random.default_rng(call))
        assert mean == pytest.approx(np.mean(losses[-5:]), rel=1e-5)
    for name, value in trained._model.state_dict().items():
        torch.testing.assert_close(value, plain.state_dict()[name], rtol=1e-4, atol=1e-5)
        assert not torch.equal(value, before[name])


@given(
    count=st.integers(1, 40), batch=st.integers(1, 12), steps=st.integers(1, 30), seed=st.integers(0, 2**32)
)
def test_epochs_are_permutations_with_a_short_last_batch(
    count: int, batch: int, steps: int, seed: int
) -> None:
    shard = np.random.default_rng(seed).choice(1000, size=count, replace=False)
    rows, sizes = batch_rows(shard, batch, steps, np.random.default_rng(seed))
    per_epoch = -(-count // batch)
    last = count - batch * (per_epoch - 1)
    assert sizes == [last if step % per_epoch == per_epoch - 1 else batch for step in range(steps)]
    assert len(rows) == sum(sizes)
    for start in range(0, len(rows), count):
        epoch = rows[start : start + count]
        assert len(set(epoch.tolist())) == len(epoch)
        assert set(epoch.tolist()) <= set(shard.tolist())


def test_every_epoch_and_call_is_reshuffled() -> None:
    rng = np.random.default_rng(0)
    first, _ = batch_rows(np.arange(50), 7, 16, rng)
    second, _ = batch_rows(np.arange(50), 7, 16, rng)
    epochs = [first[:50], first[50:100], second[:50], second[50:100]]
    assert len({tuple(epoch.tolist()) for epoch in epochs}) == 4


def test_a_learner_gathers_the_rows_it_drew(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, targets = images(23)
    shard = np.arange(3, 20)
    expected, sizes = batch_rows(shard, 4, 11, np.random.default_rng(9))
    for limit in (1, 3 * inputs[0].nbytes * 4, 1 << 20):  # one batch, three batches, all at once
        monkeypatch.setattr("decentral.model._GATHER_BYTES", limit)
        batches = list(
            learner(inputs, targets, shard, Sgd(lr=0.1, batch=4))._batches(11, np.random.default_rng(9))
        )
        assert [len(batch) for batch, _ in batches] == sizes
        np.testing.assert_array_equal(torch.cat([batch for batch, _ in batches]).numpy(), inputs[expected])
        np.testing.assert_array_equal(torch.cat([target for _, target in batches]).numpy(), targets[expected])


def test_same_seed_same_bits() -> None:
    inputs, targets = images(20)
    torch.manual_seed(0)
    state = torch.random.get_rng_state()
    results = []
    for seed in (4, 4, 5):
        trained = learner(inputs, targets, np.arange(20), Sgd(lr=0.1, batch=3))
        trained.train(10, np.random.default_rng(seed))
        results.append(trained.x.tobytes())
    assert results[0] == results[1] != results[2]
    assert draw(network, SHAPES, 1).tobytes() == draw(network, SHAPES, 1).tobytes()
    assert draw(network, SHAPES, 1).tobytes() != draw(network, SHAPES, 2).tobytes()
    assert torch.equal(state, torch.random.get_rng_state())  # torch's global generator is not used up


def test_state_dict_round_trip() -> None:
    x = draw(network, SHAPES, 7)
    model, other = FlatModel(network, SHAPES), FlatModel(network, SHAPES)
    model.load(x)
    state = model.state_dict()
    assert tuple((name, tuple(value.shape)) for name, value in state.items()) == SHAPES
    assert all(value.is_contiguous() for value in state.values())
    torch.manual_seed(7)
    for name, value in network().state_dict().items():
        assert torch.equal(value, state[name])
    other.from_state_dict(state)
    assert other.x.tobytes() == x.tobytes()
    state["4.bias"] = state["4.bias"][:3]
    with pytest.raises(ConfigError, match="use the same model"):
        other.from_state_dict(state)


def test_impossible_modules_are_refused() -> None:
    with pytest.raises(ConfigError, match="running_mean"):
        FlatModel(lambda: nn.BatchNorm1d(3), (("weight", (3,)), ("bias", (3,))))
    with pytest.raises(ConfigError, match=r"shapes\(\) says"):
        FlatModel(lambda: nn.Linear(2, 3), (("weight", (3, 2)), ("bias", (2,))))
    with pytest.raises(ConfigError, match="float32"):
        FlatModel(lambda: nn.Linear(2, 3).double(), (("weight", (3, 2)), ("bias", (3,))))
    with pytest.raises(ConfigError, match="trainable"):
        FlatModel(lambda: nn.Linear(2, 3).requires_grad_(False), (("weight", (3, 2)), ("bias", (3,))))


def test_evaluation_weighs_every_row_the_same() -> None:
    inputs, targets = images(10)
    model = FlatModel(network, SHAPES)
    model.load(draw(network, SHAPES, 3))
    before = model.x.tobytes()
    chosen = np.array([0, 2, 3, 5, 7, 8, 9])  # 7 rows in batches of 3: the last holds one
    scores = evaluate(
        model=model, inputs=inputs, targets=targets, rows=chosen, loss=cross_entropy, prepare=as_is, batch=3
    )
    output = plain_copy(model)(torch.from_numpy(inputs[chosen]))
    each = cross_entropy(output, torch.from_numpy(targets[chosen]), reduction="none")
    assert scores["loss"] == pytest.approx(each.mean().item(), rel=1e-6)
    assert scores["acc"] == (output.argmax(1).numpy() == targets[chosen]).mean()
    mean_of_batch_means = np.mean([each[:3].mean().item(), each[3:6].mean().item(), each[6].item()])
    assert abs(scores["loss"] - mean_of_batch_means) > 1e-3
    assert model.x.tobytes() == before
