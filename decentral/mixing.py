"""Mixers: plain functions ``(x, received) -> x`` that aggregate what arrived into a node's own model.

``x`` is in fragment order (``Fragments.gather``) and may be overwritten; ``received`` is sorted by
(sender, fragment), so float sums do not depend on arrival order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from decentral.arrays import FloatArray


class Part(NamedTuple):
    """A received fragment and where it lies in a vector in fragment order."""

    sender: int
    fragment: int
    where: slice
    values: FloatArray


Mixer: TypeAlias = Callable[[FloatArray, Sequence[Part]], FloatArray]


def average(x: FloatArray, received: Sequence[Part]) -> FloatArray:
    """Parameter-wise uniform mean of the own and all received values (DivShare eq. (1); EL; Mosaic eq. (1)).

    A parameter received R times gets (own + sum of received) / (1 + R); one that was not received stays as
    it is, to the bit. A fragment received twice from one sender counts twice.
    """
    counts: Counter[int] = Counter()
    extent: dict[int, slice] = {}
    for part in received:
        target = x[part.where]
        target += part.values
        counts[part.fragment] += 1
        extent[part.fragment] = part.where
    for fragment, count in counts.items():
        target = x[extent[fragment]]
        target /= np.float32(1 + count)
    return x


def weighted(weights: Mapping[int, float]) -> Mixer:
    """Mixing with one row of a mixing matrix: sender j's values weigh ``weights[j]``, own ones the rest of 1.

    The own weight is per fragment ``1 - sum of the weights of what was received of it``, so the row stays
    stochastic where a sender's fragment is missing.
    """

    def mix(x: FloatArray, received: Sequence[Part]) -> FloatArray:
        given: dict[int, float] = {}
        extent: dict[int, slice] = {}
        for part in received:
            given[part.fragment] = given.get(part.fragment, 0.0) + weights[part.sender]
            extent[part.fragment] = part.where
        for fragment, total in given.items():
            target = x[extent[fragment]]
            target *= np.float32(1.0 - total)
        for part in received:
            target = x[part.where]
            target += np.float32(weights[part.sender]) * part.values
        return x

    return mix


def metropolis_hastings(degree: int, neighbor_degrees: Mapping[int, int]) -> dict[int, float]:
    """Metropolis-Hastings weights w_ij = 1 / (1 + max(d_i, d_j)) of one node's neighbors (algorithms.md 7).

    On an undirected graph the matrix of all nodes is symmetric and doubly stochastic.
    """
    return {j: 1.0 / (1 + max(degree, other)) for j, other in neighbor_degrees.items()}
