"""Predictions: what a run then does, to the bit as far as it was emulated, and closely beyond."""

from __future__ import annotations

import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from decentral.clock import NS_PER_S
from decentral.config import Arm, Experiment
from decentral.errors import ConfigError, Interrupted
from launch import predict as module
from launch.compose import compose
from launch.predict import Horizon, Prediction, predict
from launch.prediction_table import RATES_HEADER, TOTALS_HEADER, rates_rows, totals_rows
from launch.untrained import FATES
from tests.asynchronous import contender
from tests.harness import SilentDisplay, arm, events, run

NETWORK = {"name": "star", "settings": {"stragglers": 4, "latency_ms": 0.01}}
QUADRATIC = {"name": "quadratic", "settings": {"d": 203}, "partition": {"name": "iid"}}
SLOW: dict[str, Any] = {"network": NETWORK, "compute": {"time_per_round": 4e-4}, "data": QUADRATIC}


class Watching(SilentDisplay):
    """Remembers jobs as well."""

    def __init__(self) -> None:
        super().__init__()
        self.jobs: list[tuple[str, int]] = []
        self.closed = False

    def plan(self, jobs: Any, nodes: int, max_rounds: int) -> None:
        pass

    def job_started(self, arm: str, seed: int, nodes: int, max_rounds: int) -> None:
        self.jobs.append((arm, seed))

    def job_ended(self, arm: str, seed: int, state: str, message: str) -> None:
        pass

    def close(self) -> None:
        self.closed = True


def predicted(settings: Arm, rounds: int = 20, seeds: tuple[int, ...] = (1,)) -> list[Prediction]:
    """Predictions of one arm."""
    return predict(Experiment(name="test", seeds=seeds, arms=(settings,)), rounds, Watching())


def totals(found: Prediction) -> dict[str, tuple[float, float]]:
    """Messages and bytes by fate."""
    return {fate: (found.fates[fate].messages, found.fates[fate].bytes) for fate in FATES}


def logged(folder: Path) -> dict[str, tuple[float, float]]:
    """The same from a run's log."""
    links = [line for line in events(folder / "network.jsonl") if line["event"] == "links"]
    drops = ("dropped_flush", "dropped_abort", "dropped_loss", "dropped_end")
    return {
        fate: (
            sum(sum(line[name]) for line in links for name in names),
            sum(sum(line[f"{name}_bytes"]) for line in links for name in names),
        )
        for fate, names in {**{fate: (fate,) for fate in FATES[:3]}, "dropped": drops}.items()
    }


class TestWhole:
    def test_it_is_what_the_trained_run_does(self, tmp_path: Path) -> None:
        settings = contender("divshare", {"recipients": 3}, rounds=10, **SLOW)
        result = run(settings, tmp_path)
        found = predicted(settings)[0]
        network = events(tmp_path / "network.jsonl")
        assert found.whole
        assert found.emulated == found.rounds == (10, 10)
        assert totals(found) == logged(tmp_path)
        assert found.time_s == network[-1]["time_s"]
        assert found.per_round["made"].messages == 3 * 4
        ages = [age for node in result.column("round", "staleness") for age in node if age is not None]
        assert found.staleness == pytest.approx(sum(ages) / len(ages))
        assert 0 < found.consensus < 1
        uplinks = [line for line in network if line["event"] == "uplink"]
        slow = [line["utilisation"] for line in uplinks if line["rate_bps"] < 30e6]
        assert {name: links.nodes for name, links in found.uplinks.items()} == {"fast": 4, "slow": 4}
        assert found.uplinks["slow"].busy == pytest.approx(sum(slow) / 4)
        assert found.uplinks["slow"].arrived < 0.5 < found.uplinks["fast"].arrived <= 1

    def test_every_arm_and_seed_once(self) -> None:
        arms = (arm(name="a", **SLOW), contender("swift_push", {"recipients": 2}, **SLOW))
        display = Watching()
        found = predict(Experiment(name="test", seeds=(3, 5), arms=arms), 20, display)
        names = [("a", 3), ("a", 5), ("test", 3), ("test", 5)]
        assert [(each.arm.name, each.seed) for each in found] == display.jobs == names
        assert display.closed
        assert found[0].time_s != found[1].time_s, "stragglers are drawn by the seed"

    def test_nothing_is_written(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        predicted(arm(**SLOW))
        assert list(tmp_path.iterdir()) == []

    def test_uplinks_without_limit_are_one_class(self) -> None:
        found = predicted(arm())[0]
        assert list(found.uplinks) == ["all"]
        assert (found.uplinks["all"].arrived, found.uplinks["all"].busy) == (1.0, 0.0)

    def test_an_inherited_graph_is_ignored_by_those_that_take_none(self) -> None:
        arms = (arm(name="a"), contender("divshare", {"recipients": 2}, topology={"name": "ring"}))
        inherited = {"a": ("topology",), "test": ("topology",)}
        experiment = Experiment(name="test", arms=arms, inherited=inherited)
        assert len(predict(experiment, 5, Watching())) == 2

    def test_a_wall_clock_is_emulated(self) -> None:
        emulated, paced = arm(**SLOW), arm(**SLOW, run={"max_rounds": 5, "clock": "wall"})
        assert totals(predicted(paced)[0]) == totals(predicted(emulated)[0])

    def test_what_only_training_can_tell_is_refused(self) -> None:
        with pytest.raises(ConfigError, match=r"compute\.time_per_round"):
            predicted(arm(compute={"time_per_round": "measured"}))

    def test_a_signal_ends_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        original = module.emulate

        def emulate(*arguments: Any, **keys: Any) -> Any:
            os.kill(os.getpid(), signal.SIGINT)
            return original(*arguments, **keys)

        monkeypatch.setattr(module, "emulate", emulate)
        display = Watching()
        with pytest.raises(Interrupted):
            predict(Experiment(name="test", arms=(arm(),)), 20, display)
        assert display.closed


class TestExtrapolation:
    @pytest.mark.parametrize(
        "settings",
        [
            contender("divshare", {"recipients": 3}, rounds=60, **SLOW),
            contender("divshare", {"recipients": 3, "flush": False}, rounds=60, **SLOW),
            contender("swift_push", {"recipients": 3}, rounds=60, **SLOW),
            arm(**SLOW, run={"max_rounds": 60}),
            arm(**SLOW, run={"max_rounds": None, "time_limit_s": 0.1}),
            contender(
                "divshare", {"recipients": 3}, **SLOW, run={"max_rounds": None, "time_limit_s": 0.0241}
            ),
        ],
        ids=["flush", "no flush", "whole models", "synchronous", "synchronous, time", "time"],
    )
    def test_it_is_close_to_the_whole_run(self, settings: Arm) -> None:
        short, whole = predicted(settings, 20)[0], predicted(settings, 1000)[0]
        assert (short.whole, whole.whole) == (False, True)
        assert max(short.emulated) == 20
        assert short.time_s == pytest.approx(whole.time_s, rel=0.03)
        assert short.rounds == pytest.approx(whole.rounds, abs=1)
        for unit in ("messages", "bytes"):
            within = 0.05 * getattr(whole.fates["made"], unit)
            per_round = 0.05 * getattr(whole.per_round["made"], unit)
            for fate in FATES:
                known, near = getattr(whole.fates[fate], unit), getattr(short.fates[fate], unit)
                assert near == pytest.approx(known, abs=within)
                known, near = getattr(whole.per_round[fate], unit), getattr(short.per_round[fate], unit)
                assert near == pytest.approx(known, abs=per_round)
        for name, uplinks in whole.uplinks.items():
            assert short.uplinks[name].arrived == pytest.approx(uplinks.arrived, abs=0.02)
            assert short.uplinks[name].busy == pytest.approx(uplinks.busy, abs=0.02)

    def test_a_time_limit_that_ends_the_emulated_rounds_is_the_end(self) -> None:
        found = predicted(arm(**SLOW, run={"max_rounds": 60, "time_limit_s": 0.004}), 10)[0]
        assert found.whole
        assert found.rounds[1] < 10


class TestHorizon:
    def horizon(self, waits: bool, **limits: Any) -> Horizon:
        settings = arm(compute={"time_per_round": 0.5}, run={"max_rounds": None, **limits})
        nominal_ns = compose(settings, 1).compute.nominal_ns
        assert nominal_ns == NS_PER_S // 2
        return Horizon(settings, nominal_ns, waits)

    @pytest.mark.parametrize(
        ("limits", "cut"),
        [
            ({"max_rounds": 100}, (20, None)),
            ({"time_limit_s": 50.0}, (None, 10.0)),
            ({"max_rounds": 100, "time_limit_s": 500.0}, (20, 100.0)),
            ({"max_rounds": 1000, "time_limit_s": 50.0}, (200, 10.0)),
        ],
    )
    def test_both_limits_are_cut_alike_where_nobody_waits(
        self, limits: dict[str, Any], cut: tuple[int | None, float | None]
    ) -> None:
        short = self.horizon(False, **limits).shortened(20).run
        assert (short.max_rounds, short.time_limit_s) == cut

    @pytest.mark.parametrize("limits", [{"max_rounds": 20}, {"time_limit_s": 10.0}])
    def test_a_short_run_stays_as_it_is(self, limits: dict[str, Any]) -> None:
        horizon = self.horizon(False, **limits)
        assert horizon.shortened(20) is horizon.arm

    def test_a_time_limit_says_nothing_of_rounds_that_wait(self) -> None:
        horizon = self.horizon(True, time_limit_s=10.0)
        assert horizon.shortened(20).run.max_rounds == 20
        assert horizon.shortened(20).run.time_limit_s == 10.0
        assert horizon.more_rounds(2, 6.0, 2.0) == 2.0
        assert horizon.more_rounds(5, 11.0, 2.0) == 0.0
        assert self.horizon(True, max_rounds=7, time_limit_s=100.0).more_rounds(2, 6.0, 2.0) == 5

    def test_a_time_limit_shifts_the_end(self) -> None:
        horizon = self.horizon(False, time_limit_s=50.0)
        short = horizon.shortened(20)
        assert horizon.more_rounds(20, 10.4, 0.5) == 80
        assert horizon.end_s(short, 10.4, 80, 0.7) == pytest.approx(50.4)
        assert self.horizon(False, max_rounds=100).end_s(short, 10.0, 80, 0.7) == pytest.approx(66.0)


def test_tables() -> None:
    found = predicted(contender("divshare", {"recipients": 3}, rounds=60, **SLOW), 4)
    (total,), (rate,) = totals_rows(found), rates_rows(found)
    assert (len(total), len(rate)) == (len(TOTALS_HEADER), len(RATES_HEADER))
    assert dict(zip(TOTALS_HEADER, total, strict=True))["attempted"] == "1.17 MB in 5760"
    assert dict(zip(TOTALS_HEADER, total, strict=True))["emulated rounds"] == "the first 4"
    assert dict(zip(RATES_HEADER, rate, strict=True))["attempted"] == "2.44 kB in 12"
    assert rate[5].startswith("fast ")
    assert not any(math.isnan(amount.bytes) for amount in found[0].fates.values())
