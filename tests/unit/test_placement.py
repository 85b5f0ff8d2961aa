"""Where nodes run: properties that hold for any hosts and any regions, and what is refused in words."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from decentral.config import load
from decentral.errors import ConfigError
from launch.host_schema import Host, Hosts
from launch.placement import SLACK, Capacity, Placement, place, ranges
from launch.placing import check_placement, place_arm, regions_of

hosts = st.lists(
    st.tuples(st.none() | st.integers(1, 16), st.sampled_from([0.0, 0.5, 1.0, 1.0, 3.0])),
    min_size=1,
    max_size=10,
).map(lambda kinds: [Capacity(f"h{number}", *kind) for number, kind in enumerate(kinds)])
sizes = st.integers(2, 80)


@st.composite
def regional(draw: st.DrawFn) -> tuple[int, list[str]]:
    n = draw(sizes)
    count = draw(st.integers(1, 12))
    return n, [f"region{draw(st.integers(0, count - 1))}" for _ in range(n)]


def weights(given_hosts: list[Capacity]) -> list[Fraction]:
    """Cores times share; unknown cores as many as the smallest known."""
    known = min((host.cores for host in given_hosts if host.cores is not None), default=1)
    return [Fraction(host.cores or known) * Fraction(host.share) for host in given_hosts]


def counts(placement: Placement, given_hosts: list[Capacity]) -> list[int]:
    return [len(placement.nodes_on(host.name)) for host in given_hosts]


def assert_sound(placement: Placement, n: int, given_hosts: list[Capacity], timekeeper: bool = True) -> None:
    """What every placement is, whatever was asked."""
    members = n + 1 + timekeeper
    assert list(placement.host_of) == list(placement.core_of) == list(range(members))
    assert sorted(node for host in given_hosts for node in placement.nodes_on(host.name)) == list(range(n))
    for host in given_hosts:
        cores = [placement.core_of[member] for member in placement.members_on(host.name)]
        if host.cores is not None and len(cores) <= host.cores:
            assert sorted(cores) == list(range(len(cores)))
        else:
            assert set(cores) <= {None}


@given(sizes, hosts, st.booleans())
def test_blocks_in_proportion(n: int, given_hosts: list[Capacity], timekeeper: bool) -> None:
    assume(any(host.share for host in given_hosts))
    placement = place(n, given_hosts, regions=None, timekeeper=timekeeper)
    assert_sound(placement, n, given_hosts, timekeeper)
    assert place(n, given_hosts, regions=None, timekeeper=timekeeper) == placement
    order = [number for host in given_hosts for number in placement.nodes_on(host.name)]
    assert order == list(range(n)), "contiguous, in the order of the hosts"
    exact = [n * weight / sum(weights(given_hosts)) for weight in weights(given_hosts)]
    found = counts(placement, given_hosts)
    assert [count for count, part in zip(found, exact, strict=True) if part == 0 and count] == []
    positive = [count for count, part in zip(found, exact, strict=True) if part > 0]
    if n >= len(positive):
        assert min(positive) >= 1
    if all(part >= 1 or part == 0 for part in exact):
        assert all(abs(count - part) < 1 for count, part in zip(found, exact, strict=True))


@given(regional(), hosts)
def test_regions_stay_together_as_far_as_balance_allows(
    case: tuple[int, list[str]], given_hosts: list[Capacity]
) -> None:
    n, regions = case
    assume(any(host.share for host in given_hosts))
    placement = place(n, given_hosts, regions=regions)
    assert_sound(placement, n, given_hosts)
    assert place(n, given_hosts, regions=regions) == placement
    plain = counts(place(n, given_hosts, regions=None), given_hosts)
    found = counts(placement, given_hosts)
    positive = [host.share > 0 for host in given_hosts]
    assert all(count == 0 for count, wanted in zip(found, positive, strict=True) if not wanted)
    if n >= sum(positive):
        assert all(count >= 1 for count, wanted in zip(found, positive, strict=True) if wanted)
    assert all(count <= SLACK * due for count, due in zip(found, plain, strict=True))


@pytest.mark.parametrize(("count", "expected"), [(1, [60]), (2, [30, 30]), (3, [24, 18, 18]), (10, [6] * 10)])
def test_ten_regions_of_six_nodes_are_never_split(count: int, expected: list[int]) -> None:
    regions = [f"r{node % 10}" for node in range(60)]
    given_hosts = [Capacity(f"h{number}", 8) for number in range(count)]
    placement = place(60, given_hosts, regions=regions)
    assert counts(placement, given_hosts) == expected
    for region in set(regions):
        assert len({placement.host_of[node] for node in range(60) if regions[node] == region}) == 1


def test_a_region_that_is_larger_than_a_host_is_split_evenly() -> None:
    given_hosts = [Capacity(f"h{number}", 4) for number in range(4)]
    assert counts(place(20, given_hosts, regions=["one"] * 20), given_hosts) == [5, 5, 5, 5]


@given(st.data(), sizes)
def test_explicit_lists_are_kept_and_the_rest_is_dealt(data: st.DataObject, n: int) -> None:
    order = data.draw(st.permutations(range(n)))
    first = data.draw(st.integers(1, n))
    given_hosts = [Capacity("listing", 4, nodes=tuple(order[:first])), Capacity("a", 2), Capacity("b", 2)]
    placement = place(n, given_hosts, regions=None)
    assert_sound(placement, n, given_hosts)
    assert placement.nodes_on("listing") == tuple(sorted(order[:first]))
    assert abs(len(placement.nodes_on("a")) - len(placement.nodes_on("b"))) <= 1


@given(regional(), st.data())
def test_listed_regions_are_exactly_those(case: tuple[int, list[str]], data: st.DataObject) -> None:
    n, regions = case
    listed = data.draw(st.sets(st.sampled_from(sorted(set(regions))), min_size=1))
    given_hosts = [Capacity("listing", 2, regions=tuple(sorted(listed))), Capacity("other", 2)]
    placement = place(n, given_hosts, regions=regions)
    assert_sound(placement, n, given_hosts)
    assert placement.nodes_on("listing") == tuple(node for node in range(n) if regions[node] in listed)


class TestObserverAndTimekeeper:
    def test_go_where_most_cores_are_spare(self) -> None:
        placement = place(8, [Capacity("a", 4), Capacity("b", 8, share=0.5)], regions=None)
        assert counts(placement, [Capacity("a", 4), Capacity("b", 8)]) == [4, 4]
        assert (placement.host_of[8], placement.host_of[9]) == ("b", "b")
        assert [placement.core_of[member] for member in placement.members_on("b")] == [0, 1, 2, 3, 4, 5]

    def test_where_cores_are_too_few_they_go_to_the_least_loaded_host(self) -> None:
        """Not to the one that lacks the fewest cores, which is the smallest."""
        given_hosts = [Capacity("small", 2), Capacity("large", 16)]
        placement = place(72, given_hosts, regions=None)
        assert counts(placement, given_hosts) == [8, 64]
        assert {placement.host_of[72], placement.host_of[73]} == {"large"}

    def test_of_equally_loaded_hosts_the_one_with_more_cores_to_spare(self) -> None:
        given_hosts = [Capacity("a", 4, nodes=(0,)), Capacity("b", 8, nodes=(1, 2, 3, 4))]
        placement = place(5, given_hosts, regions=None)
        assert placement.members_on("b") == (1, 2, 3, 4, 5, 6)

    def test_ties_go_to_the_first(self) -> None:
        placement = place(4, [Capacity("a", 2), Capacity("b", 2)], regions=None)
        assert {placement.host_of[4], placement.host_of[5]} == {"a"}

    def test_a_host_without_a_share_can_be_theirs(self) -> None:
        placement = place(4, [Capacity("a", 4), Capacity("b", 2, share=0)], regions=None)
        assert placement.members_on("b") == (4, 5)

    def test_no_timekeeper_under_the_wall_clock(self) -> None:
        assert list(place(2, [Capacity("a", 4)], regions=None, timekeeper=False).host_of) == [0, 1, 2]


def test_nodes_per_core() -> None:
    placement = place(12, [Capacity("a", 4), Capacity("b", None)], regions=None)
    assert (placement.nodes_per_core("a"), placement.nodes_per_core("b")) == (1.5, None)
    assert set(placement.core_of.values()) == {None}


@pytest.mark.parametrize(
    ("given_hosts", "regions", "words"),
    [
        ([Capacity("a", 1, nodes=(0, 1)), Capacity("b", 1, nodes=(3,))], None, "no host lists nodes 2, 4-5"),
        ([Capacity("a", 1, nodes=(0, 6, 9))], None, "no node 6, 9 among 6 nodes; list nodes between 0 and 5"),
        ([Capacity("a", 1, share=0), Capacity("b", 2, share=0)], None, "no host lists nodes 0-5.*share = 0"),
        ([Capacity("a", 1, regions=("x",)), Capacity("b", 1)], None, "this network has no regions"),
        ([Capacity("a", 1, regions=("eest",)), Capacity("b", 1)], ["east"] * 6, "did you mean east"),
        (
            [Capacity("a", 1, regions=("x",)), Capacity("b", 1, nodes=(0, 4))],
            ["x", "x", "y", "y", "y", "y"],
            "host a has node 0 already",
        ),
        ([Capacity("a", 1, regions=("x",))], ["x", "x", "y", "y", "y", "x"], "no host lists nodes 2-4"),
    ],
)
def test_what_does_not_fit_is_refused(
    given_hosts: list[Capacity], regions: list[str] | None, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        place(6, given_hosts, regions=regions)


@pytest.mark.parametrize(
    ("numbers", "text"), [([], ""), ([3], "3"), ([0, 1, 2, 5, 7, 8], "0-2, 5, 7-8"), ([1, 3], "1, 3")]
)
def test_ranges(numbers: list[int], text: str) -> None:
    assert ranges(numbers) == text


class TestArms:
    AWS10 = ('network={name = "aws10"}', "nodes=20")

    def hosts(self, *made: Host) -> Hosts:
        return Hosts(hosts=made, source="test", kind="ssh")

    def test_regions_are_those_of_the_emulated_network(self) -> None:
        arm = load(Path("default"), self.AWS10).arms[0]
        regions = regions_of(arm, 5)
        assert regions is not None
        assert len(set(regions)) == 10
        assert regions_of(load(Path("default")).arms[0], 5) is None
        listing = Host(name="a", regions=(regions[0], regions[1]))
        placement = place_arm(arm, 5, self.hosts(listing, Host(name="b")))
        assert placement.nodes_on("a") == tuple(
            node for node in range(20) if regions[node] in {regions[0], regions[1]}
        )

    @pytest.mark.parametrize(
        ("declared", "found", "used"), [(4, 8, 4), (8, 4, 4), (None, 4, 4), (4, None, 4)]
    )
    def test_cores_are_those_declared_and_found(
        self, declared: int | None, found: int | None, used: int
    ) -> None:
        arm = load(Path("default")).arms[0]
        cores = {} if found is None else {"a": found}
        placement = place_arm(arm, 1, self.hosts(Host(name="a", cores=declared)), cores)
        assert placement.cores == {"a": used}

    def test_no_timekeeper_under_the_wall_clock(self) -> None:
        arm = load(Path("default"), ["run.clock=wall"]).arms[0]
        assert arm.nodes + 1 not in place_arm(arm, 1, self.hosts(Host(name="a"))).host_of

    def test_all_arms_are_checked(self) -> None:
        experiment = load(Path("default"))
        listing = self.hosts(Host(name="a", nodes=(0, 1)), Host(name="b", regions=("nowhere",)))
        with pytest.raises(ConfigError) as refusal:
            check_placement(experiment.arms, experiment.seeds, listing)
        assert len(refusal.value.problems) == 1, "what all arms share is told once"
        assert re.search(r'^host "b": regions = \["nowhere"\]: .*no regions', refusal.value.problems[0])
