"""What a network model refuses and what it tells."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from decentral.errors import ConfigError
from decentral.network.model import NetworkModel
from decentral.seeding import Seeds


def model(n: int = 3, **changes: Any) -> NetworkModel:
    settings: dict[str, Any] = {
        "uplink_bps": np.full(n, 1e6),
        "downlink_bps": np.full(n, 1e6),
        "latency_ns": np.array([[7]]),
        "seeds": Seeds(1),
    }
    return NetworkModel(n=n, **(settings | changes))


def pairs(value: float, i: int, j: int, elsewhere: float = 1e6) -> np.ndarray[Any, Any]:
    matrix = np.full((3, 3), elsewhere)
    matrix[i, j] = value
    return matrix


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"uplink_bps": np.array([1e6, 0.0, 1e6])}, r"uplink_bps\[1\] = 0\.0: expected a rate of at least 1"),
        ({"uplink_bps": np.array([1e6, 1e6, -5.0])}, r"uplink_bps\[2\] = -5\.0"),
        ({"downlink_bps": np.array([math.nan, 1e6, 1e6])}, r"downlink_bps\[0\] = nan"),
        ({"uplink_bps": np.full(4, 1e6)}, r"uplink_bps of shape \(4,\): expected shape \(3,\)"),
        ({"downlink_bps": np.full((3, 1), 1e6)}, r"downlink_bps of shape \(3, 1\)"),
        ({"pair_bps": np.full(3, 1e6)}, r"pair_bps of shape \(3,\): expected shape \(3, 3\)"),
        ({"pair_bps": pairs(0.0, 0, 2)}, r"pair_bps\[0, 2\] = 0\.0"),
        ({"latency_ns": np.array([[-1]])}, r"latency_ns\[0, 0\] = -1: expected a latency >= 0"),
        ({"latency_ns": pairs(-4, 2, 1).astype(np.int64)}, r"latency_ns\[2, 1\] = -4"),
        ({"latency_ns": np.array([5])}, r"latency_ns of shape \(1,\)"),
        ({"latency_ns": np.array([[0.5]])}, r"latency_ns of type float64: expected integer nanoseconds"),
        ({"jitter_ns": -1}, r"jitter_ns = -1"),
        ({"overhead_bytes": -1}, r"overhead_bytes = -1"),
        ({"overhead_ns": -1}, r"overhead_ns = -1"),
        ({"loss": 1.0}, r"loss = 1\.0: expected a probability in \[0, 1\)"),
        ({"loss": -0.1}, r"loss = -0\.1"),
        ({"loss": math.nan}, r"loss = nan"),
        ({"concurrency": 0}, r"concurrency = 0: expected at least one transfer"),
        ({"contention": "downlink"}, r'contention = \'downlink\': expected "uplink" or "both"'),
    ],
)
def test_impossible_networks_are_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        model(**changes)


def test_no_node_is_refused() -> None:
    with pytest.raises(ConfigError, match="n = 0: a network needs at least one node"):
        model(n=0)


def test_all_problems_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as refusal:
        model(loss=2.0, jitter_ns=-1, uplink_bps=np.zeros(3))
    assert len(refusal.value.problems) == 3


def test_diagonal_of_pair_rates_is_ignored() -> None:
    assert model(pair_bps=pairs(0.0, 1, 1)).n == 3


def test_arrays_are_copies_that_nobody_changes() -> None:
    rates = np.full(3, 1e6)
    network = model(uplink_bps=rates)
    rates[0] = 5.0
    assert network.uplink_bps[0] == 1e6
    with pytest.raises(ValueError, match="read-only"):
        network.uplink_bps[0] = 5.0


def test_latency_of_one_value_and_of_a_matrix() -> None:
    assert model().latency(0, 2) == 7
    matrix = np.arange(9).reshape(3, 3)
    network = model(latency_ns=matrix)
    assert [network.latency(0, 2), network.latency(2, 0)] == [2, 6]


INFINITE = np.full(3, math.inf)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, False),
        ({"uplink_bps": INFINITE}, True),
        ({"uplink_bps": INFINITE, "contention": "both"}, False),
        ({"uplink_bps": INFINITE, "downlink_bps": INFINITE, "contention": "both"}, True),
        ({"uplink_bps": INFINITE, "pair_bps": pairs(1e6, 0, 1, math.inf)}, False),
        ({"uplink_bps": INFINITE, "pair_bps": pairs(1e6, 1, 1, math.inf)}, True),
    ],
)
def test_unlimited(changes: dict[str, Any], expected: bool) -> None:
    assert model(**changes).unlimited is expected
