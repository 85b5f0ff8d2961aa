"""Max-min fair sharing of links by water-filling (Bertsekas and Gallager, Data Networks, section 6.5.2).

Rates are max-min fair where no rate can be raised without lowering one that is not larger: every flow then
has a cap it has reached, or a full link on which no other flow is faster.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def water_level(capacity: float, caps: Sequence[float]) -> float:
    """The level at which flows with these caps fill one link: flow f then gets ``min(caps[f], level)``.

    Args:
        capacity: rate of the link, > 0; may be infinite.
        caps: the most that each flow can take, each > 0, one at least; may be infinite.

    Returns:
        The level; no less than every cap where the caps together do not exceed the capacity.
    """
    count = len(caps)
    if count == 1 or min(caps) * count >= capacity:
        return capacity / count
    left = capacity
    for cap in sorted(caps):
        share = left / count
        if cap >= share:
            return share
        left -= cap
        count -= 1
    return math.inf


def max_min_rates(
    uplink: NDArray[np.float64],
    downlink: NDArray[np.float64],
    senders: NDArray[np.int64],
    destinations: NDArray[np.int64],
    caps: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Max-min fair rates of flows that each cross one uplink and one downlink.

    While the water rises, the share that a link could still give each of its unsettled flows never falls. So
    all links whose share is the least on every unsettled flow that they carry settle at once, not only the
    globally least one, and so do all flows whose cap is no more than what both of their links offer. The
    number of passes is then the length of the longest chain of bottlenecks instead of their number.

    Args:
        uplink, downlink: shape (n,), capacities, > 0; infinite where a link limits nothing.
        senders, destinations: shape (m,), the uplink and the downlink of each flow.
        caps: shape (m,), > 0. A flow of which both links and the cap are infinite gets an infinite rate.

    Returns:
        Shape (m,), the rates.
    """
    n = uplink.size
    rates = np.full(senders.size, np.inf)
    bounded = np.isfinite(caps) | np.isfinite(uplink[senders]) | np.isfinite(downlink[destinations])
    open_ = np.flatnonzero(bounded)
    up_left, down_left = uplink.copy(), downlink.copy()
    while open_.size:
        i, j, cap = senders[open_], destinations[open_], caps[open_]
        up_share = _shares(up_left, i)
        down_share = _shares(down_left, j)
        from_up, from_down = up_share[i], down_share[j]
        offer = np.minimum(np.minimum(from_up, from_down), cap)
        up_blocked = np.bincount(i[offer < from_up], minlength=n) > 0
        down_blocked = np.bincount(j[offer < from_down], minlength=n) > 0
        settled = (cap <= offer) | ~up_blocked[i] | ~down_blocked[j]
        now, rate = open_[settled], offer[settled]
        rates[now] = rate
        up_left -= np.bincount(senders[now], weights=rate, minlength=n)
        down_left -= np.bincount(destinations[now], weights=rate, minlength=n)
        open_ = open_[~settled]
    return rates


def _shares(left: NDArray[np.float64], link: NDArray[np.int64]) -> NDArray[np.float64]:
    """What each link could give each of its unsettled flows, were they alone; infinite without flows."""
    count = np.bincount(link, minlength=left.size)
    shares: NDArray[np.float64] = np.divide(left, count, out=np.full(left.size, np.inf), where=count > 0)
    return shares
