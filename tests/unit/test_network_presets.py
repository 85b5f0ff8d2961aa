"""Presets: rates, latencies and draws as the papers and their files have them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decentral.errors import ConfigError, DataError
from decentral.network.presets import NETWORKS, Aws10, File, Ideal, Star
from decentral.seeding import Seeds

MBPS = 1e6
MS = 1_000_000
SEEDS = Seeds(1)


def test_the_ideal_network_limits_nothing_and_takes_no_time():
    model = Ideal().build(5, SEEDS)
    assert model.unlimited
    assert model.pair_bps is None
    assert model.latency_ns.tolist() == [[0]]
    assert Ideal(latency_ms=0.25).build(5, SEEDS).latency_ns.tolist() == [[MS // 4]]


@pytest.mark.parametrize("name", ["ideal", "star", "aws10"])
def test_every_preset_passes_on_the_settings_of_links(name):
    settings = {
        "concurrency": 4,
        "contention": "both",
        "abort_on_flush": True,
        "overhead_bytes": 600,
        "overhead_ms": 0.5,
        "loss": 0.01,
        "jitter_ms": 2.0,
    }
    model = NETWORKS[name](**settings).build(4, SEEDS)
    found = (model.concurrency, model.contention, model.abort_on_flush, model.overhead_bytes)
    assert found == (4, "both", True, 600)
    assert (model.overhead_ns, model.loss, model.jitter_ns) == (MS // 2, 0.01, 2 * MS)
    assert model.seeds == SEEDS
    default = NETWORKS[name]().build(4, SEEDS)
    assert (default.concurrency, default.contention, default.abort_on_flush) == (1, "uplink", False)
    assert (default.overhead_bytes, default.overhead_ns, default.loss, default.jitter_ns) == (0, 0, 0.0, 0)
    assert NETWORKS[name](concurrency="all").build(4, SEEDS).concurrency is None


class TestStar:
    def test_without_stragglers_all_nodes_have_exactly_the_fast_rate_and_two_links_of_latency(self) -> None:
        model = Star().build(60, SEEDS)
        assert (model.uplink_bps == 60 * MBPS).all()
        assert (model.downlink_bps == 60 * MBPS).all()
        assert model.pair_bps is None
        assert model.latency_ns.tolist() == [[2 * MS]]

    def test_stragglers_are_drawn_around_the_fast_rate_over_the_factor_the_same_up_and_down(self) -> None:
        star = Star(stragglers=500, straggler_factor=4.0, sd_mbps=0.5)
        model, slow = star.build(1000, SEEDS), star.slow(1000, SEEDS)
        rates = model.uplink_bps / MBPS
        assert np.array_equal(model.uplink_bps, model.downlink_bps)
        assert slow.size == 500
        assert (np.delete(rates, slow) == 60.0).all()
        # Standard errors are 0.022 and 0.016: these bounds are five of them.
        assert abs(rates[slow].mean() - 15.0) < 0.11
        assert abs(rates[slow].std() - 0.5) < 0.08

    def test_low_draws_are_cut_at_one_megabit(self) -> None:
        rates = Star(fast_mbps=4.0, stragglers=200, straggler_factor=4.0).rates_mbps(200, SEEDS)
        assert rates.min() == 1.0
        assert 50 < (rates == 1.0).sum() < 150
        assert (Star(fast_mbps=0.5, stragglers=3).rates_mbps(6, SEEDS) == 0.5).all()

    def test_the_first_nodes_or_a_seeded_subset_are_slow(self) -> None:
        assert Star(stragglers=7, which="first").slow(60, SEEDS).tolist() == list(range(7))
        drawn = [Star(stragglers=7).slow(60, Seeds(seed)).tolist() for seed in range(4)]
        assert all(len(set(nodes)) == 7 and nodes == sorted(nodes) for nodes in drawn)
        assert len({tuple(nodes) for nodes in drawn}) == 4
        assert drawn[1] == Star(stragglers=7).slow(60, Seeds(1)).tolist()

    def test_more_stragglers_keep_the_former_ones_and_their_rates(self) -> None:
        few, many = Star(stragglers=15), Star(stragglers=30)
        kept = few.slow(60, SEEDS)
        assert set(kept) < set(many.slow(60, SEEDS))
        assert np.array_equal(few.rates_mbps(60, SEEDS)[kept], many.rates_mbps(60, SEEDS)[kept])

    def test_rates_are_a_function_of_the_seed(self) -> None:
        star = Star(stragglers=30)
        assert np.array_equal(star.rates_mbps(60, SEEDS), star.rates_mbps(60, Seeds(1)))
        assert not np.array_equal(star.rates_mbps(60, SEEDS), star.rates_mbps(60, Seeds(2)))

    def test_all_nodes_can_be_slow_but_no_more(self) -> None:
        assert Star(stragglers=4).slow(4, SEEDS).size == 4
        with pytest.raises(ConfigError, match=r"^star\(n=4, stragglers=5\): .*; use at most 4 stragglers$"):
            Star(stragglers=5).build(4, SEEDS)

    def test_without_stragglers_keeps_everything_else(self) -> None:
        star = Star(stragglers=5, fast_mbps=200.0, contention="both")
        assert star.without_stragglers() == Star(fast_mbps=200.0, contention="both")


class TestAws10:
    def test_rates_between_nodes_are_those_of_their_regions(self) -> None:
        preset = Aws10()
        model, regions = preset.build(60, SEEDS), preset.regions(60, SEEDS)
        assert Counter(regions) == dict.fromkeys(set(regions), 6)
        assert len(set(regions)) == 10
        rates = {
            (regions[i], regions[j]): model.pair_bps[i, j] / MBPS
            for i in range(60)
            for j in range(60)
            if i != j
        }
        # algorithms.md 11.3, either direction
        assert rates["capetown", "tokyo"] == rates["tokyo", "capetown"] == 26
        assert rates["stockholm", "milan"] == 405
        assert rates["bahrain", "mumbai"] == 336
        assert rates["oregon", "ohio"] == 105
        assert rates["sydney", "sydney"] == 1000
        between = [rate for (a, b), rate in rates.items() if a < b]
        assert len(between) == 45
        found = (min(between), max(between), np.median(between), round(np.mean(between), 2))
        assert found == (21, 405, 60, 75.09)
        assert np.isinf(model.uplink_bps).all()
        assert np.isinf(model.downlink_bps).all()

    def test_latencies_are_half_round_trips_or_those_of_the_file(self) -> None:
        regions = Aws10().regions(60, SEEDS)

        def latency(preset: Aws10, sender: str, receiver: str) -> int:
            j = max(k for k in range(60) if regions[k] == receiver)
            return preset.build(60, SEEDS).latency(regions.index(sender), j)

        assert latency(Aws10(), "capetown", "tokyo") == 353 * MS // 2
        assert latency(Aws10(), "tokyo", "capetown") == 358 * MS // 2
        assert latency(Aws10(), "milan", "milan") == MS
        assert latency(Aws10(intra_ms=0.5), "milan", "milan") == MS // 2
        assert latency(Aws10(latency="file"), "capetown", "tokyo") == MS
        assert latency(Aws10(latency_ms=7.0), "capetown", "tokyo") == 7 * MS

    def test_a_capped_node_shares_the_fastest_rate_of_its_region(self) -> None:
        preset = Aws10(mode="node_cap")
        model, regions = preset.build(20, SEEDS), preset.regions(20, SEEDS)
        caps = dict(zip(regions, model.uplink_bps / MBPS, strict=True))
        assert (caps["capetown"], caps["stockholm"], caps["bahrain"], caps["oregon"]) == (67, 405, 336, 109)
        assert np.array_equal(model.uplink_bps, model.downlink_bps)
        assert np.array_equal(model.pair_bps, Aws10().build(20, SEEDS).pair_bps)

    @given(n=st.integers(2, 45), seed=st.integers(0, 1000))
    def test_regions_have_equally_many_nodes_as_far_as_possible(self, n: int, seed: int) -> None:
        regions = Aws10().regions(n, Seeds(seed))
        counts = Counter(regions)
        assert len(regions) == n
        assert len(counts) == min(n, 10)
        assert max(counts.values()) - min(counts.values() if n >= 10 else [1]) <= 1

    def test_placement_follows_the_seed_and_no_region_gets_the_rest_always(self) -> None:
        assert Aws10().regions(60, SEEDS) == Aws10(mode="node_cap").regions(60, Seeds(1))
        assert Aws10().regions(60, SEEDS) != Aws10().regions(60, Seeds(2))
        assert len({place for seed in range(20) for place in Aws10().regions(2, Seeds(seed))}) == 10


class TestFile:
    @staticmethod
    def write(folder: Path, **keys: object) -> str:
        path = folder / "rates.json"
        path.write_text(json.dumps(keys), encoding="utf-8")
        return str(path)

    def test_numbers_hold_for_all(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, uplink_mbps=8, downlink_mbps=2.5, pair_mbps=4, latency_ms=3)
        model = File(path=path).build(3, SEEDS)
        assert model.uplink_bps.tolist() == [8 * MBPS] * 3
        assert model.downlink_bps.tolist() == [2.5 * MBPS] * 3
        assert (model.pair_bps == 4 * MBPS).all()
        assert model.latency_ns.tolist() == [[3 * MS]]

    def test_lists_and_matrices_are_by_sender_then_receiver(self, tmp_path: Path) -> None:
        pairs, latency = [[0, 1, 2], [3, None, 4], [5, None, 6]], [[-9, 1, 2], [3, 0, 4], [5, 6, 0]]
        path = self.write(tmp_path, uplink_mbps=[1, None, 3], pair_mbps=pairs, latency_ms=latency)
        model = File(path=path, contention="both", concurrency="all").build(3, SEEDS)
        assert model.uplink_bps.tolist() == [1 * MBPS, np.inf, 3 * MBPS]
        assert np.isinf(model.downlink_bps).all()
        assert (model.pair_bps[0, 2], model.pair_bps[2, 0]) == (2 * MBPS, 5 * MBPS)
        assert np.isinf(model.pair_bps[2, 1])
        assert (model.latency(0, 2), model.latency(2, 0)) == (2 * MS, 5 * MS)
        assert (model.contention, model.concurrency) == ("both", None)

    def test_toml_says_the_same(self, tmp_path: Path) -> None:
        (tmp_path / "rates.toml").write_text("uplink_mbps = [1, 2.5]\nlatency_ms = [[0, 1], [2, 0]]\n")
        model = File(path=str(tmp_path / "rates.toml")).build(2, SEEDS)
        assert model.uplink_bps.tolist() == [1 * MBPS, 2.5 * MBPS]
        assert model.latency_ns.tolist() == [[0, MS], [2 * MS, 0]]

    def test_a_latency_of_the_table_wins(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, latency_ms=[[0, 1], [2, 0]])
        assert File(path=path, latency_ms=9.0).build(2, SEEDS).latency_ns.tolist() == [[9 * MS]]

    def test_a_file_for_another_number_of_nodes_is_refused(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, uplink_mbps=[1, 2, 3])
        assert File(path=path).build(3, SEEDS).n == 3
        with pytest.raises(
            ConfigError, match=r"uplink_mbps has 3 entries .*; write 4 entries or use nodes = 3"
        ):
            File(path=path).build(4, SEEDS)

    def test_an_unreadable_file_is_one_of_data(self, tmp_path: Path) -> None:
        (tmp_path / "rates.json").write_bytes(b"\xff\xfe")
        for path in (tmp_path / "rates.json", tmp_path / "absent.toml"):
            with pytest.raises(DataError, match=r"^network\.path = "):
                File(path=str(path)).build(4, SEEDS)
