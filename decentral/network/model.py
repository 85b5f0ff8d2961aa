"""What the emulated network is: rates, latencies and the rules of sharing. Data only.

Times are integer nanoseconds (``*_ns``), rates are bit/s with decimal prefixes (60 Mbit/s is ``60e6``),
``math.inf`` is a rate that limits nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from decentral.errors import ConfigError
from decentral.seeding import Seeds

INFINITE_NS = 1 << 62
"""A time that never comes."""


class Item(NamedTuple):
    """One message in a sender's queue, without its payload.

    Attributes:
        destination: node that is to receive it, another node than the sender, in ``0 .. n - 1``.
        nbytes: payload bytes (the model's ``overhead_bytes`` come on top, on the wire only).
        sequence: the sender's number of the message, unique per sender; any integer.
        tag: the sender's local round.
        fragment: which fragment of the model it is.
        role: the timekeeper's business, opaque here.
    """

    destination: int
    nbytes: int
    sequence: int
    tag: int
    fragment: int
    role: int


class Arrival(NamedTuple):
    """A message that reached its destination at ``at_ns``."""

    at_ns: int
    sender: int
    item: Item


class Transfer(NamedTuple):
    """A transfer that ended: from taking the sender's slot until leaving it, before the latency.

    ``outcome`` is ``"delivered"`` (it arrives a latency later), ``"aborted"`` (a flush, or the loss of its
    sender, cut it at ``end_ns``) or ``"lost"`` (it used the link, it never arrives).
    """

    sender: int
    item: Item
    start_ns: int
    end_ns: int
    outcome: Literal["delivered", "aborted", "lost"]


@dataclass(frozen=True, kw_only=True, eq=False)
class NetworkModel:
    """An emulated network of ``n`` nodes. Arrays are copied and made read-only.

    Args:
        n: number of nodes.
        uplink_bps: shape (n,), rate of each node's uplink.
        downlink_bps: shape (n,), rate of each node's downlink; used by contention ``"both"`` only.
        pair_bps: shape (n, n), cap of each ordered pair (i -> j), diagonal ignored; None: no caps.
        latency_ns: shape (n, n), or (1, 1) for one value everywhere; from a transfer's end to its arrival.
        jitter_ns: extra latency, uniform in ``0 .. jitter_ns``, drawn per (sender, sequence). Messages of one
            pair never overtake each other: the later one then arrives no sooner than the earlier.
        loss: probability that a message is lost, drawn per (sender, sequence): it uses the link, it does not
            arrive.
        concurrency: transfers in progress per sender; None: one per destination (parallel connections). 1 is
            the paper's Algorithm 3 (pop, send, repeat).
        contention: ``"uplink"``: a transfer is limited by its share of the sender's uplink and by the pair's
            cap. ``"both"``: receivers' downlinks are shared as well; rates are the max-min fair ones.
        abort_on_flush: a flush also cuts the sender's transfers in progress.
        overhead_bytes: bytes per message on the wire on top of the payload.
        overhead_ns: the sender's slot is busy so long before a message's bytes flow.
        seeds: streams of the run (``"network"``: loss and jitter).

    Raises:
        ConfigError: a value is impossible; all problems are listed.
    """

    n: int
    uplink_bps: NDArray[np.float64]
    downlink_bps: NDArray[np.float64]
    pair_bps: NDArray[np.float64] | None = None
    latency_ns: NDArray[np.int64]
    jitter_ns: int = 0
    loss: float = 0.0
    concurrency: int | None = 1
    contention: Literal["uplink", "both"] = "uplink"
    abort_on_flush: bool = False
    overhead_bytes: int = 0
    overhead_ns: int = 0
    seeds: Seeds

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ConfigError(f"network.n = {self.n}: a network needs at least one node; use n >= 1")
        problems = self._impossible_settings()
        for name in ("uplink_bps", "downlink_bps", "pair_bps"):
            value = getattr(self, name)
            if value is None and name == "pair_bps":
                continue
            rates = np.array(value, dtype=np.float64)
            rates.flags.writeable = False
            object.__setattr__(self, name, rates)
            problems += _impossible_rates(name, rates, (self.n,) * (2 if name == "pair_bps" else 1))
        given = np.asarray(self.latency_ns)
        if given.dtype.kind not in "iu":
            problems.append(
                f"network.latency_ns of type {given.dtype}: expected integer nanoseconds; round the latencies"
            )
        else:
            latencies = np.array(given, dtype=np.int64)
            latencies.flags.writeable = False
            object.__setattr__(self, "latency_ns", latencies)
            problems += _impossible_latencies(latencies, self.n)
        if problems:
            raise ConfigError(problems)

    def _impossible_settings(self) -> list[str]:
        problems = []
        for name in ("jitter_ns", "overhead_bytes", "overhead_ns"):
            value = getattr(self, name)
            if not 0 <= value < INFINITE_NS or value != int(value):
                problems.append(f"network.{name} = {value}: expected a whole number >= 0; use 0 for none")
        if not 0.0 <= self.loss < 1.0:
            problems.append(
                f"network.loss = {self.loss}: expected a probability in [0, 1); use 0 for no loss"
            )
        if self.concurrency is not None and self.concurrency < 1:
            problems.append(
                f"network.concurrency = {self.concurrency}: expected at least one transfer in progress per "
                'sender; use 1 or more, or "all"'
            )
        if self.contention not in ("uplink", "both"):
            problems.append(
                f'network.contention = {self.contention!r}: expected "uplink" or "both"; use one of them'
            )
        return problems

    def latency(self, i: int, j: int) -> int:
        """Latency from node ``i`` to node ``j`` in nanoseconds, without jitter."""
        one_value = self.latency_ns.shape == (1, 1)
        return int(self.latency_ns[0, 0] if one_value else self.latency_ns[i, j])

    @property
    def unlimited(self) -> bool:
        """True where no rate limits any transfer: each takes ``overhead_ns`` and no longer."""
        if self.pair_bps is not None:
            off_diagonal = self.pair_bps[~np.eye(self.n, dtype=bool)]
            if not np.isinf(off_diagonal).all():
                return False
        limiting = [self.uplink_bps, self.downlink_bps] if self.contention == "both" else [self.uplink_bps]
        return all(bool(np.isinf(rates).all()) for rates in limiting)


def _impossible_rates(name: str, rates: NDArray[np.float64], shape: tuple[int, ...]) -> list[str]:
    if rates.shape != shape:
        return [
            f"network.{name} of shape {rates.shape}: expected shape {shape}; give one rate per node (pair)"
        ]
    # Below 1 bit/s a message would end after "never" (INFINITE_NS).
    wrong = ~(rates >= 1.0)
    if wrong.ndim == 2:
        np.fill_diagonal(wrong, False)
    if not wrong.any():
        return []
    first = tuple(int(index) for index in np.argwhere(wrong)[0])
    where = ", ".join(map(str, first))
    return [
        f"network.{name}[{where}] = {rates[first]}: expected a rate of at least 1 bit/s; "
        "use a positive rate, or inf where the link limits nothing"
    ]


def _impossible_latencies(latencies: NDArray[np.int64], n: int) -> list[str]:
    if latencies.shape not in ((1, 1), (n, n)):
        return [
            f"network.latency_ns of shape {latencies.shape}: expected shape (1, 1) or ({n}, {n}); "
            "give one value or one per ordered pair"
        ]
    wrong = (latencies < 0) | (latencies >= INFINITE_NS)
    if not wrong.any():
        return []
    i, j = (int(index) for index in np.argwhere(wrong)[0])
    return [f"network.latency_ns[{i}, {j}] = {latencies[i, j]}: expected a latency >= 0; use 0 for none"]
