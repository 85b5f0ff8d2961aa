"""A partition made elsewhere, read from a file."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from decentral.arrays import AnyArray, IntArray
from decentral.errors import ConfigError, DataError
from decentral.files import FileName
from decentral.tasks.base import Examples


@dataclass(frozen=True, kw_only=True)
class File:
    """Row numbers per node from a JSON or npz file, e.g. to repeat another experiment's partition.

    JSON holds one list of n lists of row numbers. An npz file holds n integer vectors named ``arr_0`` to
    ``arr_<n-1>``, as ``numpy.savez(path, *rows)`` writes them; pickled objects are refused. Rows that no
    node has stay unused.

    Args:
        path: the file; its name ends in ``.json`` or ``.npz``.
    """

    path: FileName

    def __post_init__(self) -> None:
        if Path(self.path).suffix not in (".json", ".npz"):
            raise ConfigError(
                f"data.partition.path = {self.path}: the name must end in .json or .npz; rename it"
            )

    def split(self, examples: Examples, n: int, rng: np.random.Generator) -> list[IntArray]:
        """Row numbers of nodes 0..n-1 as in the file; ``rng`` is not used.

        Raises:
            DataError: the file is absent or unreadable.
            ConfigError: it does not hold n disjoint, non-empty lists of rows 0..count-1.
        """
        read = _read_json if Path(self.path).suffix == ".json" else _read_npz
        try:
            lists = read(Path(self.path).expanduser())
        except FileNotFoundError as error:
            raise DataError(
                f"data.partition.path = {self.path}: no such file; write the row lists there or choose"
                " another partitioner"
            ) from error
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
            raise DataError(
                f"data.partition.path = {self.path}: not a readable list of row lists ({error}); write it"
                " again"
            ) from error
        self._check(lists, examples.count, n)
        return [rows.astype(np.int64) for rows in lists]

    def _check(self, lists: list[AnyArray], count: int, n: int) -> None:
        key = f"data.partition.path = {self.path}"
        if len(lists) != n:
            raise ConfigError(
                f"{key}: {len(lists)} row lists for {n} nodes; use n = {len(lists)} or another file"
            )
        owner = np.full(count, -1)
        for node, rows in enumerate(lists):
            if rows.ndim != 1 or rows.size == 0 or rows.dtype.kind not in "iu":
                raise ConfigError(
                    f"{key}: node {node} needs a non-empty flat list of integers; correct its list"
                )
            outside = rows[(rows < 0) | (rows >= count)]
            if outside.size:
                raise ConfigError(
                    f"{key}: node {node} has row {outside[0]}, but rows are 0..{count - 1}; correct its list"
                    " (rows of the validation split do not count)"
                )
            taken = rows[owner[rows] >= 0]
            if taken.size:
                raise ConfigError(
                    f"{key}: row {taken[0]} belongs to nodes {owner[taken[0]]} and {node}; give it to one"
                    " of them"
                )
            if np.unique(rows).size != rows.size:
                raise ConfigError(f"{key}: node {node} lists a row twice; list every row once")
            owner[rows] = node


def _read_json(path: Path) -> list[AnyArray]:
    lists = json.loads(path.read_text())
    if not isinstance(lists, list) or not all(isinstance(rows, list) for rows in lists):
        raise ValueError("expected a list of lists")
    return [np.asarray(rows) for rows in lists]


def _read_npz(path: Path) -> list[AnyArray]:
    # Opened here because numpy leaves a file that is no archive open.
    with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
        return [stored[f"arr_{node}"] for node in range(len(stored.files))]


PARTITIONERS = {"file": File}
