"""Fragment maps (algorithms.md 1.2, 14.5, 14.16)."""

from __future__ import annotations

from itertools import combinations, pairwise
from typing import get_args

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from decentral.errors import ConfigError
from decentral.fragments import Fragmenter, Fragments, MapName
from decentral.seeding import Seeds

GN_LENET = [2400, 32, 32, 32, 25600, 32, 32, 32, 51200, 64, 64, 64, 10240, 10]
MAPS: tuple[MapName, ...] = get_args(MapName)
SEEDED: tuple[MapName, ...] = ("per_tensor", "global")


def split(sizes: list[int], count: int, map_: MapName = "per_tensor", seed: int = 1) -> Fragments:
    return Fragmenter(count=count, map=map_, seeds=Seeds(seed)).split(sizes)


def lengths(fragments: Fragments) -> list[int]:
    return [fragments.indices(k).size for k in range(len(fragments))]


def is_possible(map_: MapName, sizes: list[int], count: int) -> bool:
    match map_:
        case "per_tensor":
            return count <= max(sizes)
        case "per_layer":
            return count <= len(sizes)
        case _:
            return count <= sum(sizes)


@given(
    st.sampled_from(MAPS),
    st.lists(st.integers(1, 30), min_size=1, max_size=8),
    st.integers(1, 12),
    st.integers(0, 2**64),
)
@settings(max_examples=300)
def test_fragments_partition_the_parameters(map_: MapName, sizes: list[int], count: int, seed: int) -> None:
    if not is_possible(map_, sizes, count):
        with pytest.raises(ConfigError):
            split(sizes, count, map_, seed)
        return
    fragments = split(sizes, count, map_, seed)
    assert len(fragments) == count
    assert fragments.d == sum(sizes)
    assert min(lengths(fragments)) > 0
    together = np.concatenate([fragments.indices(k) for k in range(count)])
    assert np.array_equal(np.sort(together), np.arange(sum(sizes)))
    # The slices follow each other, so that one gather serves all fragments.
    ends = [(fragments.slice(k).start, fragments.slice(k).stop) for k in range(count)]
    assert ends[0][0] == 0
    assert ends[-1][1] == sum(sizes)
    assert all(one[1] == following[0] for one, following in pairwise(ends))


@pytest.mark.parametrize("map_", MAPS)
def test_one_fragment_is_the_whole_model_in_order(map_: MapName) -> None:
    fragments = split(GN_LENET, 1, map_)
    assert np.array_equal(fragments.indices(0), np.arange(sum(GN_LENET)))
    whole = Fragments(np.arange(sum(GN_LENET)), (0, sum(GN_LENET)))
    assert fragments.map_hash == whole.map_hash


@pytest.mark.parametrize("map_", ["global", "contiguous"])
def test_as_many_fragments_as_parameters(map_: MapName) -> None:
    assert lengths(split([3, 4], 7, map_)) == [1] * 7
    assert lengths(split([7], 7, "per_tensor")) == [1] * 7
    assert lengths(split([1] * 7, 7, "per_layer")) == [1] * 7


@pytest.mark.parametrize("map_", MAPS)
@pytest.mark.parametrize("count", [8, 100, 0, -1])
def test_a_count_outside_the_parameters_is_refused(map_: MapName, count: int) -> None:
    with pytest.raises(ConfigError, match=rf"fragments.count = {count}: must be from 1 to the model's 7 par"):
        split([3, 4], count, map_)


def test_an_empty_fragment_is_refused_with_advice() -> None:
    with pytest.raises(
        ConfigError, match=r"leave 4 fragments empty .* at most 4 parameters; .* map = global"
    ):
        split([3, 4], 5, "per_tensor")
    assert lengths(split([3, 4], 5, "global")) == [2, 2, 1, 1, 1]


def test_more_fragments_than_tensors_is_refused_with_advice() -> None:
    with pytest.raises(ConfigError, match="use at most 2 fragments or map = per_tensor"):
        split([3, 4], 3, "per_layer")


def test_gn_lenet_has_the_published_sizes() -> None:
    assert sum(GN_LENET) == 89_834
    assert lengths(split(GN_LENET, 10)) == [8981] * 9 + [9005]
    assert lengths(split(GN_LENET, 100)) == [894] * 99 + [1328]


def test_matrix_factorization_divides_evenly() -> None:
    assert lengths(split([610 * 20, 9724 * 20], 10)) == [20_668] * 10


def test_per_tensor_deals_every_tensor_to_every_fragment() -> None:
    sizes = [20, 7, 31]
    fragments = split(sizes, 3)
    ends = np.cumsum([0, *sizes])
    for k in range(3):
        inside, _ = np.histogram(fragments.indices(k), bins=ends - 0.5)
        assert inside.tolist() == ([6, 2, 10] if k < 2 else [8, 3, 11])


@given(st.integers(1, 400), st.data())
def test_global_and_contiguous_sizes_differ_by_at_most_one(d: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, d))
    for map_ in ("global", "contiguous"):
        made = lengths(split([d], count, map_))
        assert max(made) - min(made) <= 1


def test_global_mixes_tensors_and_contiguous_does_not() -> None:
    assert np.array_equal(split([50, 50], 2, "contiguous").indices(1), np.arange(50, 100))
    mixed = split([50, 50], 2, "global").indices(1)
    assert 10 < (mixed < 50).sum() < 40


def best_largest(sizes: list[int], count: int) -> int:
    """Brute force over all ways to cut ``sizes`` into ``count`` runs."""
    ways = combinations(range(1, len(sizes)), count - 1)
    return min(max(sum(sizes[a:b]) for a, b in pairwise([0, *cuts, len(sizes)])) for cuts in ways)


@given(st.lists(st.integers(1, 100), min_size=1, max_size=9), st.data())
def test_per_layer_keeps_tensors_whole_and_is_optimal(sizes: list[int], data: st.DataObject) -> None:
    count = data.draw(st.integers(1, len(sizes)))
    fragments = split(sizes, count, "per_layer")
    tensor_ends = set(np.cumsum(sizes).tolist())
    assert {fragments.slice(k).stop for k in range(count)} <= tensor_ends
    assert np.array_equal(fragments.gather(np.arange(sum(sizes), dtype=np.float32)), np.arange(sum(sizes)))
    assert max(lengths(fragments)) == best_largest(sizes, count)


@given(st.sampled_from(MAPS), st.lists(st.integers(2, 30), min_size=2, max_size=6), st.integers(1, 2))
def test_gather_and_scatter_are_inverse(map_: MapName, sizes: list[int], count: int) -> None:
    fragments = split(sizes, count, map_)
    x = np.random.default_rng(0).normal(size=sum(sizes)).astype(np.float32)
    before = x.copy()
    ordered = fragments.gather(x)
    for k in range(count):
        assert np.array_equal(ordered[fragments.slice(k)], x[fragments.indices(k)])
    ordered += 0
    back = np.empty_like(x)
    fragments.scatter(ordered, back)
    assert np.array_equal(back, x)
    ordered[:] = -1
    assert np.array_equal(x, before), "gather must copy"
    fragments.scatter(ordered, x)
    assert (x == -1).all()


@pytest.mark.parametrize("map_", MAPS)
def test_all_nodes_draw_the_same_map(map_: MapName) -> None:
    one, other = split(GN_LENET, 10, map_), split(GN_LENET, 10, map_)
    assert one.map_hash == other.map_hash
    assert len(one.map_hash) == 8
    assert all(np.array_equal(one.indices(k), other.indices(k)) for k in range(10))


@pytest.mark.parametrize("map_", SEEDED)
def test_another_seed_gives_another_map(map_: MapName) -> None:
    one, other = split(GN_LENET, 10, map_, seed=1), split(GN_LENET, 10, map_, seed=2)
    assert one.map_hash != other.map_hash
    assert not np.array_equal(one.indices(0), other.indices(0))


def test_every_difference_between_maps_shows_in_the_hash() -> None:
    made = [split(GN_LENET, count, map_) for map_ in MAPS for count in (2, 10, 14)]
    made += [Fragments(np.arange(4), (0, 1, 4)), Fragments(np.arange(4), (0, 2, 4))]
    made += [Fragments(np.array([1, 0, 2, 3]), (0, 2, 4)), Fragments(np.arange(5), (0, 2, 5))]
    assert len({fragments.map_hash for fragments in made}) == len(made)


@given(st.permutations(range(6)), st.permutations(range(6)))
def test_hashes_are_equal_exactly_where_maps_are(one: list[int], other: list[int]) -> None:
    assume(one != other)
    hashes = {Fragments(np.array(order), (0, 3, 6)).map_hash for order in (one, one, other)}
    assert len(hashes) == 2
