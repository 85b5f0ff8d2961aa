"""Random streams: named, numbered, and the same in every process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decentral.seeding import Seeds

ROOT = Path(__file__).resolve().parents[2]

NAMES = st.text("abcdefghijklmnopqrstuvwxyz_-", min_size=1, max_size=12)
COUNTERS = st.lists(st.integers(0, 2**40), max_size=4).map(tuple)
STREAMS = st.tuples(st.integers(0, 2**64), NAMES, COUNTERS)


def raw(seed: int, name: str, *counters: int) -> list[int]:
    drawn = Seeds(seed).rng(name, *counters).bit_generator.random_raw(4)
    return [int(value) for value in drawn]


@given(STREAMS)
def test_a_stream_starts_anew_at_every_call(stream: tuple[int, str, tuple[int, ...]]) -> None:
    seed, name, counters = stream
    assert raw(seed, name, *counters) == raw(seed, name, *counters)
    assert Seeds(seed).integer(name, *counters) == Seeds(seed).integer(name, *counters)


@given(STREAMS, STREAMS)
def test_different_streams_differ(
    one: tuple[int, str, tuple[int, ...]], other: tuple[int, str, tuple[int, ...]]
) -> None:
    if one == other:
        return
    assert raw(one[0], one[1], *one[2]) != raw(other[0], other[1], *other[2])
    assert Seeds(one[0]).integer(one[1], *one[2]) != Seeds(other[0]).integer(other[1], *other[2])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a", 1, 2), ("a", 12)),
        (("a", 12), ("a", 1, 2)),
        (("a", 1, 2), ("a", 2, 1)),
        (("a",), ("a", 0)),
        (("a", 0), ("a", 0, 0)),
        (("a1",), ("a", 1)),
        (("a", 1, 23), ("a", 12, 3)),
    ],
)
def test_counters_are_kept_apart(
    one: tuple[str, *tuple[int, ...]], other: tuple[str, *tuple[int, ...]]
) -> None:
    assert raw(1, *one) != raw(1, *other)


def test_the_seed_is_not_just_another_counter() -> None:
    assert raw(1, "a", 2) != raw(2, "a", 1)
    assert raw(1, "a", 23) != raw(12, "a", 3)


def test_numpy_counters_name_the_same_stream_as_integers() -> None:
    assert raw(1, "batch", int(np.int64(3)), 7) == raw(1, "batch", np.int64(3), np.int64(7))  # type: ignore[arg-type]


def test_a_name_cannot_imitate_counters() -> None:
    assert raw(2, "a/1") != raw(1, "a", 2)
    assert raw(1, "node/topology", 3) != raw(1, "topology", 3)


def test_numbers_are_pinned() -> None:
    """Results of earlier runs stay reproducible: these change only with a new major version."""
    assert raw(1, "batch", 3, 7)[0] == 9523116699132608246
    assert Seeds(1).integer("model") == 1500859266142210447
    assert Seeds(2).integer("model") == 3915227620015859649
    assert Seeds(1).integer("topology", 0, 5) == 9107073138986957240


@given(STREAMS)
def test_integers_fit_every_library(stream: tuple[int, str, tuple[int, ...]]) -> None:
    seed, name, counters = stream
    assert 0 <= Seeds(seed).integer(name, *counters) < 2**63


def test_draws_look_uniform() -> None:
    """First draws of neighboring streams: mean and correlation within 5 standard errors."""
    count = 4000
    draws = np.array([Seeds(1).rng("batch", node).random() for node in range(count)])
    assert abs(draws.mean() - 0.5) < 5 / np.sqrt(12 * count)
    assert abs(np.corrcoef(draws[:-1], draws[1:])[0, 1]) < 5 / np.sqrt(count)


@pytest.mark.parametrize("hash_seed", ["0", "4242"])
def test_other_processes_draw_the_same(hash_seed: str) -> None:
    program = (
        "import json; from decentral.seeding import Seeds; s = Seeds(7);"
        "print(json.dumps([s.rng('fragments').permutation(20).tolist(), s.integer('topology', 3, 1)]))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
    output = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    ).stdout
    here = Seeds(7)
    assert json.loads(output) == [
        here.rng("fragments").permutation(20).tolist(),
        here.integer("topology", 3, 1),
    ]
