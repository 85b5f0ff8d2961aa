"""Next-character prediction on Shakespeare's plays with a stacked LSTM (algorithms.md 9.3)."""

# torch takes a second to import, and configuration is checked without it.

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import numpy as np
from annotated_types import Ge

from decentral.arrays import AnyArray, FloatArray, IntArray
from decentral.errors import DataError
from decentral.model import FlatModel, TorchLearner, draw, evaluate
from decentral.tasks.base import Examples, Metric, Scores, Sgd, Shapes, Split
from decentral.tasks.shakespeare_text import SEQUENCE, VOCABULARY, Corpus, read_leaf, read_plays
from decentral.tasks.storage import data_folder, file_md5, mapped

if TYPE_CHECKING:
    import torch

Head: TypeAlias = Literal["all", "last"]

_EMBEDDING, _HIDDEN, _LAYERS = 8, 256, 2
_TEST_EVERY = 30
_EVALUATION_BATCH = 256  # two layers' activations take 84 MB
_FILES = {"plays": "*.txt", "leaf": "all_data_*.json"}
_HINTS = {
    "plays": "put one text file per play there, with lines ROLE<tab>speech and a line ACT I",
    "leaf": "put the all_data_*.json of LEAF's shakespeare preprocessing there",
}


@dataclass(frozen=True, kw_only=True)
class Shakespeare:
    """The next character after 80 of what a role says; 92 classes.

    Every 30th sample, counted over all of them, is a test sample. With a stride below 81 test samples share
    characters with training samples, as in LEAF, whose stride is 1.

    Args:
        format: ``plays`` reads ``shakespeare/plays/*.txt`` of the data folder, ``leaf`` reads
            ``shakespeare/leaf/all_data_*.json``.
        stride: characters between the starts of two samples of a role. Default 80 for plays: every character
            is read once, and 37 plays give 52,946 samples of 1,153 roles where stride 1 gives 4.2 million.
            Default 1 for LEAF: all the samples that its preprocessing chose.
        min_role_characters: roles (LEAF: users) with less text are left out; fewer than 81 give no sample.
        head: what the last layer sees: the hidden states of ``all`` 80 steps after a ReLU (2,683,708
            parameters, JWINS and Mosaic) or of the ``last`` step (LEAF's model, 823,100 here).
    """

    format: Literal["plays", "leaf"] = "plays"
    stride: Annotated[int, Ge(1)] | None = None
    min_role_characters: Annotated[int, Ge(SEQUENCE + 1)] = SEQUENCE + 1
    head: Head = "all"

    @property
    def metric(self) -> Metric:
        """Share of characters predicted right."""
        return Metric("acc", higher_is_better=True)

    def check(self) -> None:
        """Raise ``DataError`` unless there are files of the chosen format."""
        self._files()

    def shapes(self) -> Shapes:
        """Parameters in torch's order: embedding, two LSTM layers, linear layer."""
        read = _HIDDEN * (SEQUENCE if self.head == "all" else 1)
        layers: list[tuple[str, tuple[int, ...]]] = []
        for layer, width in enumerate((_EMBEDDING, _HIDDEN)):
            layers += [
                (f"lstm.weight_ih_l{layer}", (4 * _HIDDEN, width)),
                (f"lstm.weight_hh_l{layer}", (4 * _HIDDEN, _HIDDEN)),
                (f"lstm.bias_ih_l{layer}", (4 * _HIDDEN,)),
                (f"lstm.bias_hh_l{layer}", (4 * _HIDDEN,)),
            ]
        return (
            ("embedding.weight", (len(VOCABULARY), _EMBEDDING)),
            *layers,
            ("linear.weight", (len(VOCABULARY), read)),
            ("linear.bias", (len(VOCABULARY),)),
        )

    def load(self) -> LoadedShakespeare:
        """Read the texts (once per host), map them and split the samples.

        Raises:
            DataError: no files, a damaged file, or no role with enough text.
        """
        files = self._files()
        stride = self.stride or (80 if self.format == "plays" else 1)
        digest = hashlib.blake2b(digest_size=8)
        for file in files:
            digest.update(f"{file.name} {file_md5(file)}\n".encode())
        key = f"shakespeare-{self.format}-v1-{stride}-{self.min_role_characters}-{digest.hexdigest()}"
        read = read_plays if self.format == "plays" else read_leaf
        arrays = mapped(key, lambda: read(files, stride, self.min_role_characters)._asdict())
        corpus = Corpus(arrays["text"], arrays["starts"], arrays["groups"])
        if len(corpus.starts) < 2:
            raise DataError(
                f"{files[0].parent}: no role says {self.min_role_characters} characters in {len(files)}"
                f" files; {_HINTS[self.format]}, or lower data.min_role_characters"
            )
        is_test = np.arange(len(corpus.starts)) % _TEST_EVERY == 0
        splits: dict[Split, IntArray] = {"train": np.flatnonzero(~is_test), "test": np.flatnonzero(is_test)}
        return LoadedShakespeare(corpus, splits, self.head, self.shapes())

    def _files(self) -> list[Path]:
        folder = data_folder() / "shakespeare" / self.format
        files = sorted(folder.glob(_FILES[self.format]))
        if not files:
            raise DataError(f"Shakespeare in {folder}: no {_FILES[self.format]}; {_HINTS[self.format]}")
        return files


class LoadedShakespeare:
    """Mapped text, its samples' splits and the LSTM.

    Args:
        corpus: text and samples.
        splits: samples of each split; row r of a split is sample ``splits[split][r]``.
        head: see ``Shakespeare``.
        shapes: of the parameters.
    """

    def __init__(self, corpus: Corpus, splits: Mapping[Split, IntArray], head: Head, shapes: Shapes) -> None:
        self._corpus, self._splits, self._shapes = corpus, splits, shapes
        # Row s of these views is the window that starts at character s, and what follows it: no copies.
        self._windows: AnyArray = np.lib.stride_tricks.sliding_window_view(corpus.text[:-1], SEQUENCE)
        self._following = corpus.text[SEQUENCE:]
        self._factory = partial(stacked_lstm, head)
        self._evaluated: FlatModel | None = None

    @property
    def examples(self) -> Examples:
        """The training samples: labels are the characters to predict, groups the roles."""
        train = self._splits["train"]
        labels = self._following[self._corpus.starts[train]].astype(np.int64)
        return Examples(count=len(train), labels=labels, groups=self._corpus.groups[train])

    def initial(self, seed: int) -> FloatArray:
        """torch's default initialisation drawn from ``seed``, shape (d,)."""
        return draw(self._factory, self._shapes, seed)

    def learner(self, shard: IntArray, sgd: Sgd) -> TorchLearner:
        """A learner of cross-entropy on the training samples ``shard``."""
        model = FlatModel(self._factory, self._shapes)
        starts = self._corpus.starts[self._splits["train"][shard]]
        return TorchLearner(
            model=model,
            inputs=self._windows,
            targets=self._following,
            shard=starts,
            sgd=sgd,
            loss=_loss,
            prepare=_prepare,
        )

    def rows(self, split: Split) -> int:
        """Number of samples of ``split``."""
        return len(self._splits[split])

    def local_rows(self, split: Split, shard: IntArray) -> IntArray:
        """Samples of ``split`` said by the roles of the training samples ``shard``."""
        groups = self._corpus.groups
        owners = np.unique(groups[self._splits["train"][shard]])
        return np.flatnonzero(np.isin(groups[self._splits[split]], owners))

    def evaluate(self, x: FloatArray, split: Split, rows: IntArray | None = None) -> Scores:
        """Cross-entropy in nats (``loss``) and share of right characters (``acc``), means over samples."""
        chosen = self._splits[split] if rows is None else self._splits[split][rows]
        if self._evaluated is None:
            self._evaluated = FlatModel(self._factory, self._shapes)
        self._evaluated.load(x)
        return evaluate(
            model=self._evaluated,
            inputs=self._windows,
            targets=self._following,
            rows=self._corpus.starts[chosen],
            loss=_loss,
            prepare=_prepare,
            batch=_EVALUATION_BATCH,
        )


def stacked_lstm(head: Head) -> torch.nn.Module:
    """Embedding 92 -> 8, two LSTM layers of 256, linear layer to 92; characters (b, 80) to logits (b, 92)."""
    from torch import Tensor, nn
    from torch.nn.functional import relu

    class StackedLstm(nn.Module):
        """The LSTM of JWINS and Mosaic (head "all") or of LEAF with this vocabulary (head "last")."""

        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(len(VOCABULARY), _EMBEDDING)
            self.lstm = nn.LSTM(_EMBEDDING, _HIDDEN, _LAYERS, batch_first=True)
            self.linear = nn.Linear(_HIDDEN * (SEQUENCE if head == "all" else 1), len(VOCABULARY))

        def forward(self, characters: Tensor) -> Tensor:
            states, _ = self.lstm(self.embedding(characters))
            read = relu(states).flatten(1) if head == "all" else states[:, -1]
            return self.linear(read)  # type: ignore[no-any-return]

    return StackedLstm()


def _prepare(windows: torch.Tensor) -> torch.Tensor:
    return windows.long()


def _loss(logits: torch.Tensor, characters: torch.Tensor) -> torch.Tensor:
    from torch.nn.functional import cross_entropy

    return cross_entropy(logits, characters.long())


TASKS = {"shakespeare": Shakespeare}
