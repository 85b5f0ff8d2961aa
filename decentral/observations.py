"""What a node of a wall-clock run observes of itself: samples, and asked against achieved per link."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


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
    """Sums over the transfers to one destination; bits with overhead, times in nanoseconds."""

    transfers: int = 0
    bits: int = 0
    asked_ns: int = 0
    achieved_ns: int = 0
    delays: int = 0
    delay_ns: int = 0


class Transfers:
    """Asked and achieved duration of one sender's transfers, and the latency asked, per destination.

    Durations are summed, not averaged as rates: what is late at the end of one transfer is missing in the
    next, so the sums tell the rate over the run, while the lateness itself is part of the latency.
    """

    def __init__(self) -> None:
        self._links: dict[int, Link] = {}

    def add(self, destination: int, *, bits: int, asked_ns: int, achieved_ns: int) -> None:
        """A transfer was to take ``asked_ns`` and took ``achieved_ns``."""
        link = self._links.setdefault(destination, Link())
        link.transfers += 1
        link.bits += bits
        link.asked_ns += asked_ns
        link.achieved_ns += achieved_ns

    def delayed(self, destination: int, asked_ns: int) -> None:
        """The latency that its message was to have after that, jitter included."""
        link = self._links[destination]
        link.delays += 1
        link.delay_ns += asked_ns

    def __iter__(self) -> Iterator[tuple[int, Link]]:
        """Destinations in order."""
        return iter(sorted(self._links.items()))
