"""Whom an asynchronous algorithm sends to: a draw of its own, which nobody else needs to know."""

from __future__ import annotations

import numpy as np

from decentral.arrays import IntArray
from decentral.errors import ConfigError


def draw_recipients(rng: np.random.Generator, peers: IntArray, *, fragments: int, count: int) -> IntArray:
    """``count`` distinct peers for every fragment, uniform without replacement (DivShare Algorithm 2).

    Args:
        rng: of this node and round.
        peers: all other nodes.
        fragments: F.
        count: J, from 1 to the number of peers.

    Returns:
        Node ids, shape (F, J); rows are independent of each other.
    """
    # The J smallest of independent uniform keys are a uniform subset. Sorted, because the order in which
    # argpartition leaves them is the processor's.
    keys = rng.random((fragments, peers.size))
    return peers[np.sort(np.argpartition(keys, count - 1, axis=1)[:, :count], axis=1)]


def check_recipients(count: int, n: int) -> None:
    """Refuse to draw more distinct recipients than a node has peers.

    Raises:
        ConfigError: ``count`` is more than n - 1.
    """
    if count > n - 1:
        raise ConfigError(
            f"algorithm.recipients = {count}: a node has {n - 1} others to send to; use at most {n - 1}"
        )
