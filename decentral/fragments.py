"""Fragment maps C: [d] -> [K] (algorithms.md 1.2; DivShare Algorithm 2; Mosaic section 3).

A map is drawn from a stream that all nodes share and is fixed for the run, so messages carry a fragment
number and no indices. Nodes compare ``Fragments.map_hash`` in every message: two nodes with different
maps would silently corrupt each other's models otherwise.
"""

from __future__ import annotations

import builtins
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Literal, TypeAlias

import numpy as np

from decentral.arrays import FloatArray, IntArray
from decentral.errors import ConfigError
from decentral.seeding import Seeds

MapName: TypeAlias = Literal["per_tensor", "global", "contiguous", "per_layer"]


class Fragments:
    """A partition of the d parameters into K non-empty fragments. Immutable.

    One gather into fragment order makes every fragment a contiguous slice, so taking a message, adding a
    received one and counting are all plain vector operations.

    Args:
        order: parameter numbers in fragment order, a permutation of 0..d-1.
        bounds: K+1 ascending positions in ``order``; fragment k is ``order[bounds[k]:bounds[k+1]]``.
    """

    def __init__(self, order: IntArray, bounds: Sequence[int]) -> None:
        self._order = order
        self._identity = bool(np.array_equal(order, np.arange(order.size)))
        self._slices = tuple(slice(a, b) for a, b in pairwise(bounds))
        digest = hashlib.blake2b(digest_size=8, person=b"fragments")
        digest.update(np.asarray(bounds, dtype="<i8").tobytes())
        digest.update(np.asarray(order, dtype="<i8").tobytes())
        self.map_hash = digest.digest()
        """8 bytes, equal exactly where the maps are equal (up to hash collisions)."""

    @property
    def d(self) -> int:
        """Number of parameters."""
        return int(self._order.size)

    def __len__(self) -> int:
        """Number of fragments K."""
        return len(self._slices)

    def at(self, round: int) -> Fragments:
        """The map of ``round``: one for the whole run (``decentral.resampled`` has another every round)."""
        del round
        return self

    def slice(self, k: int) -> slice:
        """Where fragment ``k`` lies in a vector in fragment order."""
        return self._slices[k]

    def where(self, round: int, k: int) -> builtins.slice:
        """Where fragment ``k`` of a message of ``round`` lies in a vector in fragment order."""
        del round
        return self._slices[k]

    def indices(self, k: int) -> IntArray:
        """Parameter numbers of fragment ``k``, shape (|C_k|,)."""
        return self._order[self._slices[k]]

    def gather(self, x: FloatArray) -> FloatArray:
        """A copy of model ``x``, shape (d,), in fragment order."""
        return x.copy() if self._identity else x[self._order]

    def scatter(self, ordered: FloatArray, x: FloatArray) -> None:
        """Write ``ordered`` (fragment order) into model ``x`` (parameter order), in place."""
        if self._identity:
            x[:] = ordered
        else:
            x[self._order] = ordered


@dataclass(frozen=True, kw_only=True)
class Fragmenter:
    """How a model is cut into K fragments.

    Args:
        count: K, called F in DivShare, where it is ceil(1/Omega).
        map: ``per_tensor`` cuts a seeded permutation of every tensor into K parts of floor(size/K), the
            remainder going to the last (what the DivShare and Shatter code do); ``global`` cuts one
            permutation of [d], sizes differing by at most 1 (Mosaic's equal-size assumption);
            ``contiguous`` cuts [d] unpermuted, likewise; ``per_layer`` keeps whole tensors together, in
            order, so that the largest fragment is as small as possible.
        seeds: the run's streams; the map is drawn from the shared stream ``fragments``.
    """

    count: int
    map: MapName = "per_tensor"
    seeds: Seeds

    def split(self, sizes: Sequence[int], round: int | None = None) -> Fragments:
        """The map for a model whose tensors have ``sizes`` parameters, in state-dict order.

        Equal calls give the same object: a map made before a fork is shared by all nodes.

        Args:
            sizes: number of parameters of every tensor.
            round: where every round has a map of its own, which; None: the one for the whole run.

        Raises:
            ConfigError: K < 1 or K > d, or the chosen map would leave a fragment empty.
        """
        if round is None:
            return _split(self, tuple(sizes), ())
        return _split_of_round(self, tuple(sizes), (round,))


def _made(fragmenter: Fragmenter, sizes: tuple[int, ...], counters: tuple[int, ...]) -> Fragments:
    d = sum(sizes)
    if not 1 <= fragmenter.count <= d:
        raise ConfigError(
            f"fragments.count = {fragmenter.count}: must be from 1 to the model's {d} parameters; "
            f"use fewer fragments or a larger model"
        )
    parts = _MAPS[fragmenter.map](sizes, fragmenter.count, fragmenter.seeds.rng("fragments", *counters))
    empty = [k for k, part in enumerate(parts) if part.size == 0]
    if empty:
        raise ConfigError(
            f"fragments.count = {fragmenter.count}: map = {fragmenter.map} would leave {len(empty)} "
            f"fragments empty for tensors of at most {max(sizes)} parameters; use fewer fragments or "
            f"map = global"
        )
    bounds = np.cumsum([0, *(part.size for part in parts)]).tolist()
    return Fragments(np.concatenate(parts), bounds)


_split = lru_cache(maxsize=8)(_made)
# Messages of a few rounds are about at a time; a map takes 8 bytes per parameter, in every process.
_split_of_round = lru_cache(maxsize=8)(_made)


@lru_cache(maxsize=8)
def whole_model(d: int) -> Fragments:
    """The map with one fragment, which needs no draw."""
    return Fragments(np.arange(d), (0, d))


def _per_tensor(sizes: Sequence[int], count: int, rng: np.random.Generator) -> list[IntArray]:
    parts: list[list[IntArray]] = [[] for _ in range(count)]
    base = 0
    for size in sizes:
        permuted = rng.permutation(size) + base
        share = size // count
        for k in range(count - 1):
            parts[k].append(permuted[k * share : (k + 1) * share])
        parts[-1].append(permuted[(count - 1) * share :])
        base += size
    # Ascending inside a fragment: the same partition, and gathering walks memory forwards.
    return [np.sort(np.concatenate(part)) for part in parts]


def _global(sizes: Sequence[int], count: int, rng: np.random.Generator) -> list[IntArray]:
    return [np.sort(part) for part in np.array_split(rng.permutation(sum(sizes)), count)]


def _contiguous(sizes: Sequence[int], count: int, rng: np.random.Generator) -> list[IntArray]:
    del rng
    return np.array_split(np.arange(sum(sizes)), count)


def _per_layer(sizes: Sequence[int], count: int, rng: np.random.Generator) -> list[IntArray]:
    del rng
    if count > len(sizes):
        raise ConfigError(
            f"fragments.count = {count}: map = per_layer keeps whole tensors together and the model has "
            f"{len(sizes)}; use at most {len(sizes)} fragments or map = per_tensor"
        )
    ends = np.cumsum(sizes)
    groups = _linear_partition(sizes, count)
    cuts = [int(ends[last - 1]) for last in np.cumsum(groups)[:-1]]
    return np.split(np.arange(sum(sizes)), cuts)


def _linear_partition(sizes: Sequence[int], count: int) -> list[int]:
    """Lengths of ``count`` non-empty runs of ``sizes`` whose largest sum is minimal."""
    total = np.cumsum([0, *sizes])
    number = len(sizes)
    best = np.full((count + 1, number + 1), np.inf)
    cut = np.zeros((count + 1, number + 1), dtype=np.int64)
    best[0, 0] = 0
    for k in range(1, count + 1):
        for j in range(k, number + 1):
            worst = np.maximum(best[k - 1, k - 1 : j], total[j] - total[k - 1 : j])
            cut[k, j] = k - 1 + int(np.argmin(worst))
            best[k, j] = worst[cut[k, j] - (k - 1)]
    lengths: list[int] = []
    j = number
    for k in range(count, 0, -1):
        lengths.append(j - int(cut[k, j]))
        j = int(cut[k, j])
    return lengths[::-1]


_MAPS = {
    "per_tensor": _per_tensor,
    "global": _global,
    "contiguous": _contiguous,
    "per_layer": _per_layer,
}
