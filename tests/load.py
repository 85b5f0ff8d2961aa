"""How busy others keep this machine, which decides how punctual processes of a test can be."""

from __future__ import annotations

import os

OVERLOADED = 10.0
"""How many times longer a machine that other work keeps busy may take before it counts as a hang."""
QUIET_SHARE = 0.2
"""Of the cores' time that others may use on a machine that is not busy."""


class Others:
    """What others use of the cores from now on: all that runs less this process and its ended descendants."""

    def __init__(self) -> None:
        self._before = _ticks()

    @property
    def share(self) -> float:
        """Of the cores' time so far; call it once all processes of the test have been waited for."""
        total, busy, own = (now - then for now, then in zip(_ticks(), self._before, strict=True))
        return max(0.0, busy - own) / max(total, 1.0)

    @property
    def allowance(self) -> float:
        """By what to multiply a time that is promised on a machine that is not overloaded."""
        return 1.0 if self.share < QUIET_SHARE else OVERLOADED


def _ticks() -> tuple[float, float, float]:
    """Cumulative: all cores' time, what of it was used (or stolen), what of that this process used."""
    with open("/proc/stat", encoding="ascii") as file:
        user, nice, system, idle, iowait, irq, softirq, stolen = map(int, file.readline().split()[1:9])
    busy = user + nice + system + irq + softirq + stolen
    own = sum(os.times()[:4]) * os.sysconf("SC_CLK_TCK")
    return float(busy + idle + iowait), float(busy), own
