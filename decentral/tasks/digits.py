"""Handwritten digits that come with scikit-learn: 1797 images of 8x8 pixels, for quick runs on real data.

The optical recognition of handwritten digits test set of Alpaydin and Kaynak (1998), UCI. No paper on
decentralized learning uses it; the small network here is this project's choice.
"""

# torch takes a second to import, and configuration is checked without it.

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np

from decentral.arrays import AnyArray
from decentral.errors import DataError
from decentral.seeding import Seeds
from decentral.tasks.base import Metric, Shapes
from decentral.tasks.classifier import LoadedClassifier, splits_of
from decentral.tasks.storage import mapped

if TYPE_CHECKING:
    import torch

_SHAPES: Shapes = (
    ("conv1.weight", (16, 1, 3, 3)),
    ("conv1.bias", (16,)),
    ("gn1.weight", (16,)),
    ("gn1.bias", (16,)),
    ("conv2.weight", (32, 16, 3, 3)),
    ("conv2.bias", (32,)),
    ("gn2.weight", (32,)),
    ("gn2.bias", (32,)),
    ("fc1.weight", (10, 128)),
    ("fc1.bias", (10,)),
)
_TEST_SHARE = 0.2


@dataclass(frozen=True, kw_only=True)
class Digits:
    """Classification of 8x8 digits with a convolutional network of 6186 parameters.

    A fifth of every class is the test split, the same rows in every run.
    """

    @property
    def metric(self) -> Metric:
        """Accuracy."""
        return Metric("acc", higher_is_better=True)

    def check(self) -> None:
        """Raise ``DataError`` unless scikit-learn, which brings the images, is installed."""
        if find_spec("sklearn") is None:
            raise DataError("digits: the images come with scikit-learn; run pip install scikit-learn")

    def shapes(self) -> Shapes:
        """Parameters of the network."""
        return _SHAPES

    def load(self) -> LoadedClassifier:
        """Map the images as float32 in [-1, 1], shape (N, 8, 8, 1)."""
        self.check()
        return LoadedClassifier(
            name="digits",
            splits=splits_of(mapped("digits-v2", _build)),
            module_factory=_network,
            shapes=_SHAPES,
            prepare=_prepare,
            batch=256,
        )


TASKS = {"digits": Digits}


def _build() -> dict[str, AnyArray]:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    labels = labels.astype(np.int64)
    inputs = (pixels / 8 - 1).astype(np.float32).reshape(-1, 8, 8, 1)  # pixels are 0..16
    is_test = np.zeros(len(labels), dtype=bool)
    draw = Seeds(0).rng("digits/test")
    for label in range(10):
        rows = draw.permutation(np.flatnonzero(labels == label))
        is_test[rows[: round(_TEST_SHARE * len(rows))]] = True
    return {
        "train_inputs": inputs[~is_test],
        "train_labels": labels[~is_test],
        "test_inputs": inputs[is_test],
        "test_labels": labels[is_test],
    }


def _prepare(batch: torch.Tensor) -> torch.Tensor:
    return batch.permute(0, 3, 1, 2)


def _network() -> torch.nn.Module:
    from torch import Tensor, nn
    from torch.nn.functional import max_pool2d, relu_

    class DigitsNet(nn.Module):
        """Two blocks of convolution, GroupNorm, ReLU and max-pooling, then one linear layer."""

        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
            self.gn1 = nn.GroupNorm(2, 16)
            self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
            self.gn2 = nn.GroupNorm(2, 32)
            self.fc1 = nn.Linear(128, 10)

        def forward(self, x: Tensor) -> Tensor:
            # ReLU and maximum commute exactly; the smaller tensor first.
            x = relu_(max_pool2d(self.gn1(self.conv1(x)), 2))
            x = relu_(max_pool2d(self.gn2(self.conv2(x)), 2))
            return self.fc1(x.flatten(1))  # type: ignore[no-any-return]

    return DigitsNet()
