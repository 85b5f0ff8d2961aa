"""CIFAR: GN-LeNet, the safe reader, small sets in the original layout, and the real one where it is there."""

from __future__ import annotations

import os
import pickle
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from decentral.errors import DataError
from decentral.model import FlatModel, draw
from decentral.tasks.base import Sgd, Task, size_of
from decentral.tasks.cifar import TASKS, Cifar10, Cifar100, gn_lenet, gn_lenet_shapes, normalise, read_batch


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)  # as in a node


def write_batch(path: Path, rows: int, classes: int, key: bytes, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A file in the original layout: pixels as N rows of 3072, red plane first."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (rows, 3072), dtype=np.uint8)
    labels = rng.integers(0, classes, rows).tolist()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps({b"data": pixels, key: labels, b"batch_label": b"a batch"}, protocol=2))
    return pixels, np.array(labels)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A CIFAR-100 of 24 training and 8 test images and a CIFAR-10 of 5 x 6 and 4."""
    monkeypatch.setenv("DECENTRAL_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("DECENTRAL_CACHE", str(tmp_path / "cache"))
    write_batch(tmp_path / "data/cifar-100-python/train", 24, 100, b"fine_labels", 1)
    write_batch(tmp_path / "data/cifar-100-python/test", 8, 100, b"fine_labels", 2)
    for number in range(1, 6):
        write_batch(tmp_path / f"data/cifar-10-batches-py/data_batch_{number}", 6, 10, b"labels", number)
    write_batch(tmp_path / "data/cifar-10-batches-py/test_batch", 4, 10, b"labels", 6)
    return tmp_path / "data"


@pytest.mark.parametrize(("task", "count"), [(Cifar10(), 89_834), (Cifar100(), 182_084)])
def test_gn_lenet_has_the_published_size(task: Cifar10 | Cifar100, count: int) -> None:
    assert isinstance(task, Task)
    assert size_of(task.shapes()) == count
    classes = task.shapes()[-1][1][0]
    model = FlatModel(partial(gn_lenet, classes), task.shapes())
    assert sum(parameter.numel() for parameter in model.module.parameters()) == count
    sizes = [parameter.numel() for parameter in model.module.parameters()]
    assert sizes == [2400, 32, 32, 32, 25600, 32, 32, 32, 51200, 64, 64, 64, 1024 * classes, classes]


def test_gn_lenet_equals_the_plain_network() -> None:
    def block(inputs: int, outputs: int) -> list[nn.Module]:
        convolution = nn.Conv2d(inputs, outputs, 5, padding=2)
        return [convolution, nn.GroupNorm(2, outputs), nn.ReLU(), nn.MaxPool2d(2)]

    plain = nn.Sequential(*block(3, 32), *block(32, 32), *block(32, 64), nn.Flatten(), nn.Linear(1024, 10))
    shapes = gn_lenet_shapes(10)
    model = FlatModel(partial(gn_lenet, 10), shapes)
    model.load(draw(partial(gn_lenet, 10), shapes, 1))
    plain.load_state_dict(dict(zip(plain.state_dict(), model.state_dict().values(), strict=True)))
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8))
    prepared = normalise(images)
    expected = (images.permute(0, 3, 1, 2).double() / 255 - 0.5) / 0.5
    torch.testing.assert_close(prepared.double(), expected, rtol=0, atol=1e-6)
    assert prepared.is_contiguous(memory_format=torch.channels_last)
    targets = torch.arange(8)
    for module, inputs in ((model.module, prepared), (plain, prepared.contiguous())):
        cross_entropy(module(inputs), targets).backward()  # type: ignore[no-untyped-call]
    for ours, theirs in zip(model.module.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_small_sets_load_without_verification(small: Path, name: str) -> None:
    task = TASKS[name](verify=False)
    task.check()
    loaded = task.load()
    train, test = {"cifar10": (30, 4), "cifar100": (24, 8)}[name]
    assert (loaded.rows("train"), loaded.rows("test")) == (train, test)
    learner = loaded.learner(np.arange(train), Sgd(lr=0.01, batch=8))
    learner.x[:] = loaded.initial(1)
    rng = np.random.default_rng(0)
    learner.train(12, rng)
    assert loaded.evaluate(learner.x, "train")["loss"] < loaded.evaluate(loaded.initial(1), "train")["loss"]


def test_images_keep_their_pixels(small: Path) -> None:
    pixels, labels = write_batch(small / "cifar-100-python/test", 8, 100, b"fine_labels", 2)
    test = Cifar100(verify=False).load()._splits["test"]
    assert test.inputs.dtype == np.uint8
    assert test.inputs.flags.c_contiguous
    assert not test.inputs.flags.writeable
    np.testing.assert_array_equal(test.labels, labels)
    for row, (channel, y, x) in enumerate([(0, 0, 0), (1, 3, 31), (2, 31, 7)]):
        assert test.inputs[row, y, x, channel] == pixels[row, channel * 1024 + y * 32 + x]


def test_changed_files_are_mapped_anew(small: Path) -> None:
    before = Cifar100(verify=False).load()._splits["test"].inputs
    pixels, _ = write_batch(small / "cifar-100-python/test", 8, 100, b"fine_labels", 77)
    after = Cifar100(verify=False).load()._splits["test"].inputs
    assert not np.array_equal(before, after)
    assert after[0, 0, 0, 0] == pixels[0, 0]


def test_check_names_what_is_missing_and_where(small: Path) -> None:
    with pytest.raises(DataError, match=r"data_batch_1 has \d+ bytes instead of 31035704") as caught:
        Cifar10().check()
    assert str(small / "cifar-10-batches-py") in str(caught.value)
    assert "decentral download cifar10" in str(caught.value)
    (small / "cifar-100-python/test").unlink()
    with pytest.raises(DataError, match="test is missing"):
        Cifar100(verify=False).check()


def test_a_set_with_another_content_is_refused(small: Path) -> None:
    with (small / "cifar-100-python/train").open("r+b") as file:
        file.truncate(155249918)  # sparse: the published size, another content
    with pytest.raises(DataError, match=r"train has md5 .* instead of 16019d7e3df5f24257cddd939b257f8d"):
        Cifar100().load()


def test_fetch_refuses_other_folders(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"leave out data\.folder"):
        Cifar10(folder="mine").fetch()
    for path in (small / "cifar-10-batches-py").iterdir():
        path.unlink()
    monkeypatch.setenv("DECENTRAL_OFFLINE", "1")
    with pytest.raises(DataError, match=r"DECENTRAL_OFFLINE is set.*cifar-10-batches-py/data_batch_1"):
        Cifar10().fetch()


class Malicious:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("protocol", range(5))
def test_a_malicious_pickle_is_refused_and_not_run(tmp_path: Path, protocol: int) -> None:
    marker, path = tmp_path / "owned", tmp_path / "data_batch_1"
    path.write_bytes(pickle.dumps({b"data": Malicious(marker), b"labels": [0]}, protocol=protocol))
    with pytest.raises(DataError, match=r"asks for posix\.system"):
        read_batch(path, b"labels", 10)
    assert not marker.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a pickle",
        pickle.dumps([1, 2]),
        pickle.dumps({b"data": np.zeros((1, 3072), dtype=np.uint8)}, protocol=2),
        pickle.dumps({b"data": np.zeros((1, 3071), dtype=np.uint8), b"labels": [0]}, protocol=2),
        pickle.dumps({b"data": np.zeros((1, 3072), dtype=np.float32), b"labels": [0]}, protocol=2),
        pickle.dumps({b"data": np.zeros((1, 3072), dtype=np.uint8), b"labels": [10]}, protocol=2),
        pickle.dumps({b"data": np.zeros((1, 3072), dtype=np.uint8), b"labels": [-1]}, protocol=2),
        pickle.dumps({b"data": np.zeros((2, 3072), dtype=np.uint8), b"labels": [1]}, protocol=2),
        b"c_codecs\nencode\n(V00\nVhex\ntR.",
        b"cbuiltins\neval\n(V1+1\ntR.",
        b"cnumpy\nload\n(V/etc/hostname\ntR.",
    ],
)
def test_foreign_content_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "data_batch_1"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"data_batch_1: .*(put the original|no data set needs)"):
        read_batch(path, b"labels", 10)


def test_the_real_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = os.environ.get("DECENTRAL_DATA")
    if folder is None or not (Path(folder) / "cifar-10-batches-py/test_batch").is_file():
        pytest.skip("DECENTRAL_DATA is unset or holds no cifar-10-batches-py")
    monkeypatch.setenv("DECENTRAL_CACHE", str(tmp_path))
    loaded = Cifar10().load()
    labels = loaded.examples.labels
    assert labels is not None
    assert np.bincount(labels).tolist() == [5000] * 10
    assert loaded.rows("test") == 10_000
    pixels = loaded._splits["train"].inputs
    assert pixels.shape == (50_000, 32, 32, 3)
    # The first image is the well-known frog; its first pixel is (59, 62, 63).
    assert labels[0] == 6
    assert pixels[0, 0, 0].tolist() == [59, 62, 63]
    learner = loaded.learner(np.arange(80), Sgd(lr=0.02, batch=8))
    learner.x[:] = loaded.initial(0)
    before = loaded.evaluate(learner.x, "train", np.arange(80))["loss"]
    learner.train(30, np.random.default_rng(0))
    assert loaded.evaluate(learner.x, "train", np.arange(80))["loss"] < before - 0.1
