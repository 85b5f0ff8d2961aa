"""Do the hosts of a run compute the same? Judged by what each made of a little training before the job."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

_SAME_DATA = 1e-3
"""Relative difference of two hosts' losses that rounding may explain."""


class Sample(NamedTuple):
    """What a host computed.

    Attributes:
        loss: of the model after a little training.
        digest: of all bits of that model.
        shards: digest of which rows each node has.
    """

    loss: float
    digest: str
    shards: str


class Difference(NamedTuple):
    """A host that does not compute what the first one does.

    Attributes:
        host: the other one.
        what: for people.
        fatal: it holds other data or deals it otherwise; else it only rounds otherwise.
    """

    host: str
    what: str
    fatal: bool


def differences(samples: Mapping[str, Sample]) -> list[Difference]:
    """Hosts that differ from the first."""
    first, own = next(iter(samples.items()))
    found = []
    for host, sample in samples.items():
        if sample.shards != own.shards:
            what = (
                f"hosts {first} and {host} deal the rows to nodes otherwise: compare their data folders, "
                f"their versions of numpy, and what a partition of your own reads there"
            )
            found.append(Difference(host, what, True))
        elif _far(own.loss, sample.loss):
            what = (
                f"its data is not that of host {first}: a model has a loss of {own.loss:g} there and of "
                f"{sample.loss:g} here; compare the data folders, and remove what was made of them "
                f"on both: ~/.cache/decentral, or cache in the folder of the hosts file"
            )
            found.append(Difference(host, what, True))
        elif sample.digest != own.digest:
            what = (
                f"hosts {first} and {host} round otherwise (processors or libraries differ): results "
                f"depend on which node runs where, within rounding"
            )
            found.append(Difference(host, what, False))
    return found


def _far(one: float, two: float) -> bool:
    if math.isfinite(one) and math.isfinite(two):
        return not math.isclose(one, two, rel_tol=_SAME_DATA, abs_tol=_SAME_DATA)
    return math.isfinite(one) != math.isfinite(two)
