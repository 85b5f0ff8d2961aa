"""Statistics against closed forms and against scipy."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from results.metrics import (
    across_seeds,
    by_round,
    curve_rows,
    final_rows,
    t_interval,
    traffic,
    training_loss,
)
from results.read import Run, read_run
from tests.unit.synthetic_run import SyntheticArm, SyntheticRun

FINITE = st.floats(-1e6, 1e6)
MOSAIC = SyntheticArm(name="mosaic")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return read_run(SyntheticRun().write(tmp_path_factory.mktemp("metrics") / "run"))


@settings(deadline=None)
@given(st.lists(FINITE, min_size=2, max_size=20))
def test_the_interval_is_scipys(values: list[float]) -> None:
    interval = t_interval(values)
    error = stats.sem(values)
    assert interval.n == len(values)
    assert interval.mean == pytest.approx(np.mean(values))
    assert interval.bounds is not None
    if error > 0:
        low, high = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=error)
        assert interval.bounds == pytest.approx((low, high))


def test_one_value_has_no_interval_rather_than_a_narrow_one() -> None:
    assert t_interval([0.5]).half is None
    assert t_interval([0.5]).bounds is None
    assert t_interval([]).half is None
    assert t_interval([0.5, math.nan]).half is None
    assert t_interval([0.5, 0.5]).half == 0.0


def test_across_seeds_agrees_with_the_interval_of_each_group() -> None:
    frame = pd.DataFrame({"arm": ["a"] * 3 + ["b"], "seed": [1, 2, 3, 1], "v": [1.0, 2.0, 4.0, 5.0]})
    table = across_seeds(frame, ["arm"], ["v"])
    expected = t_interval([1.0, 2.0, 4.0])
    assert table["n"].tolist() == [3, 1]
    assert table["v"].tolist() == pytest.approx([7 / 3, 5.0])
    assert table["v_ci"].iloc[0] == pytest.approx(expected.half)
    assert np.isnan(table["v_ci"].iloc[1])


def test_nan_of_one_seed_is_not_averaged_away() -> None:
    frame = pd.DataFrame({"arm": ["a"] * 2, "seed": [1, 2], "v": [1.0, math.nan]})
    assert across_seeds(frame, ["arm"], ["v"])[["v", "v_ci"]].isna().all(axis=None)


def test_statistics_over_nodes_are_the_closed_forms(run: Run) -> None:
    table = by_round(run)
    row = table[(table["arm"] == "mosaic") & (table["seed"] == 2) & (table["round"] == 10)].iloc[0]
    scores = [MOSAIC.score(node, 4, 10, 2) for node in range(4)]
    assert row["node_avg"] == pytest.approx(0.7 * (1 - math.exp(-1.5)) + 0.01)
    assert row["node_std"] == pytest.approx(np.std([s for s in scores if s is not None], ddof=0))
    assert (row["best"], row["worst"]) == pytest.approx(
        (max(filter(None, scores)), min(filter(None, scores)))
    )
    assert row["avg_model"] == pytest.approx(row["node_avg"] + 0.02)
    assert row["consensus"] == pytest.approx(3 * math.exp(-1) + 0.2)
    assert row["total_bytes"] == 20_000_000
    assert (row["nodes"], row["complete"], row["nonfinite"]) == (4, True, 0)


def test_lower_is_better_swaps_best_and_worst(tmp_path: Path) -> None:
    spec = SyntheticRun(metric="rmse", higher_is_better=False, seeds=(1,))
    table = by_round(read_run(spec.write(tmp_path / "run")))
    assert (table["best"] < table["worst"]).all()


def test_a_round_that_a_node_lacks_is_not_averaged_but_counted(tmp_path: Path) -> None:
    folder = SyntheticRun(seeds=(1,)).write(tmp_path / "run")
    log = folder / "arm-0" / "seed-1" / "nodes" / "002.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join(line for line in lines if '"evaluation"' not in line or '"round":5,' in line))
    table = by_round(read_run(folder))
    mosaic = table[table["arm"] == "mosaic"].set_index("round")
    assert mosaic.loc[5, "complete"]
    assert not mosaic.loc[10, "complete"]
    assert (mosaic.loc[10, "nodes"], mosaic.loc[10, "expected"]) == (3, 4)
    assert np.isnan(mosaic.loc[10, "node_avg"])


def test_a_diverged_node_is_not_left_out_of_the_mean(tmp_path: Path) -> None:
    arms = (SyntheticArm(name="a", diverged=(2,)),)
    table = by_round(read_run(SyntheticRun(arms=arms, seeds=(1,)).write(tmp_path / "run")))
    assert table["nonfinite"].tolist() == [1] * 5
    assert table[["node_avg", "node_std", "worst", "avg_model"]].isna().all(axis=None)
    assert table["best"].notna().all()
    assert table["consensus"].notna().all()


def test_an_average_over_fewer_models_than_nodes_is_no_avg_model(tmp_path: Path) -> None:
    folder = SyntheticRun(seeds=(1,)).write(tmp_path / "run")
    log = folder / "arm-0" / "seed-1" / "metrics.jsonl"
    log.write_text(log.read_text().replace('"models":4', '"models":3'))
    table = by_round(read_run(folder)).set_index("arm")
    assert table.loc["mosaic", ["avg_model", "consensus"]].isna().all(axis=None)
    assert (table.loc["mosaic", "models"] == 3).all()
    assert table.loc["el", ["avg_model", "consensus"]].notna().all(axis=None)


def test_curves_keep_the_subset_and_finals_the_whole_split(run: Run) -> None:
    assert set(curve_rows(run.evaluations)["samples"]) == {500}
    finals = final_rows(run.evaluations)
    assert set(finals["samples"]) == {10000}
    assert len(finals) == 2 * 3 * 4


def test_traffic_is_the_last_counters_of_all_nodes(tmp_path: Path) -> None:
    spec = SyntheticRun(seeds=(1,), stop={("el", 1): 7}, state="failed")
    table = traffic(read_run(spec.write(tmp_path / "run"))).set_index("arm")
    assert table.loc["mosaic", "total_bytes"] == 4 * 20 * 2_000_000
    assert table.loc["el", "total_bytes"] == 4 * 7 * 2_000_000
    assert table.loc["el", "made"] == 4 * 42
    assert table.loc["el", "sent"] + table.loc["el", "dropped"] == table.loc["el", "made"]


def test_training_loss_needs_all_nodes(run: Run) -> None:
    table = training_loss(run)
    row = table[(table["arm"] == "el") & (table["seed"] == 1) & (table["round"] == 20)].iloc[0]
    assert row["train_loss"] == pytest.approx(2.3 * math.exp(-1))
