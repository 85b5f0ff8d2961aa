"""Predictions as a table for the command line."""

from __future__ import annotations

import math
from collections.abc import Sequence

from launch.overview import size
from launch.predict import FATES, Amount, Prediction

DASH = "-"
HEADER = (
    *("arm", "seed", "emulated time", "rounds", "attempted", "delivered", "replaced", "dropped"),
    *(f"{fate}, per node and round" for fate in ("attempted", "delivered", "dropped")),
    *("arrived, by uplinks", "uplinks busy", "staleness", "consensus left", "emulated"),
)


def prediction_rows(predictions: Sequence[Prediction]) -> list[list[str]]:
    """A row per prediction under ``HEADER``."""
    return [
        [
            found.arm.name,
            str(found.seed),
            f"{found.time_s:.4g} s",
            _span(found.rounds),
            *(_amount_text(found.fates[fate]) for fate in FATES),
            *(_amount_text(found.per_round[fate]) for fate in ("made", "delivered", "dropped")),
            _classes({name: links.delivered for name, links in found.uplinks.items()}),
            _classes({name: links.busy for name, links in found.uplinks.items()}),
            DASH if found.staleness is None else f"{found.staleness:.3g} rounds",
            f"{100 * found.consensus:.3g} %",
            "all" if found.scale == 1 else f"the first {_span(found.emulated_rounds)} rounds",
        ]
        for found in predictions
    ]


def _span(rounds: tuple[int, int]) -> str:
    low, high = rounds
    return str(low) if low == high else f"{low} to {high}"


def _amount_text(amount: Amount) -> str:
    return f"{size(amount.bytes)}, {amount.messages:.4g} messages"


def _classes(shares: dict[str, float]) -> str:
    return ", ".join(
        f"{name} {DASH if math.isnan(share) else f'{100 * share:.3g} %'}" for name, share in shares.items()
    )
