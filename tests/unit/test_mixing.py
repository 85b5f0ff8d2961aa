"""Mixers against per-parameter references (algorithms.md 2.4, 7, 14.6, 14.7)."""

from __future__ import annotations

from collections.abc import Sequence

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decentral.arrays import FloatArray
from decentral.errors import ConfigError
from decentral.fragments import Fragmenter
from decentral.mixing import Part, average, metropolis_hastings, pair_average, weighted
from decentral.recipients import check_recipients
from decentral.resampled import ResampledFragments, average_newest
from decentral.seeding import Seeds

SLICES = (slice(0, 4), slice(4, 5), slice(5, 12))
D = 12


@st.composite
def received_parts(draw: st.DrawFn) -> list[Part]:
    """Parts sorted by (sender, fragment), some of them twice."""
    keys = draw(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2)), max_size=12))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    parts = []
    for sender, k in sorted(keys):
        where = SLICES[k]
        values = rng.normal(size=where.stop - where.start).astype(np.float32)
        parts.append(Part(sender, k, where, values))
    return parts


def own_model(seed: int = 0) -> FloatArray:
    return np.random.default_rng(1000 + seed).normal(size=D).astype(np.float32)


def place(part: Part, p: int) -> int | None:
    """Where parameter ``p`` stands in ``part``; None if it has another fragment."""
    assert isinstance(part.where, slice)
    return p - part.where.start if part.where.start <= p < part.where.stop else None


def reference_average(x: FloatArray, received: Sequence[Part]) -> FloatArray:
    """One parameter at a time, in float32: own value, plus what was received of it in order, over 1 + R."""
    out = x.copy()
    for p in range(D):
        total, count = x[p], 0
        for part in received:
            if (at := place(part, p)) is not None:
                total = np.float32(total + part.values[at])
                count += 1
        out[p] = np.float32(total / np.float32(1 + count)) if count else x[p]
    return out


@given(received_parts())
def test_average_is_the_mean_of_what_came_to_the_bit(received: list[Part]) -> None:
    x = own_model()
    expected = reference_average(x, received)
    before = [part.values.copy() for part in received]
    mixed = average(x.copy(), received)
    assert mixed.dtype == np.float32
    assert mixed.tobytes() == expected.tobytes()
    for part, values in zip(received, before, strict=True):
        assert np.array_equal(part.values, values), "received values belong to the sender"


@given(received_parts(), st.randoms(use_true_random=False))
def test_arrival_order_does_not_matter_once_sorted(received: list[Part], random: object) -> None:
    unique = list({(part.sender, part.fragment): part for part in received}.values())
    shuffled = unique.copy()
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    shuffled.sort(key=lambda part: (part.sender, part.fragment))
    assert average(own_model(), unique).tobytes() == average(own_model(), shuffled).tobytes()


@pytest.mark.parametrize("mixer", [average, weighted({1: 0.3})])
def test_nothing_received_changes_nothing(mixer: object) -> None:
    odd = np.array([np.nan, -0.0, 1e-45, np.inf, 3e38], dtype=np.float32)
    assert mixer(odd.copy(), []).tobytes() == odd.tobytes()  # type: ignore[operator]


def test_fragments_that_were_not_received_stay_to_the_bit() -> None:
    x = own_model()
    x[5:] = np.float32(1e-45)
    part = Part(3, 0, SLICES[0], np.ones(4, dtype=np.float32))
    for mixed in (average(x.copy(), [part]), weighted({3: 0.25})(x.copy(), [part])):
        assert mixed[4:].tobytes() == x[4:].tobytes()
        assert not np.array_equal(mixed[:4], x[:4])


@pytest.mark.parametrize("senders", [1, 2, 7])
def test_identical_models_stay_as_they_are(senders: int) -> None:
    x = own_model()
    parts = [Part(j, k, where, x[where].copy()) for j in range(senders) for k, where in enumerate(SLICES)]
    np.testing.assert_allclose(average(x.copy(), parts), x, rtol=1e-6)
    weights = dict.fromkeys(range(senders), 0.9 / senders)
    np.testing.assert_allclose(weighted(weights)(x.copy(), parts), x, rtol=1e-6)


def test_a_fragment_received_twice_counts_twice() -> None:
    x = np.zeros(D, dtype=np.float32)
    part = Part(1, 0, SLICES[0], np.full(4, 3, dtype=np.float32))
    assert average(x.copy(), [part, part])[0] == np.float32(2)
    assert weighted({1: 0.25})(x.copy(), [part, part])[0] == np.float32(1.5)


@given(received_parts())
def test_weighted_is_the_row_of_the_matrix(received: list[Part]) -> None:
    weights = {j: 0.02 * (j + 1) for j in range(6)}
    x = own_model()
    expected = np.zeros(D)
    for p in range(D):
        here = [(part, at) for part in received if (at := place(part, p)) is not None]
        rest = 1 - sum(weights[part.sender] for part, _ in here)
        expected[p] = rest * x[p] + sum(weights[part.sender] * part.values[at] for part, at in here)
    np.testing.assert_allclose(weighted(weights)(x.copy(), received), expected, rtol=1e-5, atol=1e-6)


def test_the_own_weight_takes_what_a_missing_sender_leaves() -> None:
    x = np.ones(D, dtype=np.float32)
    zero = [np.zeros(where.stop - where.start, dtype=np.float32) for where in SLICES]
    parts = [Part(1, k, where, zero[k]) for k, where in enumerate(SLICES)]
    parts.append(Part(2, 0, SLICES[0], zero[0]))  # node 2's fragments 1 and 2 are missing
    mixed = weighted({1: 0.25, 2: 0.5})(x, parts)
    assert mixed[SLICES[0]].tolist() == [0.25] * 4
    assert mixed[4:].tolist() == [0.75] * 8


def test_a_sender_without_a_weight_is_an_error() -> None:
    part = Part(9, 0, SLICES[0], np.zeros(4, dtype=np.float32))
    with pytest.raises(KeyError, match="9"):
        weighted({1: 0.5})(own_model(), [part])


@given(st.integers(2, 15), st.floats(0.05, 1), st.integers(0, 1000))
@settings(max_examples=60)
def test_metropolis_hastings_is_symmetric_and_doubly_stochastic(n: int, density: float, seed: int) -> None:
    graph = nx.gnp_random_graph(n, density, seed=seed)
    matrix = np.zeros((n, n))
    for i in graph:
        neighbors = {j: graph.degree[j] for j in graph[i]}
        for j, weight in metropolis_hastings(graph.degree[i], neighbors).items():
            matrix[i, j] = weight
            assert weight == 1 / (1 + max(graph.degree[i], graph.degree[j]))
        matrix[i, i] = 1 - matrix[i].sum()
    np.testing.assert_array_equal(matrix, matrix.T)
    np.testing.assert_allclose(matrix.sum(axis=0), 1)
    assert (np.diag(matrix) > 0).all()

    rng = np.random.default_rng(seed)
    models = [rng.normal(size=D).astype(np.float32) for _ in range(n)]
    mixed = []
    for i in graph:
        mix = weighted(metropolis_hastings(graph.degree[i], {j: graph.degree[j] for j in graph[i]}))
        parts = [Part(j, k, w, models[j][w]) for j in sorted(graph[i]) for k, w in enumerate(SLICES)]
        mixed.append(mix(models[i].copy(), parts))
    np.testing.assert_allclose(np.mean(mixed, axis=0), np.mean(models, axis=0), atol=1e-6)
    np.testing.assert_allclose(mixed, matrix @ np.array(models), atol=1e-6)
    assert np.var(mixed, axis=0).sum() <= np.var(models, axis=0).sum() * (1 + 1e-6)


@given(st.integers(0, 10_000))
def test_both_ends_of_a_pair_get_the_same_bits_and_keep_their_sum(seed: int) -> None:
    """14.12: the sum after is the rounded sum before, exactly."""
    rng = np.random.default_rng(seed)
    active, passive = (rng.normal(scale=s, size=D).astype(np.float32) for s in (1, 30))
    total, before = active + passive, passive.copy()
    sent = active.copy()
    reply = pair_average(passive, sent)
    assert reply.tobytes() == before.tobytes()
    assert not np.shares_memory(reply, passive)
    pair_average(active, reply)
    assert active.tobytes() == passive.tobytes()
    assert (active + passive).tobytes() == total.tobytes()


def resampled(count: int = 3) -> ResampledFragments:
    return ResampledFragments(Fragmenter(count=count, map="global", seeds=Seeds(4)), (5, 7))


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 2)), unique=True, max_size=14),
    st.integers(0, 100),
)
def test_average_newest_is_per_parameter_and_sender(keys: list[tuple[int, int, int]], seed: int) -> None:
    """(sender, fragment, round): of a parameter that a sender sent twice the later round counts."""
    maps, rng, x = resampled(), np.random.default_rng(seed), own_model()
    parts = []
    for sender, k, t in sorted(keys):
        where = maps.where(t, k)
        parts.append(Part(sender, k, where, rng.normal(size=where.size).astype(np.float32), t))
    expected = x.copy()
    for p in range(D):
        newest: dict[int, tuple[int, np.float32]] = {}
        for part in parts:
            at = np.flatnonzero(np.asarray(part.where) == p)
            if at.size and part.round >= newest.get(part.sender, (0, 0))[0]:
                newest[part.sender] = (part.round, part.values[at[0]])
        for _, value in (newest[sender] for sender in sorted(newest)):
            expected[p] += value
        if newest:
            expected[p] /= np.float32(1 + len(newest))
    assert average_newest(x.copy(), parts).tobytes() == expected.tobytes()


def test_average_newest_with_one_map_is_average_to_the_bit() -> None:
    fragments = resampled().at(0)
    rng, x = np.random.default_rng(0), own_model()
    keys = [(0, 1), (2, 0), (2, 2), (3, 1), (5, 1)]
    values = {key: rng.normal(size=fragments.indices(key[1]).size).astype(np.float32) for key in keys}
    by_place = [Part(j, k, fragments.indices(k), values[j, k]) for j, k in keys]
    by_slice = [Part(j, k, fragments.slice(k), values[j, k]) for j, k in keys]
    mixed = np.empty(D, dtype=np.float32)
    fragments.scatter(average(fragments.gather(x), by_slice), mixed)
    assert average_newest(x.copy(), by_place).tobytes() == mixed.tobytes()


def test_maps_of_different_rounds_differ_and_cannot_be_mixed_by_slices() -> None:
    maps = resampled()
    hashes = {maps.at(t).map_hash for t in range(6)}
    assert len(hashes) == 6
    assert maps.at(2).map_hash == resampled().at(2).map_hash, "the same at every node"
    for t in range(6):
        everything = np.concatenate([maps.where(t, k) for k in range(3)])
        assert sorted(everything.tolist()) == list(range(D))
    part = Part(1, 0, maps.where(0, 0), np.zeros(4, dtype=np.float32))
    for mix in (average, weighted({1: 0.5})):
        with pytest.raises(TypeError, match="average_newest"):
            mix(own_model(), [part])


def test_more_recipients_than_peers_are_refused() -> None:
    check_recipients(7, 8)
    with pytest.raises(ConfigError, match=r"recipients = 8: a node has 7 others to send to; use at most 7"):
        check_recipients(8, 8)
