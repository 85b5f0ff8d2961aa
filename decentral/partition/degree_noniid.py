"""A fraction of every node's rows class by class, the rest at random: the partition of SWIFT."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Ge, Le

from decentral.arrays import IntArray
from decentral.errors import ConfigError
from decentral.tasks.base import Examples


@dataclass(frozen=True, kw_only=True)
class DegreeNonIid:
    """SWIFT's ``degree_noniid`` (Bornstein et al., ICLR 2023, released code; algorithms.md 9.5).

    All nodes get N / n rows. A share ``p`` of every class is set aside and dealt class by class: each node
    fills the share ``p`` of its rows from the class at hand, going on to the next class when that one is
    used up and when the node is done. So with n at most the number of classes nodes have few classes in
    common; with p = 0 this is ``iid``. The other rows are shuffled and dealt. No row is left out.

    Difference: where p * N / n is no whole number, the classes' shares are rounded in proportion to their
    sizes; the released code rounds them apart from the nodes' shares and then corrects the difference.

    Args:
        p: degree of non-IIDness, 0 to 1.
    """

    p: Annotated[float, Ge(0), Le(1)] = 0.7

    def split(self, examples: Examples, n: int, rng: np.random.Generator) -> list[IntArray]:
        """Row numbers of nodes 0..n-1, first those dealt by class.

        Raises:
            ConfigError: the task has no labels, or fewer rows than nodes.
        """
        if examples.labels is None:
            raise ConfigError(
                "degree_noniid: this task has no classes; use partition iid, simple or by_group"
            )
        if examples.count < n:
            raise ConfigError(
                f"degree_noniid(n={n}): {examples.count} rows cannot give every node one; use n <="
                f" {examples.count}"
            )
        sizes = examples.count // n + (np.arange(n) < examples.count % n)
        # Without the margin 0.7 * 10 and its like would round up past the exact product.
        by_class = np.minimum(np.ceil(self.p * sizes - 1e-9).astype(np.int64), sizes)
        reserved, rest = _reserve(examples.labels, int(by_class.sum()), rng)
        others = np.split(rest, np.cumsum(sizes - by_class)[:-1])
        return [
            np.concatenate([_take(reserved, int(wanted)), other])
            for wanted, other in zip(by_class, others, strict=True)
        ]


def _reserve(labels: IntArray, total: int, rng: np.random.Generator) -> tuple[deque[IntArray], IntArray]:
    """``total`` random rows, class by class in proportion to the classes' sizes, and the others shuffled."""
    shuffled = rng.permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    _, class_sizes = np.unique(labels, return_counts=True)
    shares = class_sizes * total // len(labels)
    shares[: total - shares.sum()] += 1
    classes = np.split(by_class, np.cumsum(class_sizes)[:-1])
    reserved = deque(rows[:share] for rows, share in zip(classes, shares, strict=True))
    rest = np.concatenate([rows[share:] for rows, share in zip(classes, shares, strict=True)])
    return reserved, rng.permutation(rest)


def _take(reserved: deque[IntArray], wanted: int) -> IntArray:
    """Remove ``wanted`` rows from the front classes, each of which then goes to the back."""
    taken = [np.empty(0, dtype=np.int64)]
    while wanted > 0:
        rows = reserved.popleft()
        taken.append(rows[:wanted])
        reserved.append(rows[wanted:])
        wanted -= len(taken[-1])
    return np.concatenate(taken)


PARTITIONERS = {"degree_noniid": DegreeNonIid}
