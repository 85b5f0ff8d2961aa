"""Fragment maps that are drawn anew every round (algorithms.md 1.2, ``per_round``).

The map of a sender's round follows from the shared seed, so a message still carries no indices: its receiver
makes the map of ``message.round`` again. Messages that are aggregated together may come from different maps,
so parameters have to be counted one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from decentral.arrays import FloatArray, IntArray
from decentral.fragments import Fragmenter, Fragments
from decentral.mixing import Part


@dataclass(frozen=True)
class ResampledFragments:
    """One map per round; models stay in parameter order.

    Args:
        fragmenter: draws the maps, that of round k from the shared stream ``fragments`` at k.
        sizes: number of parameters of every tensor, in state-dict order.
    """

    fragmenter: Fragmenter
    sizes: tuple[int, ...]

    def at(self, round: int) -> Fragments:
        """The map of ``round``."""
        return self.fragmenter.split(self.sizes, round)

    def where(self, round: int, k: int) -> IntArray:
        """Parameter numbers of fragment ``k`` of that round."""
        return self.at(round).indices(k)

    def gather(self, x: FloatArray) -> FloatArray:
        """A copy of model ``x``, shape (d,)."""
        return x.copy()

    def scatter(self, ordered: FloatArray, x: FloatArray) -> None:
        """Write ``ordered`` into model ``x``, in place."""
        x[:] = ordered


def average_newest(x: FloatArray, received: Sequence[Part]) -> FloatArray:
    """Parameter-wise uniform mean of the own value and the newest of every sender (DivShare eq. (1)).

    A mixer for ``ResampledFragments``. Of a parameter that two messages of one sender hold, the one of the
    later round counts: the paper's InQueue is keyed by (sender, parameter), which with one map for the whole
    run is the same as by (sender, fragment). With equal maps this is ``average``, to the bit.
    """
    counts = np.ones(x.size, dtype=np.float32)
    for _, of_sender in groupby(received, key=lambda part: part.sender):
        newest_first = sorted(of_sender, key=lambda part: -part.round)
        overlapping = newest_first[0].round != newest_first[-1].round
        taken = np.zeros(x.size if overlapping else 0, dtype=bool)
        for part in newest_first:
            places, values = np.asarray(part.where), part.values
            if overlapping:
                new = ~taken[places]
                taken[places] = True
                places, values = places[new], values[new]
            x[places] += values
            counts[places] += 1
    x /= counts
    return x
