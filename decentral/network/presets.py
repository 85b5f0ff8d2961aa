"""Networks by name: tables of settings that make a :class:`~decentral.network.model.NetworkModel`.

What a preset draws (stragglers, their rates, the place of each node) is a pure function of the run seed, so
every process and every report finds the same network.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge, Le
from numpy.typing import NDArray

from decentral.arrays import IntArray
from decentral.errors import ConfigError
from decentral.files import FileName
from decentral.network.link_settings import LinkSettings, Milliseconds, Rate
from decentral.network.matrices import read_matrices
from decentral.network.model import NetworkModel
from decentral.seeding import Seeds

STREAM = "network"
FLOOR_MBPS = 1.0  # a normal draw can be low or negative where the fast rate is small


@dataclass(frozen=True, kw_only=True)
class Ideal(LinkSettings):
    """Links of unlimited rate: only latency and what a message costs besides its bytes take time.

    Args:
        latency_ms: one way, between any two nodes.
    """

    latency_ms: Milliseconds = 0.0

    def build(self, n: int, seeds: Seeds) -> NetworkModel:
        """The network of ``n`` nodes."""
        return self._model(n, seeds, latency_ms=self.latency_ms)


@dataclass(frozen=True, kw_only=True)
class Star(LinkSettings):
    """Every node has an access link to one switch; some nodes, the stragglers, have a slow one.

    A straggler's rate is drawn from Normal(``fast_mbps`` / ``straggler_factor``, ``sd_mbps``), at least
    1 Mbit/s, the same up and down (DivShare, section 5.1; algorithms.md 11.2, 16). All others have exactly
    ``fast_mbps``.

    Args:
        fast_mbps: B, Mbit/s.
        stragglers: s, number of slow nodes.
        straggler_factor: f_s.
        sd_mbps: spread of the stragglers' rates.
        which: ``"random"``: a seeded subset, so that a larger s with the same seed keeps the former
            stragglers and their rates; ``"first"``: nodes 0..s-1, as in the authors' topology file.
        latency_ms: of one access link, so that node to node takes twice as long (11.2: 1 ms per link, 2 ms).

    Deviation: where ``fast_mbps`` is below 1, no straggler is faster than the fast nodes' rate.
    """

    fast_mbps: Rate = 60.0
    stragglers: Annotated[int, Ge(0)] = 0
    straggler_factor: Annotated[float, Ge(1), Le(1e6)] = 5.0
    sd_mbps: Annotated[float, Ge(0), Le(1e9)] = 0.5
    which: Literal["random", "first"] = "random"
    latency_ms: Milliseconds = 1.0

    def build(self, n: int, seeds: Seeds) -> NetworkModel:
        """The network of ``n`` nodes.

        Raises:
            ConfigError: more stragglers than nodes.
        """
        rates = self.rates_mbps(n, seeds)
        return self._model(n, seeds, latency_ms=2 * self.latency_ms, uplink_mbps=rates, downlink_mbps=rates)

    def slow(self, n: int, seeds: Seeds) -> IntArray:
        """The stragglers, ascending.

        Raises:
            ConfigError: more stragglers than nodes.
        """
        return np.sort(self._draw(n, seeds)[0])

    def rates_mbps(self, n: int, seeds: Seeds) -> NDArray[np.float64]:
        """Rate of each node's access link, Mbit/s, shape (n,), float64.

        Raises:
            ConfigError: more stragglers than nodes.
        """
        slow, deviations = self._draw(n, seeds)
        rates = np.full(n, self.fast_mbps)
        drawn = self.fast_mbps / self.straggler_factor + self.sd_mbps * deviations
        rates[slow] = np.maximum(min(FLOOR_MBPS, self.fast_mbps), drawn)
        return rates

    def without_stragglers(self) -> Star:
        """The same star with fast nodes alone."""
        return replace(self, stragglers=0)

    def _draw(self, n: int, seeds: Seeds) -> tuple[IntArray, NDArray[np.float64]]:
        """Nodes that are stragglers, and how many standard deviations each lies off the mean."""
        if self.stragglers > n:
            raise ConfigError(
                f"star(n={n}, stragglers={self.stragglers}): there are more stragglers than nodes; "
                f"use at most {n} stragglers"
            )
        rng = seeds.rng(STREAM)
        order = rng.permutation(n)
        deviations = rng.standard_normal(n)[: self.stragglers]
        return (order if self.which == "random" else np.arange(n))[: self.stragglers], deviations


@dataclass(frozen=True, kw_only=True)
class Aws10(LinkSettings):
    """Nodes in ten AWS regions, with the measured rate between each two (DivShare, section 5.4).

    Rates are those of the authors' topology file; their file has 1 ms on every link, so latencies are by
    default half of round-trip times measured elsewhere (algorithms.md 11.3).

    Args:
        mode: ``"pair"``: every ordered pair of nodes has a link of its own, as the authors emulated;
            ``"node_cap"``: besides, all transfers of a node share an access link, up and down, of the fastest
            rate that its region has to another one.
        latency: ``"rtt_half"``, or ``"file"``: 1 ms between regions.
        latency_ms: one way between any two nodes, in place of ``latency``.
        intra_mbps: rate between two nodes of a region, for which there is no source.
        intra_ms: latency between them.
    """

    mode: Literal["pair", "node_cap"] = "pair"
    latency: Literal["rtt_half", "file"] = "rtt_half"
    latency_ms: Milliseconds | None = None
    intra_mbps: Rate = 1000.0
    intra_ms: Milliseconds = 1.0

    def build(self, n: int, seeds: Seeds) -> NetworkModel:
        """The network of ``n`` nodes."""
        measured = _measured()
        place = self._place(n, seeds)
        between = _filled(measured["bandwidth_mbps"], np.nan)
        rates = np.where(np.isnan(between), self.intra_mbps, between)
        cap = np.nanmax(between, axis=1)[place] if self.mode == "node_cap" else np.inf
        latency: float | NDArray[np.float64]
        if self.latency_ms is not None:
            latency = self.latency_ms
        else:
            one_way = (
                _filled(measured["rtt_ms"], self.intra_ms) / 2
                if self.latency == "rtt_half"
                else np.full_like(rates, measured["file_latency_ms"])
            )
            np.fill_diagonal(one_way, self.intra_ms)
            latency = one_way[np.ix_(place, place)]
        return self._model(
            n,
            seeds,
            latency_ms=latency,
            uplink_mbps=cap,
            downlink_mbps=cap,
            pair_mbps=rates[np.ix_(place, place)],
        )

    def regions(self, n: int, seeds: Seeds) -> tuple[str, ...]:
        """Region of each node; numbers of nodes per region differ by 1 at most."""
        names = _measured()["regions"]
        return tuple(names[place] for place in self._place(n, seeds))

    def _place(self, n: int, seeds: Seeds) -> IntArray:
        """Number of each node's region; nodes and regions are shuffled, so no region gets the rest always."""
        rng = seeds.rng(STREAM)
        count = len(_measured()["regions"])
        place = np.empty(n, dtype=np.int64)
        place[rng.permutation(n)] = rng.permutation(count)[np.arange(n) % count]
        return place


@cache
def _measured() -> dict[str, Any]:
    measured: dict[str, Any] = json.loads(Path(__file__).with_name("aws10.json").read_text(encoding="utf-8"))
    return measured


def _filled(rows: list[list[float | None]], diagonal: float) -> NDArray[np.float64]:
    """``rows`` as float64 with ``diagonal`` in place of None."""
    return np.array(
        [[diagonal if value is None else value for value in row] for row in rows], dtype=np.float64
    )


@dataclass(frozen=True, kw_only=True)
class File(LinkSettings):
    """Rates and latencies from a JSON or TOML file.

    Keys of the file, each may be left out: ``uplink_mbps`` and ``downlink_mbps`` (one number for all, or n
    of them), ``pair_mbps`` and ``latency_ms`` (one number, or n lists of n: row = from, column = to).
    Diagonals are not looked at; a rate of null (JSON) is unlimited, as one that is left out; a latency that
    is left out is 0.

    Args:
        path: the file; its name ends in ``.json`` or ``.toml``.
        latency_ms: one way between any two nodes, in place of the file's.
    """

    path: FileName
    latency_ms: Milliseconds | None = None

    def build(self, n: int, seeds: Seeds) -> NetworkModel:
        """The network of ``n`` nodes.

        Raises:
            DataError: the file is absent or unreadable.
            ConfigError: it holds an unknown key, an impossible value, or what is not for ``n`` nodes.
        """
        found = read_matrices(self.path, n)
        latency = found.latency_ms if self.latency_ms is None else self.latency_ms
        return self._model(
            n,
            seeds,
            latency_ms=latency,
            uplink_mbps=found.uplink_mbps,
            downlink_mbps=found.downlink_mbps,
            pair_mbps=found.pair_mbps,
        )


NETWORKS = {"ideal": Ideal, "star": Star, "aws10": Aws10, "file": File}
