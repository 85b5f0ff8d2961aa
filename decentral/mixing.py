"""Mixers: plain functions ``(x, received) -> x`` that aggregate what arrived into a node's own model.

``x`` is in fragment order (``Fragments.gather``) and may be overwritten; ``received`` is sorted by
(sender, fragment), so float sums do not depend on arrival order. ``pair_average`` is a rule by which a node
answers requests instead (``Node.serve``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from decentral.arrays import FloatArray, IntArray


class Part(NamedTuple):
    """A received fragment of a sender's local round, and where it lies in the vector to be mixed.

    ``where`` is a slice in fragment order, or parameter numbers where every round has another map.
    """

    sender: int
    fragment: int
    where: slice | IntArray
    values: FloatArray
    round: int = 0


Mixer: TypeAlias = Callable[[FloatArray, Sequence[Part]], FloatArray]


def average(x: FloatArray, received: Sequence[Part]) -> FloatArray:
    """Parameter-wise uniform mean of the own and all received values (DivShare eq. (1); EL; Mosaic eq. (1)).

    A parameter received R times gets (own + sum of received) / (1 + R); one that was not received stays as
    it is, to the bit. A fragment received twice from one sender counts twice.
    """
    counts: Counter[int] = Counter()
    extent: dict[int, FloatArray] = {}
    for part in received:
        target = _view(x, part)
        target += part.values
        counts[part.fragment] += 1
        extent[part.fragment] = target
    for fragment, count in counts.items():
        target = extent[fragment]
        target /= np.float32(1 + count)
    return x


def weighted(weights: Mapping[int, float]) -> Mixer:
    """Mixing with one row of a mixing matrix: sender j's values weigh ``weights[j]``, own ones the rest of 1.

    The own weight is per fragment ``1 - sum of the weights of what was received of it``, so the row stays
    stochastic where a sender's fragment is missing.
    """

    def mix(x: FloatArray, received: Sequence[Part]) -> FloatArray:
        given: dict[int, float] = {}
        extent: dict[int, FloatArray] = {}
        for part in received:
            given[part.fragment] = given.get(part.fragment, 0.0) + weights[part.sender]
            extent[part.fragment] = _view(x, part)
        for fragment, total in given.items():
            target = extent[fragment]
            target *= np.float32(1.0 - total)
        for part in received:
            target = extent[part.fragment]
            target += np.float32(weights[part.sender]) * part.values
        return x

    return mix


def metropolis_hastings(degree: int, neighbor_degrees: Mapping[int, int]) -> dict[int, float]:
    """Metropolis-Hastings weights w_ij = 1 / (1 + max(d_i, d_j)) of one node's neighbors (algorithms.md 7).

    On an undirected graph the matrix of all nodes is symmetric and doubly stochastic.
    """
    return {j: 1.0 / (1 + max(degree, other)) for j, other in neighbor_degrees.items()}


def pair_average(x: FloatArray, received: FloatArray) -> FloatArray:
    """Both ends of a pair take the mean: ``x`` does in place; returns what ``x`` was, to answer with.

    The other end averages its own model with the answer, so both get the same bits, and the sum of the two
    models stays what it was, to the rounding of one addition (AD-PSGD; algorithms.md 4.2).
    """
    before = x.copy()
    x += received
    x *= np.float32(0.5)
    return before


def age_weight(own: int, received: int) -> float:
    """Weight b / (a + b) of a received model of age b beside the own one of age a (Gossip Learning).

    A model that nobody has trained yet (b = 0) has no weight, also beside another such.
    """
    return received / (own + received) if received else 0.0


def limited_age_weight(own: int, received: int, limit: int) -> float:
    """As ``age_weight``, but one model alone counts where it is more than ``limit`` older (Danner 2023)."""
    if own > received + limit:
        return 0.0
    return 1.0 if received > own + limit else age_weight(own, received)


def _view(x: FloatArray, part: Part) -> FloatArray:
    """The part of ``x`` that ``part`` is about, to be changed in place."""
    if not isinstance(part.where, slice):
        raise TypeError("fragments of maps that change from round to round are mixed by average_newest only")
    return x[part.where]
