"""Settings that every network preset shares: how transfers use links, what messages cost besides bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Le, Lt

from decentral.arrays import AnyArray
from decentral.network.model import NetworkModel
from decentral.seeding import Seeds

BPS_PER_MBPS = 1e6  # decimal, as in Kollaps (algorithms.md 11.1)
NS_PER_MS = 1e6
LONGEST_MS = 86_400_000.0  # a day

SLOWEST_MBPS, FASTEST_MBPS = 0.001, 1e9

Rate = Annotated[float, Ge(SLOWEST_MBPS), Le(FASTEST_MBPS)]
"""Mbit/s."""
Milliseconds = Annotated[float, Ge(0), Le(LONGEST_MS)]


@dataclass(frozen=True, kw_only=True)
class LinkSettings:
    """What a preset's table may say about links whatever the rates are.

    Args:
        concurrency: transfers in progress per sender; ``"all"``: one per destination. 1 is DivShare's
            Algorithm 3.
        contention: ``"uplink"``: only senders' uplinks and rates of pairs limit transfers; ``"both"``:
            receivers' downlinks are shared max-min too.
        abort_on_flush: a flush cuts the transfers in progress besides what is queued.
        overhead_bytes: on the wire per message, on top of the payload.
        overhead_ms: for so long a message keeps its sender's slot before its bytes flow.
        loss: probability that a message is lost after it used its link.
        jitter_ms: extra latency per message, uniform between 0 and this.
    """

    concurrency: Annotated[int, Ge(1)] | Literal["all"] = 1
    contention: Literal["uplink", "both"] = "uplink"
    abort_on_flush: bool = False
    overhead_bytes: Annotated[int, Ge(0), Le(2**30)] = 0
    overhead_ms: Milliseconds = 0.0
    loss: Annotated[float, Ge(0), Lt(1)] = 0.0
    jitter_ms: Milliseconds = 0.0

    def _model(
        self,
        n: int,
        seeds: Seeds,
        *,
        latency_ms: float | AnyArray,
        uplink_mbps: float | AnyArray = np.inf,
        downlink_mbps: float | AnyArray = np.inf,
        pair_mbps: AnyArray | None = None,
    ) -> NetworkModel:
        """The network of ``n`` nodes with these rates and latencies and the settings above.

        Args:
            n: nodes.
            seeds: of the run.
            latency_ms: one way; one value, or shape (n, n).
            uplink_mbps: one value for all nodes, or shape (n,).
            downlink_mbps: likewise.
            pair_mbps: cap of every ordered pair, shape (n, n); None: no caps.
        """
        latency = np.asarray(latency_ms, dtype=np.float64)
        return NetworkModel(
            n=n,
            uplink_bps=np.broadcast_to(np.float64(uplink_mbps) * BPS_PER_MBPS, n).copy(),
            downlink_bps=np.broadcast_to(np.float64(downlink_mbps) * BPS_PER_MBPS, n).copy(),
            pair_bps=None if pair_mbps is None else pair_mbps * BPS_PER_MBPS,
            latency_ns=np.rint((latency if latency.ndim else latency.reshape(1, 1)) * NS_PER_MS).astype(
                np.int64
            ),
            jitter_ns=round(self.jitter_ms * NS_PER_MS),
            loss=self.loss,
            concurrency=None if self.concurrency == "all" else self.concurrency,
            contention=self.contention,
            abort_on_flush=self.abort_on_flush,
            overhead_bytes=self.overhead_bytes,
            overhead_ns=round(self.overhead_ms * NS_PER_MS),
            seeds=seeds,
        )
