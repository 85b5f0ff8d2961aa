"""An untrained run in this process, in numbers that predictions are made of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decentral.config import Arm
from decentral.errors import Interrupted
from decentral.records import EventName, MemoryRecorder, Value
from launch.build import load_workload
from launch.display import Display
from launch.executors.base import Interruption
from launch.executors.inline import DisplayListener, InlineRun, Recorders

FATES = ("made", "delivered", "replaced", "dropped")
ROUNDS, BUSY_S, _FIRST_FATE = 0, 1, 2


def rows_of(fate: str) -> slice:
    """Rows of sums with the messages and bytes of ``fate``."""
    first = _FIRST_FATE + 2 * FATES.index(fate)
    return slice(first, first + 2)


@dataclass(frozen=True)
class Emulated:
    """What an emulation gave.

    Attributes:
        time_s: emulated duration.
        sums: what grows with it, per node: local rounds, busy seconds, messages and bytes of every fate;
            shape (2 + 2 * len(FATES), n), float64.
        rates_bps: of uplinks, shape (n,).
        staleness: mean over nodes and rounds.
        consensus: last over first.
    """

    time_s: float
    sums: NDArray[np.float64]
    rates_bps: NDArray[np.float64]
    staleness: float | None
    consensus: float


@dataclass
class _Tally:
    """A recorder that keeps of a node's log what predictions need."""

    rounds: int = 0
    ages: list[float] = field(default_factory=list)

    @property
    def nbytes(self) -> int:
        """Nothing is written."""
        return 0

    def write(self, event: EventName, **fields: Value) -> None:
        """Take one event."""
        if event == "round":
            self.rounds += 1
            age = fields["staleness"]
            if isinstance(age, float):
                self.ages.append(age)

    def sync(self) -> None:
        """Nothing is written."""


def emulate(arm: Arm, *, seed: int, display: Display, interruption: Interruption) -> Emulated:
    """Run ``arm``, which does not train, to its end.

    Raises:
        Interrupted: by ``interruption``.
        RunFailed: an algorithm failed.
    """
    if interruption.count:
        raise Interrupted("interrupted by the user")
    workload = load_workload(arm, seed, {})
    nodes = [_Tally() for _ in range(arm.nodes)]
    metrics, network = MemoryRecorder(), MemoryRecorder()
    listener = DisplayListener(display, workload.composition.task.metric.name)
    InlineRun(workload, Recorders(nodes.__getitem__, metrics, network), listener).run(interruption)
    logged: list[dict[str, Any]] = network.events
    uplinks = [event for event in logged if event["event"] == "uplink"]
    sums = np.zeros((_FIRST_FATE + 2 * len(FATES), arm.nodes))
    sums[ROUNDS] = [tally.rounds for tally in nodes]
    sums[BUSY_S] = [uplink["busy_s"] for uplink in uplinks]
    for links in (event for event in logged if event["event"] == "links"):
        for fate in FATES:
            sums[rows_of(fate), links["node"]] = _amount(links, fate)
    ages = [age for tally in nodes for age in tally.ages]
    scored: list[dict[str, Any]] = [event for event in metrics.events if event["event"] == "evaluation"]
    return Emulated(
        time_s=logged[-1]["time_s"],
        sums=sums,
        rates_bps=np.array(
            [math.inf if uplink["rate_bps"] is None else uplink["rate_bps"] for uplink in uplinks]
        ),
        staleness=fmean(ages) if ages else None,
        consensus=scored[-1]["consensus"] / scored[0]["consensus"],
    )


def _amount(links: Mapping[str, Sequence[int]], fate: str) -> tuple[int, int]:
    """Messages and bytes of ``fate`` in a sender's event ``links``; all reasons of drops together."""
    names = [name for name in links if name.split("_")[0] == fate]
    messages = sum(sum(links[name]) for name in names if not name.endswith("_bytes"))
    return messages, sum(sum(links[name]) for name in names if name.endswith("_bytes"))
