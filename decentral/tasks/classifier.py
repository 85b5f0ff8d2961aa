"""Image classification: splits, model and scores of the tasks that differ only in data and network."""

# torch takes a second to import, and configuration is checked without it.

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from decentral.arrays import AnyArray, FloatArray, IntArray
from decentral.errors import ConfigError
from decentral.model import Factory, FlatModel, Prepare, TorchLearner, draw, evaluate
from decentral.tasks.base import Examples, Scores, Sgd, Shapes, Split


@dataclass(frozen=True, eq=False)
class Rows:
    """One split: mapped arrays.

    Args:
        inputs: shape (N, ...).
        labels: classes, shape (N,).
    """

    inputs: AnyArray
    labels: IntArray


def splits_of(arrays: Mapping[str, AnyArray]) -> dict[Split, Rows]:
    """Splits of the arrays ``train_inputs``, ``train_labels``, ``test_inputs``, ``test_labels``."""
    return {
        "train": Rows(arrays["train_inputs"], arrays["train_labels"]),
        "test": Rows(arrays["test_inputs"], arrays["test_labels"]),
    }


class LoadedClassifier:
    """A classification task with its data mapped; a ``decentral.tasks.base.LoadedTask``.

    Args:
        name: the task's name, for messages.
        splits: the rows of train and test.
        module_factory: makes the module, with torch's initialisation.
        shapes: of its parameters.
        prepare: as in ``TorchLearner``.
        batch: rows per forward pass of an evaluation.
    """

    def __init__(
        self,
        *,
        name: str,
        splits: Mapping[Split, Rows],
        module_factory: Factory,
        shapes: Shapes,
        prepare: Prepare,
        batch: int,
    ) -> None:
        self._name, self._splits, self._batch = name, splits, batch
        self._factory, self._shapes, self._prepare = module_factory, shapes, prepare
        self._evaluated: FlatModel | None = None

    @property
    def examples(self) -> Examples:
        """The training rows with their classes."""
        labels = self._splits["train"].labels
        return Examples(count=len(labels), labels=labels)

    def initial(self, seed: int) -> FloatArray:
        """torch's default initialisation drawn from ``seed``, shape (d,)."""
        return draw(self._factory, self._shapes, seed)

    def learner(self, shard: IntArray, sgd: Sgd) -> TorchLearner:
        """A learner of cross-entropy on the training rows ``shard``."""
        from torch.nn.functional import cross_entropy

        train = self._splits["train"]
        model = FlatModel(self._factory, self._shapes)
        return TorchLearner(
            model=model,
            inputs=train.inputs,
            targets=train.labels,
            shard=shard,
            sgd=sgd,
            loss=cross_entropy,
            prepare=self._prepare,
        )

    def rows(self, split: Split) -> int:
        """Number of rows of ``split``."""
        return len(self._splits[split].labels)

    def local_rows(self, split: Split, shard: IntArray) -> IntArray:
        """Refused: images have no owners."""
        raise ConfigError(
            f'evaluate.scope = "local": {self._name} has no owners of rows; use evaluate.scope = "global"'
        )

    def evaluate(self, x: FloatArray, split: Split, rows: IntArray | None = None) -> Scores:
        """Cross-entropy (``loss``) and accuracy (``acc``) of ``x``, mean over rows."""
        from torch.nn.functional import cross_entropy

        if self._evaluated is None:
            self._evaluated = FlatModel(self._factory, self._shapes)
        self._evaluated.load(x)
        of = self._splits[split]
        return evaluate(
            model=self._evaluated,
            inputs=of.inputs,
            targets=of.labels,
            rows=np.arange(len(of.labels)) if rows is None else rows,
            loss=cross_entropy,
            prepare=self._prepare,
            batch=self._batch,
        )
