"""What a node of a wall-clock run observes of itself: samples, and asked against achieved per link."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

RATE_ERROR = 0.05
"""Most relative error of the median link's rate that is trusted."""
LATENCY_ERROR_MS = 2.0
"""Most deviation of the median message's arrival that is trusted."""
EDGE_NS = round(LATENCY_ERROR_MS * 1e6 / RATE_ERROR)
"""Shortest stretch over which a rate is measured: over a shorter one, lateness that is trusted as latency
would look like a rate that is not."""


class Samples:
    """An evenly thinned record of a long series: every 1st, then every 2nd, 4th, ... value, in bounded space.

    Args:
        most: values kept; twice as thin when reached.
    """

    def __init__(self, most: int = 4096) -> None:
        self.values: list[int] = []
        self.count = 0
        self._most = most
        self._stride = 1

    def add(self, value: int) -> None:
        """Take the next value of the series."""
        if self.count % self._stride == 0:
            self.values.append(value)
            if len(self.values) >= self._most:
                del self.values[1::2]
                self._stride *= 2
        self.count += 1

    def quantile(self, share: float) -> float | None:
        """The value below which ``share`` (0 to 1) of those kept lie; None without any."""
        if not self.values:
            return None
        ordered = sorted(self.values)
        return float(ordered[min(len(ordered) - 1, int(share * len(ordered)))])


@dataclass(slots=True)
class Link:
    """Sums over the transfers to one destination; bits with overhead, times in nanoseconds.

    ``timed_ns`` is what those transfers took that were timed, and were to take ``timed_asked_ns``.
    """

    transfers: int = 0
    bits: int = 0
    asked_ns: int = 0
    timed_asked_ns: int = 0
    timed_ns: int = 0
    delays: int = 0
    delay_ns: int = 0


class Transfers:
    """Asked and achieved duration of one sender's transfers, and the latency asked, per destination.

    Durations are summed, not averaged as rates: what is late at the end of one transfer is missing in the
    next, so the sums tell the rate over the run, while the lateness itself is part of the latency.
    """

    def __init__(self) -> None:
        self._links: dict[int, Link] = {}
        self._row: list[tuple[Link, int, int]] = []
        self._row_ns = 0

    def begin_row(self) -> None:
        """The next transfers follow on none before."""
        self._row.clear()
        self._row_ns = 0

    def add(self, destination: int, *, bits: int, asked_ns: int, took_ns: int, followed: bool) -> None:
        """A transfer was to take ``asked_ns`` and took ``took_ns``.

        It is timed if it is long, or in a long row of transfers of which each ``followed`` another one, so
        that both its ends were as late as timers are.
        """
        link = self._links.setdefault(destination, Link())
        link.transfers += 1
        link.bits += bits
        link.asked_ns += asked_ns
        if followed or asked_ns >= EDGE_NS:
            self._row.append((link, asked_ns, took_ns))
            self._row_ns += asked_ns
        if self._row_ns >= EDGE_NS:
            for timed, timed_asked_ns, timed_ns in self._row:
                timed.timed_asked_ns += timed_asked_ns
                timed.timed_ns += timed_ns
            self._row.clear()

    def delayed(self, destination: int, asked_ns: int) -> None:
        """The latency that its message was to have after that, jitter included."""
        link = self._links[destination]
        link.delays += 1
        link.delay_ns += asked_ns

    def __iter__(self) -> Iterator[tuple[int, Link]]:
        """Destinations in order."""
        return iter(sorted(self._links.items()))
