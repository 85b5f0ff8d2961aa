"""Image classification: splits, model and scores of the tasks that differ only in data and network."""

# torch takes a second to import, and configuration is checked without it.

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from decentral.arrays import AnyArray, FloatArray, IntArray
from decentral.errors import ConfigError
from decentral.model import Factory, FlatModel, Prepare, TorchLearner, draw, evaluate
from decentral.seeding import Seeds
from decentral.tasks.base import Examples, Scores, Sgd, Shapes, Split


@dataclass(frozen=True, eq=False)
class Rows:
    """One split: the rows ``index`` of mapped arrays.

    Args:
        inputs: shape (N, ...).
        labels: classes, shape (N,).
        index: row numbers of this split; row r of the split is row ``index[r]`` of the arrays.
    """

    inputs: AnyArray
    labels: IntArray
    index: IntArray


def splits_of(arrays: Mapping[str, AnyArray], validation: float) -> dict[Split, Rows]:
    """Splits of ``train_inputs``, ``train_labels``, ``test_inputs``, ``test_labels``.

    Args:
        arrays: under these names.
        validation: share of the training rows to set aside, the same rows in every run.
    """
    count = len(arrays["train_labels"])
    aside = round(validation * count)
    order = Seeds(0).rng("validation").permutation(count)
    train = (arrays["train_inputs"], arrays["train_labels"])
    return {
        "train": Rows(*train, np.sort(order[aside:])),
        "validation": Rows(*train, np.sort(order[:aside])),
        "test": Rows(arrays["test_inputs"], arrays["test_labels"], np.arange(len(arrays["test_labels"]))),
    }


class LoadedClassifier:
    """A classification task with its data mapped; a ``decentral.tasks.base.LoadedTask``.

    Args:
        name: the task's name, for messages.
        splits: the rows of train, validation and test.
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
        train = self._splits["train"]
        return Examples(count=len(train.index), labels=train.labels[train.index])

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
            shard=train.index[shard],
            sgd=sgd,
            loss=cross_entropy,
            prepare=self._prepare,
        )

    def rows(self, split: Split) -> int:
        """Number of rows of ``split``."""
        return len(self._splits[split].index)

    def local_rows(self, split: Split, shard: IntArray) -> IntArray:
        """Refused: images have no owners."""
        raise ConfigError(
            f'evaluate.scope = "local": {self._name} has no owners of rows; use evaluate.scope = "global"'
        )

    def evaluate(self, x: FloatArray, split: Split, rows: IntArray | None = None) -> Scores:
        """Cross-entropy (``loss``) and accuracy (``acc``) of ``x``, mean over rows."""
        from torch.nn.functional import cross_entropy

        if not self.rows(split):
            raise ConfigError(f"{self._name} has no {split} rows; set data.validation to a share above 0")
        if self._evaluated is None:
            self._evaluated = FlatModel(self._factory, self._shapes)
        self._evaluated.load(x)
        of = self._splits[split]
        return evaluate(
            model=self._evaluated,
            inputs=of.inputs,
            targets=of.labels,
            rows=of.index if rows is None else of.index[rows],
            loss=cross_entropy,
            prepare=self._prepare,
            batch=self._batch,
        )
