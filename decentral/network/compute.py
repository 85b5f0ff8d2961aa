"""Emulated cost of computing: how long a node trains in a local round, and ways to choose that time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from decentral.errors import ConfigError
from decentral.network.ledger import Ledger
from decentral.network.links import Links
from decentral.network.model import INFINITE_NS, Item, NetworkModel
from decentral.seeding import Seeds

STREAM = "compute"
FLOAT_BYTES = 4
NS_PER_S = 10**9
SHARE_DELIVERED = 0.99


@dataclass(frozen=True, kw_only=True, eq=False)
class ComputeModel:
    """Duration of every local round of every node: a pure function of the run seed.

    Args:
        nominal_ns: of a node of factor 1, without jitter.
        factors: how many times longer each node takes, shape (n,), float64.
        jitter: relative; a round's factor is uniform within 1 +- jitter, drawn per (node, round).
        seeds: streams of the run.
    """

    nominal_ns: int
    factors: NDArray[np.float64]
    jitter: float
    seeds: Seeds

    def duration_ns(self, node: int, round_: int) -> int:
        """Nanoseconds, at least 1, that ``node`` computes in its local round ``round_``, counted from 0."""
        factor = float(self.factors[node])
        if self.jitter:
            factor *= 1 + self.jitter * self.seeds.rng(STREAM, node, round_).uniform(-1.0, 1.0)
        return max(1, round(self.nominal_ns * factor))

    def nominal_of_ns(self, node: int) -> int:
        """Nanoseconds, at least 1, of a round of ``node`` without jitter."""
        return max(1, round(self.nominal_ns * float(self.factors[node])))


def slow_factors(
    n: int, seeds: Seeds, *, count: int, factor: float, which: Literal["random", "first"]
) -> NDArray[np.float64]:
    """``factor`` for ``count`` of ``n`` nodes, 1 for the others, shape (n,).

    Args:
        n: nodes.
        seeds: of the run; a larger count with the same seed keeps the former slow nodes.
        count: number of slow nodes.
        factor: of a slow node.
        which: a seeded subset (drawn apart from the network's stragglers), or nodes 0..count-1.

    Raises:
        ConfigError: more slow nodes than nodes.
    """
    if count > n:
        raise ConfigError(
            f"compute.slow_nodes = {count}: is more than the {n} nodes; use at most {n} slow nodes"
        )
    order = seeds.rng(STREAM).permutation(n) if which == "random" else np.arange(n)
    factors = np.ones(n)
    factors[order[:count]] = factor
    return factors


def fast_rate_bps(model: NetworkModel) -> float:
    """Rate at which the fastest sender's bytes leave one at a time, to all others equally; may be infinite.

    The rate of the fast uplink where pairs have no caps; with caps, the harmonic mean of
    min(uplink, cap) over the receivers. Downlinks are left out, as in the paper's model.
    """
    rates = np.broadcast_to(model.uplink_bps[:, None], (model.n, model.n))
    if model.pair_bps is not None:
        rates = np.minimum(rates, model.pair_bps)
    per_bit = 1 / rates
    np.fill_diagonal(per_bit, 0.0)
    slowness = float(per_bit.sum(axis=1).min()) / (model.n - 1)
    return 1 / slowness if slowness > 0 else float("inf")


def match_nominal_ns(model: NetworkModel, *, volume: float, parameters: int) -> int:
    """Time of J * 4d * 8 bits at the fast uplink's rate (DivShare, App. B; algorithms.md 10.1).

    Args:
        model: the network without its stragglers, of some finite rate.
        volume: J, whole models that a node sends per round.
        parameters: d.
    """
    return max(1, round(volume * parameters * FLOAT_BYTES * 8 / fast_rate_bps(model) * NS_PER_S))


def match_calibrated_ns(
    model: NetworkModel, *, volume: float, parameters: int, fragments: int, seeds: Seeds
) -> int:
    """Time in which ``model`` delivers 99 % of one round's messages of all nodes, all queued at once.

    Every node sends each of its fragments to ``volume`` others drawn uniformly without replacement, in random
    order; where ``volume`` is no integer, some fragments go to one more than others. Nothing is lost on the
    way, whatever the network's loss.

    Args:
        model: the network without its stragglers.
        volume: J, whole models that a node sends per round.
        parameters: d.
        fragments: K, of about equal size.
        seeds: of the run: the draw of recipients.
    """
    links = Links(replace(model, loss=0.0), Ledger(model.n))
    sizes = [len(part) * FLOAT_BYTES for part in np.array_split(np.empty(parameters, np.int8), fragments)]
    total = 0
    for node in range(model.n):
        items = _round_of(node, model.n, sizes, max(1, round(volume * fragments)), seeds)
        links.put(0, node, items, flush=False)
        total += len(items)
    wanted, arrived, now_ns = ceil(SHARE_DELIVERED * total), 0, 0
    while arrived < wanted:
        now_ns = links.next_event()[0]
        assert now_ns < INFINITE_NS
        arrived += len(links.step())
    return max(1, now_ns)


def _round_of(node: int, n: int, sizes: Sequence[int], messages: int, seeds: Seeds) -> list[Item]:
    """One round's messages of ``node`` in the order in which they are sent."""
    rng = seeds.rng(f"{STREAM}/calibration", node)
    peers = np.delete(np.arange(n), node)
    fewer, more = divmod(messages, len(sizes))
    items = []
    for fragment, nbytes in enumerate(sizes):
        count = fewer + (fragment < more)
        # More recipients than peers (an algorithm may draw with replacement): several passes over all.
        passes = [rng.permutation(peers) for _ in range(ceil(count / peers.size))]
        drawn = np.concatenate(passes)[:count] if passes else peers[:0]
        items += [(int(j), nbytes, fragment) for j in drawn]
    return [
        Item(destination=j, nbytes=nbytes, sequence=sequence, tag=0, fragment=fragment, role=0)
        for sequence, (j, nbytes, fragment) in enumerate(
            items[place] for place in rng.permutation(len(items))
        )
    ]
