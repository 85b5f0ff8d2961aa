"""Hosts that hold other data are told from hosts that only round otherwise."""

from __future__ import annotations

import math

from launch.agreement import Sample, differences

OWN = Sample(2.5, "aa", "rows")


def test_hosts_that_agree() -> None:
    assert differences({"a": OWN, "b": OWN}) == []


def test_rounding_is_no_other_data() -> None:
    (found,) = differences({"a": OWN, "b": Sample(2.5 + 1e-6, "bb", "rows"), "c": OWN})
    assert (found.host, found.fatal) == ("b", False)
    assert "round otherwise" in found.what


def test_other_data_is_fatal() -> None:
    (found,) = differences({"a": OWN, "b": Sample(2.6, "bb", "rows")})
    assert (found.host, found.fatal) == ("b", True)
    assert "2.6" in found.what
    assert "host a" in found.what


def test_other_rows_are_fatal_however_alike_the_models() -> None:
    (found,) = differences({"a": OWN, "b": OWN._replace(shards="others"), "c": OWN})
    assert (found.host, found.fatal) == ("b", True)
    assert "hosts a and b deal the rows" in found.what


def test_losses_that_are_no_numbers() -> None:
    assert differences({"a": Sample(math.nan, "x", "rows"), "b": Sample(math.nan, "x", "rows")}) == []
    (found,) = differences({"a": Sample(math.nan, "x", "rows"), "b": OWN})
    assert found.fatal
