"""Arms side by side: what counts as final, which seeds count, and when nothing may be called best."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from results.compare import (
    FINAL,
    LAST_ROUND,
    NOTHING,
    best_arms,
    comparison,
    final_scores,
    paired,
    per_seed,
    summary,
)
from results.read import Run, read_run
from results.tables import Quantity, terminal_rows
from tests.unit.synthetic_run import SyntheticArm, SyntheticRun


def written(tmp_path: Path, spec: SyntheticRun) -> Run:
    return read_run(spec.write(tmp_path / "run"))


def test_arms_are_means_over_seeds_with_scipys_interval(tmp_path: Path) -> None:
    run = written(tmp_path, SyntheticRun())
    seeds = per_seed(run)
    values = seeds.loc[seeds["arm"] == "mosaic", "node_avg"].to_numpy()
    row = comparison(run).iloc[0]
    _, high = stats.t.interval(0.95, 2, loc=values.mean(), scale=stats.sem(values))
    assert row["node_avg"] == pytest.approx(values.mean())
    assert row["node_avg_ci"] == pytest.approx(high - values.mean())
    assert (row["n"], row["counted"], row["seeds"], row["complete"]) == (3, "1, 2, 3", 3, True)
    assert (row["basis"], row["rounds"], row["wall_s"]) == (FINAL, 20, 12.5)
    assert row["bytes_per_node"] == 40_000_000
    assert best_arms(run, comparison(run)) == dict.fromkeys(
        ("node_avg", "avg_model", "best", "worst"), "mosaic"
    )


def test_lower_is_better_names_the_lowest(tmp_path: Path) -> None:
    run = written(tmp_path, SyntheticRun(metric="rmse", higher_is_better=False))
    assert set(best_arms(run, comparison(run)).values()) == {"el"}


def test_of_equal_arms_none_is_best(tmp_path: Path) -> None:
    run = written(tmp_path, SyntheticRun(arms=(SyntheticArm(name="a"), SyntheticArm(name="b"))))
    assert best_arms(run, comparison(run)) == {}


def test_one_seed_has_no_interval(tmp_path: Path) -> None:
    run = written(tmp_path, SyntheticRun(seeds=(4,)))
    assert comparison(run)["node_avg_ci"].isna().all()
    assert paired(run)["ci"].isna().all()
    assert paired(run)["separated"].tolist() == [None] * 3
    _, rows = terminal_rows(run)
    assert "±" not in "".join(rows[0])


def test_seeds_with_a_final_evaluation_are_not_mixed_with_others(tmp_path: Path) -> None:
    run = written(tmp_path, SyntheticRun(stop={("el", 3): 12}, state="failed"))
    el = comparison(run).set_index("arm").loc["el"]
    assert (el["basis"], el["n"], el["counted"], el["seeds"], el["complete"]) == (FINAL, 2, "1, 2", 3, False)
    seeds = per_seed(run).set_index(["arm", "seed"])
    assert seeds.loc[("el", 3), ["basis", "round"]].tolist() == [LAST_ROUND, 10]
    assert best_arms(run, comparison(run)) == {}
    assert set(paired(run)["n"]) == {2}


def test_without_any_final_evaluation_the_last_common_round_counts(tmp_path: Path) -> None:
    stop = {("el", 1): 12, ("el", 2): 7, ("el", 3): 19}
    run = written(tmp_path, SyntheticRun(stop=stop, state="interrupted"))
    el = comparison(run).set_index("arm").loc["el"]
    assert (el["basis"], el["round"], el["n"]) == (LAST_ROUND, 5, 3)
    arm = SyntheticArm(name="el", level=0.65)
    expected = np.mean([arm.score(node, 4, 5, seed) or 0.0 for node in range(4) for seed in (1, 2, 3)])
    assert el["node_avg"] == pytest.approx(expected)
    assert el["bytes_per_node"] == 10_000_000
    assert np.isnan(el["wall_s"])
    assert paired(run).empty
    assert len(final_scores(run)) == 2 * 3 * 4
    _, rows = terminal_rows(run)
    assert rows[1][-1] == "no; round 5, not the end"


def test_arms_stopped_at_the_same_round_are_comparable(tmp_path: Path) -> None:
    stop = {(arm, seed): 8 for arm in ("mosaic", "el") for seed in (1, 2, 3)}
    run = written(tmp_path, SyntheticRun(stop=stop, state="interrupted"))
    assert set(best_arms(run, comparison(run)).values()) == {"mosaic"}
    assert set(paired(run)["n"]) == {3}


def test_costs_are_known_without_evaluations(tmp_path: Path) -> None:
    run = written(tmp_path, SyntheticRun(evaluations=False))
    table = comparison(run)
    assert table["basis"].tolist() == [NOTHING, NOTHING]
    assert table["node_avg"].isna().all()
    assert table["bytes_per_node"].tolist() == [40_000_000, 40_000_000]
    assert paired(run).empty
    assert final_scores(run).empty


def test_a_run_in_which_nothing_started_has_rows_all_the_same(tmp_path: Path) -> None:
    absent = tuple((arm, seed) for arm in ("mosaic", "el") for seed in (1, 2, 3))
    run = written(tmp_path, SyntheticRun(absent=absent, state="failed"))
    assert comparison(run)["n"].tolist() == [0, 0]
    assert len(summary(run)) == 8
    assert len(terminal_rows(run)[1]) == 2


def test_summary_has_seeds_then_arms(tmp_path: Path) -> None:
    table = summary(written(tmp_path, SyntheticRun()))
    assert table["row"].tolist() == ["seed"] * 6 + ["arm"] * 2
    assert table["arm"].tolist() == ["mosaic"] * 3 + ["el"] * 3 + ["mosaic", "el"]
    assert table.loc[table["row"] == "arm", "n"].tolist() == [3, 3]
    assert "node_avg_ci" in table


def test_paired_differences_use_the_seeds_both_arms_share(tmp_path: Path) -> None:
    arms = (SyntheticArm(name="a", seed_shift=0.05), SyntheticArm(name="b", level=0.6, seed_shift=0.052))
    run = written(tmp_path, SyntheticRun(arms=arms))
    seeds = per_seed(run).pivot_table(index="seed", columns="arm", values="node_avg", observed=True)
    expected = stats.ttest_rel(seeds["a"], seeds["b"]).confidence_interval(0.95)
    row = paired(run).set_index("statistic").loc["node_avg"]
    assert row["difference"] - row["ci"] == pytest.approx(expected.low)
    assert row["difference"] + row["ci"] == pytest.approx(expected.high)
    assert row["separated"]
    # Unpaired the arms overlap: what seeds have in common is what pairing takes out.
    table = comparison(run).set_index("arm")
    assert table.loc["a", "node_avg"] - table.loc["a", "node_avg_ci"] < table.loc["b", "node_avg"]


def test_differences_by_rounding_alone_separate_nothing(tmp_path: Path) -> None:
    run = written(tmp_path, SyntheticRun(arms=(SyntheticArm(name="a"), SyntheticArm(name="b", level=0.6))))
    row = paired(run).set_index("statistic").loc["node_std"]
    assert (row["difference"], row["separated"]) == (0.0, False)


def test_asynchronous_nodes_end_at_rounds_of_their_own(tmp_path: Path) -> None:
    run = written(tmp_path, SyntheticRun(seeds=(1,)))
    frame = run.evaluations
    shifted = frame.assign(round=frame["round"].mask(frame["final"], frame["round"] + frame["node"]))
    run = replace(run, evaluations=shifted)
    row = comparison(run).iloc[0]
    assert (row["basis"], row["round"]) == (FINAL, 23)
    assert row["node_avg"] == pytest.approx(0.7 * (1 - np.exp(-3)))


@pytest.mark.parametrize(
    ("mean", "half", "text"),
    [
        (0.6751, 0.0248, "67.51 ± 2.48"),
        (0.6751, np.nan, "67.51"),
        (0.6751, 1e-9, "67.51 ± <0.01"),
        (0.6751, 0.0, "67.51 ± 0.00"),
        (np.nan, np.nan, "\u2013"),
        (-1e-18, np.nan, "0.00"),
        (-0.05, np.nan, "\u22125.00"),
        (123.456, np.nan, "12\u202f345.60"),
    ],
)
def test_numbers_are_shown_without_claiming_too_much(mean: float, half: float, text: str) -> None:
    assert Quantity("score (%)", 100.0, 2).interval(mean, half) == text


def test_terminal_rows_match_their_headings_and_mark_the_best(tmp_path: Path) -> None:
    arms = (SyntheticArm(name="good"), SyntheticArm(name="lost", diverged=(1,)))
    headings, rows = terminal_rows(written(tmp_path, SyntheticRun(arms=arms)))
    assert all(len(row) == len(headings) for row in rows)
    assert rows[0][headings.index("node_avg (%)")] == "67.51 ± 2.48 *"
    assert rows[1][-1] == "yes; 3 of 12 nodes diverged"
    assert pd.Series(headings).is_unique
