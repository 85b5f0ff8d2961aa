"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009) with GN-LeNet (algorithms.md 9.1).

Images stay uint8 in N, H, W, C order in a file mapping: a mini-batch is one gather of contiguous rows, and
its normalisation, ``(v / 255 - 0.5) / 0.5`` per channel, costs less than reading floats would. There is
no augmentation.
"""

# torch takes a second to import, and configuration is checked without it.

from __future__ import annotations

import codecs
import hashlib
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from decentral.arrays import AnyArray
from decentral.errors import DataError
from decentral.tasks.base import Metric, Shapes
from decentral.tasks.classifier import LoadedClassifier, splits_of
from decentral.tasks.storage import data_folder, download, file_md5, mapped, require

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class _Original:
    """What the data set's home publishes.

    Args:
        name: of the task.
        url: of the archive.
        md5: of the archive.
        train: md5 of each training file, in order.
        test: md5 of the test file.
        sizes: bytes of each file.
        labels: key of the classes in the files.
        classes: number of classes.
    """

    name: str
    url: str
    md5: str
    train: Mapping[str, str]
    test: Mapping[str, str]
    sizes: Mapping[str, int]
    labels: bytes
    classes: int


@dataclass(frozen=True, kw_only=True)
class _Cifar:
    """The part that both sets share.

    Args:
        folder: of the original python-version files, relative to the data folder or absolute.
        verify: refuse files whose size or md5 is not that of the published set; turn it off for files of
            the same layout with other images.
    """

    folder: str
    verify: bool = True

    _original: ClassVar[_Original]

    @property
    def metric(self) -> Metric:
        """Accuracy."""
        return Metric("acc", higher_is_better=True)

    def check(self) -> None:
        """Raise ``DataError`` unless every file is there with its published size."""
        self._files(checksums=False)

    def shapes(self) -> Shapes:
        """Parameters of GN-LeNet: 89,834 for 10 classes, 182,084 for 100."""
        return gn_lenet_shapes(self._original.classes)

    def fetch(self) -> Path:
        """Download the set from its home into the data folder, unless it is there, and verify it."""
        default = type(self)().folder  # type: ignore[call-arg]
        if self.folder != default or not self.verify:
            raise DataError(
                f"{self._original.name}: only the published set in its own folder can be downloaded;"
                f' leave out data.folder = "{self.folder}" and data.verify'
            )
        files = [f"{self.folder}/{name}" for name in (*self._original.train, *self._original.test)]
        download(self._original.url, data_folder(), self._original.md5, produces=files)
        return self._files(checksums=True)

    def load(self) -> LoadedClassifier:
        """Verify the files and map the images; on later calls only sizes are checked."""
        original = self._original
        folder = self._files(checksums=False)
        names = [*original.train, *original.test]
        published = {**original.train, **original.test}
        sums = [published[name] if self.verify else file_md5(folder / name) for name in names]
        digest = hashlib.blake2b("".join(sums).encode(), digest_size=8).hexdigest()
        return LoadedClassifier(
            name=original.name,
            splits=splits_of(mapped(f"{original.name}-v1-{digest}", self._build)),
            module_factory=partial(gn_lenet, original.classes),
            shapes=self.shapes(),
            prepare=normalise,
            batch=32,
        )

    def _files(self, checksums: bool) -> Path:
        original = self._original
        return require(
            data_folder() / self.folder,
            {**original.train, **original.test},
            what=original.name,
            hint=f"`decentral download {original.name}` fetches them from {original.url}",
            sizes=original.sizes if self.verify else {},
            checksums=checksums and self.verify,
        )

    def _build(self) -> dict[str, AnyArray]:
        folder = self._files(checksums=True)
        original = self._original
        arrays: dict[str, AnyArray] = {}
        for split, files in (("train", original.train), ("test", original.test)):
            parts = [read_batch(folder / name, original.labels, original.classes) for name in files]
            arrays[f"{split}_inputs"] = np.concatenate([images for images, _ in parts])
            arrays[f"{split}_labels"] = np.concatenate([labels for _, labels in parts])
        return arrays


@dataclass(frozen=True, kw_only=True)
class Cifar10(_Cifar):
    """CIFAR-10: 50,000 training and 10,000 test images of 10 classes."""

    folder: str = "cifar-10-batches-py"

    _original = _Original(
        name="cifar10",
        url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        md5="c58f30108f718f92721af3b95e74349a",
        train={
            "data_batch_1": "c99cafc152244af753f735de768cd75f",
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        },
        test={"test_batch": "40351d587109b95175f43aff81a1287e"},
        sizes={
            "data_batch_1": 31035704,
            "data_batch_2": 31035320,
            "data_batch_3": 31035999,
            "data_batch_4": 31035696,
            "data_batch_5": 31035623,
            "test_batch": 31035526,
        },
        labels=b"labels",
        classes=10,
    )


@dataclass(frozen=True, kw_only=True)
class Cifar100(_Cifar):
    """CIFAR-100 with its 100 fine classes: 50,000 training and 10,000 test images."""

    folder: str = "cifar-100-python"

    _original = _Original(
        name="cifar100",
        url="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
        md5="eb9058c3a382ffc7106e4002c42a8d85",
        train={"train": "16019d7e3df5f24257cddd939b257f8d"},
        test={"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
        sizes={"train": 155249918},
        labels=b"fine_labels",
        classes=100,
    )


TASKS = {"cifar10": Cifar10, "cifar100": Cifar100}


def gn_lenet_shapes(classes: int) -> Shapes:
    """Parameter names and shapes of ``gn_lenet`` in state-dict order."""
    blocks = [(1, 3, 32), (2, 32, 32), (3, 32, 64)]
    shapes: list[tuple[str, tuple[int, ...]]] = []
    for number, inputs, outputs in blocks:
        shapes += [
            (f"conv{number}.weight", (outputs, inputs, 5, 5)),
            (f"conv{number}.bias", (outputs,)),
            (f"gn{number}.weight", (outputs,)),
            (f"gn{number}.bias", (outputs,)),
        ]
    return (*shapes, ("fc1.weight", (classes, 1024)), ("fc1.bias", (classes,)))


def gn_lenet(classes: int) -> torch.nn.Module:
    """GN-LeNet (algorithms.md 9.1) with torch's default initialisation.

    Each block is convolution 5x5, GroupNorm, ReLU, max-pooling 2x2. ReLU is computed after the pooling:
    both orders give the same outputs and gradients to the bit, and this one touches a quarter of the memory.
    """
    from torch import Tensor, nn
    from torch.nn.functional import max_pool2d, relu_

    class GnLeNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(3, 32, 5, padding=2)
            self.gn1 = nn.GroupNorm(2, 32)
            self.conv2 = nn.Conv2d(32, 32, 5, padding=2)
            self.gn2 = nn.GroupNorm(2, 32)
            self.conv3 = nn.Conv2d(32, 64, 5, padding=2)
            self.gn3 = nn.GroupNorm(2, 64)
            self.fc1 = nn.Linear(1024, classes)

        def forward(self, x: Tensor) -> Tensor:
            x = relu_(max_pool2d(self.gn1(self.conv1(x)), 2))
            x = relu_(max_pool2d(self.gn2(self.conv2(x)), 2))
            x = relu_(max_pool2d(self.gn3(self.conv3(x)), 2))
            return self.fc1(x.flatten(1))  # type: ignore[no-any-return]

    return GnLeNet()


def read_batch(path: Path, labels_key: bytes, classes: int) -> tuple[AnyArray, AnyArray]:
    """Images, uint8 of shape (N, 32, 32, 3), and classes, int64 of shape (N,), of one original file.

    Raises:
        DataError: the file asks for anything but arrays and bytes, or holds something else.
    """
    try:
        with path.open("rb") as file:
            content = _ArraysOnly(file, encoding="bytes").load()
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, IndexError, KeyError) as error:
        raise DataError(f"{path}: damaged or foreign ({error}); put the original file there") from error
    if not isinstance(content, dict) or not {b"data", labels_key} <= content.keys():
        raise DataError(
            f"{path}: expected a dict with {b'data'!r} and {labels_key!r}; put the original there"
        )
    pixels, labels = content[b"data"], np.asarray(content[labels_key])
    if not (
        isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8 and pixels.shape == (len(labels), 3072)
    ):
        raise DataError(
            f"{path}: expected data of type uint8 and shape ({len(labels)}, 3072); put the original there"
        )
    if labels.dtype.kind not in "iu" or not ((labels >= 0) & (labels < classes)).all():
        raise DataError(f"{path}: expected classes 0..{classes - 1}; put the original file there")
    return pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels.astype(np.int64)


def _latin1(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"encoding {encoding} is not allowed")
    return codecs.encode(text, encoding)


# The private constructor that numpy writes into pickles; asking an array for it works in every version.
_RECONSTRUCT: Any = np.empty(0).__reduce__()[0]

_ALLOWED: Mapping[tuple[str, str], Callable[..., Any]] = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _latin1,
}


class _ArraysOnly(pickle.Unpickler):
    """Never imports: every name in a file is looked up in a fixed table."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no data set needs")
        return _ALLOWED[module, name]


def normalise(batch: torch.Tensor) -> torch.Tensor:
    """(v / 255 - 0.5) / 0.5 of uint8 (b, 32, 32, 3) as channels_last (b, 3, 32, 32)."""
    return batch.float().mul_(2 / 255).sub_(1).permute(0, 3, 1, 2)
