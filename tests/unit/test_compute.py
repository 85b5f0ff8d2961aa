"""The compute model, and computing that lasts as long as communicating."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decentral.errors import ConfigError
from decentral.network.compute import (
    ComputeModel,
    fast_rate_bps,
    match_calibrated_ns,
    match_nominal_ns,
    slow_factors,
)
from decentral.network.presets import Aws10, Ideal, Star
from decentral.seeding import Seeds

SEEDS = Seeds(1)
GN_LENET = 89_834
MF = 206_680
MS = 1_000_000


def model(
    nominal_ns: int = 10**9, jitter: float = 0.0, factors: tuple[float, ...] = (1.0, 5.0)
) -> ComputeModel:
    return ComputeModel(nominal_ns=nominal_ns, factors=np.array(factors), jitter=jitter, seeds=SEEDS)


class TestDurations:
    def test_without_jitter_they_are_nominal_times_the_nodes_factor(self) -> None:
        assert {model().duration_ns(0, t) for t in range(5)} == {10**9}
        assert {model().duration_ns(1, t) for t in range(5)} == {5 * 10**9}
        assert (model().nominal_of_ns(0), model().nominal_of_ns(1)) == (10**9, 5 * 10**9)

    def test_they_last_at_least_a_nanosecond(self) -> None:
        assert model(nominal_ns=0).duration_ns(0, 0) == model(nominal_ns=0).nominal_of_ns(0) == 1

    def test_jitter_is_uniform_around_the_nominal_time(self) -> None:
        jittered = model(jitter=0.2)
        durations = np.array([jittered.duration_ns(0, t) for t in range(2000)]) / 1e9
        assert 0.8 <= durations.min() < 0.81
        assert 1.19 < durations.max() <= 1.2
        assert abs(durations.mean() - 1) < 0.013  # five standard errors
        assert jittered.nominal_of_ns(1) == 5 * 10**9

    @given(node=st.integers(0, 1), t=st.integers(0, 10**6))
    def test_they_are_a_pure_function_of_seed_node_and_round(self, node: int, t: int) -> None:
        jittered = model(jitter=0.5)
        assert jittered.duration_ns(node, t) == model(jitter=0.5).duration_ns(node, t)
        assert type(jittered.duration_ns(node, t)) is int

    def test_nodes_rounds_and_seeds_differ(self) -> None:
        jittered = model(jitter=0.5, factors=(1.0, 1.0))
        other = ComputeModel(nominal_ns=10**9, factors=np.ones(2), jitter=0.5, seeds=Seeds(2))
        found = {jittered.duration_ns(0, 0), jittered.duration_ns(1, 0), jittered.duration_ns(0, 1)}
        assert len(found | {other.duration_ns(0, 0)}) == 4


class TestSlowNodes:
    def test_as_many_as_asked_for_have_the_factor(self) -> None:
        assert slow_factors(4, SEEDS, count=2, factor=3.0, which="first").tolist() == [3, 3, 1, 1]
        drawn = slow_factors(60, SEEDS, count=15, factor=3.0, which="random")
        assert sorted(drawn) == [1.0] * 45 + [3.0] * 15
        assert (slow_factors(4, SEEDS, count=0, factor=3.0, which="random") == 1).all()
        assert (slow_factors(4, SEEDS, count=4, factor=3.0, which="random") == 3).all()

    def test_a_subset_follows_the_seed_and_grows_by_adding(self) -> None:
        def slow(count: int, seed: int) -> set[int]:
            factors = slow_factors(60, Seeds(seed), count=count, factor=2.0, which="random")
            return set(np.flatnonzero(factors == 2))

        assert slow(7, 1) < slow(15, 1)
        assert slow(15, 1) == slow(15, 1) != slow(15, 2)

    def test_it_is_drawn_apart_from_the_networks_stragglers(self) -> None:
        slow = np.flatnonzero(slow_factors(60, SEEDS, count=30, factor=2.0, which="random") == 2)
        assert set(slow) != set(Star(stragglers=30).slow(60, SEEDS))

    def test_more_than_nodes_are_refused(self) -> None:
        with pytest.raises(ConfigError, match=r"^compute\.slow_nodes = 5: .* 4 nodes; use at most 4"):
            slow_factors(4, SEEDS, count=5, factor=2.0, which="first")


class TestFastRate:
    def test_it_is_that_of_the_fast_uplink(self) -> None:
        assert fast_rate_bps(Star().build(8, SEEDS)) == pytest.approx(60e6)
        assert fast_rate_bps(Star(stragglers=7).build(8, SEEDS)) == pytest.approx(60e6)
        assert fast_rate_bps(Ideal().build(8, SEEDS)) == float("inf")

    def test_with_rates_of_pairs_it_is_the_best_harmonic_mean(self) -> None:
        network = Aws10().build(10, SEEDS)
        assert network.pair_bps is not None
        off = ~np.eye(10, dtype=bool)
        means = [9 / (1 / network.pair_bps[i][off[i]]).sum() for i in range(10)]
        assert fast_rate_bps(network) == pytest.approx(max(means))
        regions = Aws10().regions(10, SEEDS)
        assert regions[int(np.argmax(means))] in {"milan", "bahrain", "stockholm"}


class TestNominal:
    @pytest.mark.parametrize(
        ("mbps", "parameters", "seconds"), [(60.0, GN_LENET, 0.2875), (200.0, MF, 0.1984)]
    )
    def test_it_is_the_papers_normalization(self, mbps: float, parameters: int, seconds: float) -> None:
        """Seconds of algorithms.md 10.1: J = 6 models over the fast uplink."""
        network = Star(fast_mbps=mbps).build(60, SEEDS)
        assert match_nominal_ns(network, volume=6, parameters=parameters) / 1e9 == pytest.approx(
            seconds, abs=5e-5
        )

    def test_it_is_proportional_to_the_volume(self) -> None:
        network = Star().build(8, SEEDS)
        assert match_nominal_ns(network, volume=1.5, parameters=10**6) == 800 * MS


class TestCalibrated:
    def test_with_uplinks_alone_it_is_the_nominal_time_and_the_latency(self) -> None:
        """All senders finish together, so 99 % of the messages are there in the last message's time."""
        network = Star(fast_mbps=64.0, latency_ms=10.0).build(8, SEEDS)  # whole nanoseconds a message
        given = {"volume": 3, "parameters": 1000}
        found = match_calibrated_ns(network, **given, fragments=4, seeds=SEEDS)
        assert found == match_nominal_ns(network, **given) + 20 * MS

    def test_the_last_hundredth_is_not_waited_for(self) -> None:
        """200 nodes with one message each; 2 of them, a hundredth, have a link that is 40 times slower."""
        network = Star(stragglers=2, straggler_factor=40.0, sd_mbps=0.0, latency_ms=0.0).build(200, SEEDS)
        given = {"parameters": 15_000, "fragments": 1, "seeds": SEEDS}
        assert match_calibrated_ns(network, volume=1, **given) == 8 * MS
        network = Star(stragglers=3, straggler_factor=40.0, sd_mbps=0.0, latency_ms=0.0).build(200, SEEDS)
        assert match_calibrated_ns(network, volume=1, **given) == 40 * 8 * MS

    def test_shared_downlinks_take_longer_and_concurrency_helps(self) -> None:
        def seconds(concurrency: int, contention: str) -> float:
            star = Star(concurrency=concurrency, contention=contention, latency_ms=0.0)  # type: ignore[arg-type]
            given = {"volume": 6, "parameters": GN_LENET, "fragments": 10}
            return match_calibrated_ns(star.build(16, SEEDS), **given, seeds=SEEDS) / 1e9

        uplink, one, eight = seconds(1, "uplink"), seconds(1, "both"), seconds(8, "both")
        assert uplink == pytest.approx(0.2875, abs=1e-4)
        assert uplink < eight < one

    def test_messages_that_would_be_lost_count(self) -> None:
        sound, lossy = Star().build(8, SEEDS), Star(loss=0.5).build(8, SEEDS)
        given = {"volume": 3, "parameters": 1000, "fragments": 4, "seeds": SEEDS}
        assert match_calibrated_ns(lossy, **given) == match_calibrated_ns(sound, **given)

    def test_fractions_of_models_and_more_models_than_others_are_fine(self) -> None:
        network = Star(latency_ms=0.0).build(4, SEEDS)
        given = {"parameters": 15_000, "seeds": SEEDS}
        assert match_calibrated_ns(network, volume=0.5, **given, fragments=2) == 4 * MS
        assert match_calibrated_ns(network, volume=1.5, **given, fragments=2) == 12 * MS
        assert match_calibrated_ns(network, volume=7, **given, fragments=1) == 56 * MS

    def test_it_is_a_function_of_the_seed(self) -> None:
        network = Star(contention="both").build(12, SEEDS)
        given = {"volume": 3, "parameters": 1000, "fragments": 4}
        found = [match_calibrated_ns(network, **given, seeds=Seeds(seed)) for seed in (1, 1, 2)]
        assert found[0] == found[1] != found[2]
