"""MovieLens ratings predicted by matrix factorization, trained without autograd (algorithms.md 9.2, 9.4)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
from annotated_types import Ge, Gt, Lt

from decentral.arrays import FloatArray, IntArray, aligned
from decentral.errors import ConfigError, DataError
from decentral.seeding import Seeds
from decentral.tasks.base import Examples, Metric, Scores, Sgd, Shapes, Split
from decentral.tasks.matrix_factorization import MatrixFactorization, Ratings
from decentral.tasks.storage import data_folder, download, mapped, require


class _Release(NamedTuple):
    """One published set of ratings; users and items are those that occur in a rating."""

    folder: str
    file: str
    md5: str
    size_bytes: int
    users: int
    items: int
    scale: tuple[float, float]
    delimiter: str
    header_lines: int


_RELEASES = {
    "latest-small": _Release(
        folder="ml-latest-small",
        file="ratings.csv",
        md5="325a6f09399d1c45671f187505e1a100",
        size_bytes=2_483_723,
        users=610,
        items=9_724,
        scale=(0.5, 5.0),
        delimiter=",",
        header_lines=1,
    ),
    "100k": _Release(
        folder="ml-100k",
        file="u.data",
        md5="6e47046882bad158b0efbb84cd5cb987",
        size_bytes=1_979_173,
        users=943,
        items=1_682,
        scale=(1.0, 5.0),
        delimiter="\t",
        header_lines=0,
    ),
}
_FILES = "https://files.grouplens.org/datasets/movielens"


@dataclass(frozen=True, kw_only=True)
class MovieLens:
    """Prediction u_i . v_j of the rating that user i gives to item j: no biases, no global mean.

    DivShare's "MovieLens 100K" with 70,000 training samples is ``latest-small`` (algorithms.md D18).

    Args:
        version: ``latest-small`` (610 users, 9,724 items, 100,836 ratings) or ``100k`` of 1998 (943, 1,682,
            100,000), whose official splits are not used.
        factors: length of the user and item vectors.
        test_fraction: share of each user's ratings that is held out, rounded per user.
        data_seed: seed of this choice; the same for every seed of an experiment unless it is changed.
    """

    version: Literal["latest-small", "100k"] = "latest-small"
    factors: Annotated[int, Ge(1)] = 20
    test_fraction: Annotated[float, Gt(0), Lt(1)] = 0.3
    data_seed: Annotated[int, Ge(0)] = 1

    @property
    def metric(self) -> Metric:
        """Root of the mean squared error (algorithms.md D17)."""
        return Metric("rmse", higher_is_better=False)

    def check(self) -> None:
        """Raise ``DataError`` unless the ratings file is there with its published length."""
        self._require(checksums=False)

    def shapes(self) -> Shapes:
        """User vectors, then item vectors: 206,680 parameters for ``latest-small`` and 20 factors."""
        release = _RELEASES[self.version]
        return (
            ("users.weight", (release.users, self.factors)),
            ("items.weight", (release.items, self.factors)),
        )

    def fetch(self) -> Path:
        """Download the ratings from their home into the data folder, unless they are there, and verify them.

        Raises:
            DataError: no network, or what came is not the published set.
        """
        release = _RELEASES[self.version]
        # The archive's own checksum changes with its README; that of the ratings counts.
        wanted = [f"{release.folder}/{release.file}"]
        download(f"{_FILES}/{release.folder}.zip", data_folder(), None, produces=wanted)
        return self._require(checksums=True)

    def load(self) -> LoadedMovieLens:
        """Verify, read (once per host) and split the ratings.

        Raises:
            DataError: the file is missing or is not the published one.
        """
        path = self._require(checksums=True)
        release = _RELEASES[self.version]
        arrays = mapped(
            f"movielens-{self.version}-v1-{release.md5[:8]}", lambda: _read(path, release)._asdict()
        )
        ratings = Ratings(arrays["users"], arrays["items"], arrays["values"])
        train, test = self._split(ratings.users)
        splits: dict[Split, Ratings] = {"train": ratings.take(train), "test": ratings.take(test)}
        return LoadedMovieLens(splits, self.shapes(), release.scale)

    def _require(self, *, checksums: bool) -> Path:
        release = _RELEASES[self.version]
        folder = require(
            data_folder() / release.folder,
            {release.file: release.md5},
            f"MovieLens {self.version}",
            f"unpack {release.folder}.zip from {_FILES} so that this folder holds {release.file}",
            sizes={release.file: release.size_bytes},
            checksums=checksums,
        )
        return folder / release.file

    def _split(self, users: IntArray) -> tuple[IntArray, IntArray]:
        """Ascending row numbers of the training and test ratings."""
        shuffled = Seeds(self.data_seed).rng("data").permutation(len(users))
        by_user = shuffled[np.argsort(users[shuffled], kind="stable")]
        counts = np.bincount(users)
        held_out = np.minimum(np.rint(self.test_fraction * counts), counts - 1)
        rank = np.arange(len(users)) - np.repeat(np.cumsum(counts) - counts, counts)
        is_test = rank < np.repeat(held_out, counts)
        return np.sort(by_user[~is_test]), np.sort(by_user[is_test])


@dataclass(frozen=True, eq=False)
class LoadedMovieLens:
    """Split ratings in memory.

    Args:
        splits: ratings by split; row numbers count within a split.
        shapes: of the two factor matrices.
        scale: lowest and highest rating that exists.
    """

    splits: dict[Split, Ratings]
    shapes: Shapes
    scale: tuple[float, float]

    @property
    def examples(self) -> Examples:
        """The training ratings; their groups are the users."""
        train = self.splits["train"]
        return Examples(count=len(train.users), groups=train.users)

    def initial(self, seed: int) -> FloatArray:
        """Both factor matrices drawn from U(-0.05, 0.05), shape (d,)."""
        (_, (users, factors)), (_, (items, _)) = self.shapes
        x = aligned((users + items) * factors)
        x[:] = Seeds(seed).rng("model").uniform(-0.05, 0.05, x.size)
        return x

    def learner(self, shard: IntArray, sgd: Sgd) -> MatrixFactorization:
        """A learner on the training ratings numbered ``shard``."""
        return MatrixFactorization(self.splits["train"].take(shard), self.shapes, sgd)

    def rows(self, split: Split) -> int:
        """Number of ratings of ``split``."""
        return len(self.splits[split].users)

    def local_rows(self, split: Split, shard: IntArray) -> IntArray:
        """Ratings of ``split`` by the users who own the training rows ``shard`` (DivShare's test set)."""
        owners = np.unique(self.splits["train"].users[shard])
        return np.flatnonzero(np.isin(self.splits[split].users, owners))

    def evaluate(self, x: FloatArray, split: Split, rows: IntArray | None = None) -> Scores:
        """Errors of the predictions of flat model ``x``, shape (d,), over single ratings.

        ``loss`` = ``mse``, ``rmse`` and ``mae`` are of the raw predictions; ``rmse_clipped`` is of
        predictions limited to the scale of ratings, which never happens in training. Means run over
        ratings; those of the released code run over batches, and the root of such a mean is an RMSE only
        where all batches are equal (algorithms.md B15).
        A model that diverged scores inf or nan.

        Raises:
            ConfigError: there is nothing to score.
        """
        ratings = self.splits[split] if rows is None else self.splits[split].take(rows)
        if not len(ratings.users):
            raise ConfigError(f"movielens: no {split} rows to score; raise data.test_fraction")
        (_, (users, factors)), _ = self.shapes
        table = x.reshape(-1, factors)
        with np.errstate(over="ignore", invalid="ignore"):
            predicted = np.vecdot(table[ratings.users], table[users + ratings.items]).astype(np.float64)
            errors = predicted - ratings.values
            mse = float(np.mean(errors**2))
            clipped = np.clip(predicted, *self.scale) - ratings.values
            return {
                "loss": mse,
                "mse": mse,
                "rmse": mse**0.5,
                "mae": float(np.mean(np.abs(errors))),
                "rmse_clipped": float(np.mean(clipped**2)) ** 0.5,
            }


def _read(path: Path, release: _Release) -> Ratings:
    """All ratings of the file in its order; users and items renumbered from 0 in the order of their ids."""
    columns = np.loadtxt(path, delimiter=release.delimiter, skiprows=release.header_lines, usecols=(0, 1, 2))
    user_ids, users = np.unique(columns[:, 0], return_inverse=True)
    item_ids, items = np.unique(columns[:, 1], return_inverse=True)
    if (len(user_ids), len(item_ids)) != (release.users, release.items):
        raise DataError(
            f"{path}: {len(user_ids)} users and {len(item_ids)} items instead of {release.users} and"
            f" {release.items}; unpack the original file again"
        )
    return Ratings(users, items, columns[:, 2].astype(np.float32))


TASKS = {"movielens": MovieLens}
