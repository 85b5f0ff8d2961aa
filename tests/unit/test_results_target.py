"""Time to target: exact on known curves, ``never`` a value, and a default that no arm's speed enters."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from results.compare import comparison, per_seed, summary
from results.delivery_tables import target_table
from results.grid import on_grid
from results.metrics import t_interval
from results.read import Run, read_run
from results.tables import terminal_rows, time_to_target_of
from results.target import target_of, target_over_seeds, time_to_target
from tests.unit.synthetic_run import SyntheticArm, SyntheticRun
from tests.unit.test_results_grid import evaluations, with_evaluations


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return read_run(SyntheticRun(target=0.64).write(tmp_path_factory.mktemp("target") / "run"))


# Without a deadline: a slow machine is no failure.
@settings(deadline=None, max_examples=15)
@given(
    pairs=st.lists(
        st.lists(st.tuples(st.integers(0, 20), st.integers(0, 10)), min_size=1), min_size=1, max_size=4
    )
)
def test_it_agrees_with_the_grid_of_all_events(run: Run, pairs: list[list[tuple[int, int]]]) -> None:
    by_node = {
        node: [(float(time), score / 10) for time, score in dict(sorted(values)).items()]
        for node, values in enumerate(pairs)
    }
    frame = evaluations(by_node)
    few = with_evaluations(run, frame, len(by_node))
    few = replace(few, jobs=tuple(replace(job, ended=job.nodes) for job in few.jobs))
    table = on_grid(few, np.unique(frame["time_s"].to_numpy()))
    for target in (0.0, 0.35, 0.5, 2.0):
        reached = table.loc[table["node_avg"] >= target - 1e-9, "time_s"]
        expected = reached.min() if len(reached) else math.inf
        assert time_to_target(few, target)["time_s"].tolist() == [expected]


def test_ragged_evaluations_and_ties(run: Run) -> None:
    # The mean is 0 from 1 s, 0.5 from 2 s and 1.5 from 3 s.
    two = with_evaluations(run, evaluations({0: [(0, 0.0), (2, 1.0)], 1: [(1, 0.0), (3, 2.0)]}), 2)
    reached = [time_to_target(two, target)["time_s"].item() for target in (0.0, 0.5, 0.5 + 1e-6, 1.5)]
    assert reached == [1.0, 2.0, 3.0, 3.0]
    # Both nodes are evaluated at once: no mean over one new and one old score is read in between.
    tied = with_evaluations(run, evaluations({0: [(0, 0.0), (2, 4.0)], 1: [(0, 0.0), (2, -4.0)]}), 2)
    tied = replace(tied, jobs=tuple(replace(job, ended=2) for job in tied.jobs))
    assert time_to_target(tied, 1.0)["time_s"].tolist() == [math.inf]


def test_lower_can_be_better(run: Run) -> None:
    falling = with_evaluations(run, evaluations({0: [(0, 2.0), (3, 1.2), (5, 1.0)]}), 1)
    falling = replace(falling, metric=replace(run.metric, name="rmse", higher_is_better=False))
    assert time_to_target(falling, 1.25)["time_s"].tolist() == [3.0]


def test_never_is_a_value_and_is_counted(run: Run) -> None:
    times = time_to_target(run, 0.64)
    assert times["time_s"].tolist() == [5.0, 5.0, 3.75, math.inf, math.inf, math.inf]
    table = target_over_seeds(times).set_index("arm")
    assert table.loc["el", ["reached", "never", "unfinished"]].tolist() == [0, 3, 0]
    assert math.isinf(float(table.loc["el", "time_s"]))
    assert table.loc["mosaic", ["reached", "never"]].tolist() == [3, 0]
    assert math.isnan(float(table.loc["el", "time_s_ci"]))
    expected = t_interval([5.0, 5.0, 3.75])
    assert table.loc["mosaic", "time_s"] == pytest.approx(expected.mean)
    assert table.loc["mosaic", "time_s_ci"] == pytest.approx(expected.half)
    assert table.loc["el", "speedup_n"] == 0


def test_the_speed_up_is_paired_by_seed() -> None:
    arms = pd.Categorical(["a"] * 3 + ["b"] * 3, ["a", "b"], ordered=True)
    seconds = [10.0, 20.0, math.inf, 5.0, 4.0, 1.0]
    times = pd.DataFrame({"arm": arms, "seed": [1, 2, 3] * 2, "time_s": seconds})
    table = target_over_seeds(times).set_index("arm")
    expected = t_interval([2.0, 5.0])
    assert table.loc["b", "speedup"] == pytest.approx(3.5)
    assert table.loc["b", "speedup_ci"] == pytest.approx(expected.half)
    assert table.loc["b", "speedup_n"] == 2
    assert table.loc["a", ["speedup", "speedup_n"]].tolist() == [1.0, 2]
    only_second = target_over_seeds(times[times["arm"] == "b"])
    assert math.isnan(only_second["speedup"].item())


def test_what_was_cut_short_is_not_called_never(tmp_path: Path) -> None:
    spec = SyntheticRun(stop={("mosaic", 1): 12, ("mosaic", 3): 16}, state="failed", target=0.64)
    run = read_run(spec.write(tmp_path / "run"))
    times = time_to_target(run, 0.64)
    np.testing.assert_array_equal(times["time_s"].iloc[:3], [np.nan, 5.0, 3.75])
    row = target_over_seeds(times).iloc[0]
    assert (row["n"], row["reached"], row["never"], row["unfinished"]) == (2, 2, 0, 1)


def test_a_target_needs_a_direction(run: Run) -> None:
    unknown = replace(run, metric=replace(run.metric, higher_is_better=None))
    with pytest.raises(ValueError, match="higher_is_better"):
        time_to_target(unknown, 0.5)
    assert target_of(unknown) is None


def test_the_experiments_target_comes_first(run: Run) -> None:
    found = target_of(run)
    assert found is not None
    assert (found.value, found.origin) == (0.64, "The experiment names this target.")


@pytest.mark.parametrize("named", [None, "soon", True, [0.6], 10**400])
def test_the_default_is_ninety_percent_of_the_best_arms_way(tmp_path: Path, named: object) -> None:
    run = read_run(SyntheticRun(seeds=(1,)).write(tmp_path / "run"))
    run = replace(run, resolved={**run.resolved, "target": named})
    found = target_of(run)
    assert found is not None
    # From 0 (the mean of the nodes' offsets) to 0.7 * (1 - exp(-3)), in three digits.
    assert found.value == float(f"{0.9 * 0.7 * (1 - math.exp(-3)):.3g}")
    assert "90 %" in found.origin
    # Neither the order of the arms nor their speed enters.
    swapped = replace(run, jobs=run.jobs[::-1])
    faster = replace(run, evaluations=run.evaluations.assign(time_s=run.evaluations["time_s"] / 7))
    assert target_of(swapped) == target_of(faster) == found


def test_without_improvement_or_initial_score_there_is_no_default(tmp_path: Path) -> None:
    arms = (SyntheticArm(name="a", level=-0.2),)
    run = read_run(SyntheticRun(arms=arms, seeds=(1,)).write(tmp_path / "run"))
    assert target_of(run) is None
    later = run.evaluations[run.evaluations["round"] > 0]
    assert target_of(replace(run, evaluations=later)) is None


def test_tables_and_summary_say_never(run: Run) -> None:
    seeds = per_seed(run).set_index(["arm", "seed"])["time_to_target"]
    assert seeds.tolist() == [5.0, 5.0, 3.75, math.inf, math.inf, math.inf]
    arms = comparison(run).set_index("arm")
    assert arms.loc["el", ["target", "reached", "never"]].tolist() == [0.64, 0, 3]
    table = summary(run)
    assert table.loc[table["row"] == "arm", "time_to_target"].tolist() == [pytest.approx(13.75 / 3), math.inf]
    headings, rows = terminal_rows(run)
    place = headings.index("to 64 % (s)")
    assert [row[place] for row in rows] == ["4.6 ± 1.8", "never"]
    shown, origin = target_table(run)
    assert shown is not None
    assert [cell.text for cell in shown.rows[1][:3]] == ["el", "never", "0 of 3"]
    assert shown.rows[1][-1].text == "1: never; 2: never; 3: never"
    assert origin == "The experiment names this target."


@pytest.mark.parametrize(
    ("reached", "never", "text"),
    [(3, 0, "12.0 ± 1.5"), (2, 1, "never in 1 of 3"), (0, 3, "never"), (0, 0, "\u2013")],
)
def test_time_to_target_in_words(reached: int, never: int, text: str) -> None:
    values = {"reached": reached, "never": never, "time_to_target": 12.0, "time_to_target_ci": 1.5}
    assert time_to_target_of(pd.Series(values)) == text
