"""Predictions as tables for the command line."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from launch.overview import size
from launch.predict import Amount, Prediction
from launch.untrained import FATES

DASH = "-"

TOTALS_HEADER = (
    *("arm", "seed", "emulated time", "rounds", "attempted", "delivered", "replaced", "dropped"),
    "emulated rounds",
)
RATES_HEADER = (
    *("arm", "seed", "attempted", "delivered", "dropped"),
    *("arrived", "uplinks busy", "staleness", "consensus left"),
)


def tables(predictions: Sequence[Prediction]) -> list[tuple[str, Sequence[str], list[list[str]]]]:
    """Title, heading and rows of each."""
    return [
        (
            "in a whole run: payload in messages; what is left is in flight",
            TOTALS_HEADER,
            totals_rows(predictions),
        ),
        (
            "per node and local round; shares of the payload attempted, of time, and of the start",
            RATES_HEADER,
            rates_rows(predictions),
        ),
    ]


def notes(predictions: Sequence[Prediction]) -> str:
    """What a reader must know of how they were made."""
    text = "nothing was trained: consensus is that of random vectors after the emulated rounds"
    if all(found.whole for found in predictions):
        return text
    return (
        f"{text}\ntime, rounds and traffic are continued linearly after the emulated rounds; "
        "--predict-rounds emulates more"
    )


def totals_rows(predictions: Sequence[Prediction]) -> list[list[str]]:
    """A row per prediction under ``TOTALS_HEADER``: what a whole run takes and moves."""
    return [
        [
            *(found.arm.name, str(found.seed), f"{found.time_s:.4g} s", _span(found.rounds)),
            *(_amount_text(found.fates[fate]) for fate in FATES),
            "all" if found.whole else f"the first {_span(found.emulated)}",
        ]
        for found in predictions
    ]


def rates_rows(predictions: Sequence[Prediction]) -> list[list[str]]:
    """A row per prediction under ``RATES_HEADER``: per node and local round, and shares."""
    return [
        [
            *(found.arm.name, str(found.seed)),
            *(_amount_text(found.per_round[fate]) for fate in ("made", "delivered", "dropped")),
            _classes({name: uplinks.arrived for name, uplinks in found.uplinks.items()}),
            _classes({name: uplinks.busy for name, uplinks in found.uplinks.items()}),
            DASH if found.staleness is None else f"{found.staleness:.3g} rounds",
            f"{100 * found.consensus:.3g} %",
        ]
        for found in predictions
    ]


def _span(rounds: tuple[int, int]) -> str:
    low, high = rounds
    return str(low) if low == high else f"{low} to {high}"


def _amount_text(amount: Amount) -> str:
    count = amount.messages
    return f"{size(amount.bytes)} in {count:.0f}" if count >= 100 else f"{size(amount.bytes)} in {count:.3g}"


def _classes(shares: Mapping[str, float]) -> str:
    return ", ".join(
        f"{name} {DASH if math.isnan(share) else f'{100 * share:.3g} %'}" for name, share in shares.items()
    )
