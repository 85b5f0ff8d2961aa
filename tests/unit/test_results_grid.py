"""Curves over time: one grid for all arms, each node with its last value at or before a point."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from results.grid import by_time, grid_of, on_grid, traffic_on_grid
from results.metrics import by_round
from results.read import Run, read_run
from tests.unit.synthetic_run import SyntheticArm, SyntheticRun


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return read_run(SyntheticRun().write(tmp_path_factory.mktemp("grid") / "run"))


def evaluations(times: dict[int, list[tuple[float, float]]]) -> pd.DataFrame:
    """Rows of one job: (time, score) pairs by node."""
    rows = [
        {"node": node, "round": k, "time_s": time, "score": score, "total_bytes": 10 * time}
        for node, pairs in times.items()
        for k, (time, score) in enumerate(pairs)
    ]
    frame = pd.DataFrame(rows).assign(seed=1, split="test", final=False, samples=1.0, test_loss=0.0)
    return frame.assign(arm=pd.Categorical(["mosaic"] * len(rows), ["mosaic", "el"], ordered=True))


def with_evaluations(run: Run, frame: pd.DataFrame, nodes: int) -> Run:
    jobs = tuple(replace(job, nodes=nodes) for job in run.jobs)
    return replace(run, evaluations=frame, jobs=jobs, averages=run.averages.iloc[:0])


def test_in_step_the_grid_is_the_evaluations(run: Run) -> None:
    grid = grid_of(run)
    np.testing.assert_allclose(grid, [0.0, 1.25, 2.5, 3.75, 5.0])
    table = on_grid(run, grid, arms=["mosaic"])
    rounds = by_round(run)
    np.testing.assert_allclose(table["node_avg"], rounds.loc[rounds["arm"] == "mosaic", "node_avg"])
    assert table["fresh"].all()


def test_arms_of_other_speed_share_one_grid(tmp_path: Path) -> None:
    arms = (SyntheticArm(name="fast"), SyntheticArm(name="slow", period_s=0.4))
    run = read_run(SyntheticRun(arms=arms, seeds=(1,)).write(tmp_path / "run"))
    grid = grid_of(run)
    np.testing.assert_allclose(grid, [0.0, 1.25, 2.0, 2.5, 3.75, 4.0, 5.0, 6.0, 8.0])
    table = by_time(run).set_index(["arm", "time_s"])
    slow = table.loc["slow"]
    assert list(slow.index) == list(grid)
    # At 3.75 s the slow arm counts with its evaluation at 2 s.
    assert slow.loc[3.75, "node_avg"] == slow.loc[2.0, "node_avg"] != slow.loc[4.0, "node_avg"]
    assert slow.index[slow["fresh"]].tolist() == [0.0, 2.0, 4.0, 6.0, 8.0]
    assert slow.index[slow["fresh_average"]].tolist() == [0.0, 2.0, 4.0, 6.0, 8.0]
    # The fast arm ended at 5 s and is not prolonged.
    assert list(table.loc["fast"].index) == [0.0, 1.25, 2.0, 2.5, 3.75, 4.0, 5.0]
    np.testing.assert_allclose(grid_of(run, ["fast"]), [0.0, 1.25, 2.5, 3.75, 5.0])


def test_nodes_out_of_step_get_even_points_and_the_observers(tmp_path: Path) -> None:
    arms = (SyntheticArm(name="a", asynchronous=True, stagger=0.2),)
    run = read_run(SyntheticRun(arms=arms, seeds=(1,)).write(tmp_path / "run"))
    grid = grid_of(run)
    # Node 3 ends at 20 rounds of 0.4 s; 2 * 5 even points, and the observer's five.
    expected = {*np.linspace(0, 8, 10).round(9), *np.arange(0, 5.1, 1.25).round(9)}
    assert set(grid.round(9)) == expected
    frame = run.evaluations
    later = [frame.assign(time_s=frame["time_s"] + k, round=frame["round"] + 100 * k) for k in range(100)]
    many = pd.concat(later)
    assert len(grid_of(replace(run, evaluations=many))) == 400


def test_on_a_grid_each_node_counts_with_its_last_value_at_or_before(run: Run) -> None:
    two = with_evaluations(run, evaluations({0: [(0, 0.0), (2, 1.0)], 1: [(1, 0.0), (3, 2.0)]}), 2)
    table = on_grid(two, np.array([0.0, 1.0, 1.9, 2.0, 2.9, 3.0, 9.0]))
    assert table["time_s"].tolist() == [0.0, 1.0, 1.9, 2.0, 2.9, 3.0]
    np.testing.assert_allclose(table["node_avg"], [np.nan, 0.0, 0.0, 0.5, 0.5, 1.5])
    assert table["nodes"].tolist() == [1, 2, 2, 2, 2, 2]
    assert table["fresh"].tolist() == [True, True, False, True, False, True]
    over_bytes = on_grid(two, np.array([10.0, 30.0]), axis="total_bytes")
    np.testing.assert_allclose(over_bytes["node_avg"], [0.0, 1.5])


def test_without_evaluations_there_is_no_grid(tmp_path: Path) -> None:
    run = read_run(SyntheticRun(seeds=(1,), evaluations=False).write(tmp_path / "run"))
    assert len(grid_of(run)) == 0
    assert by_time(run).empty


def test_traffic_is_that_of_the_last_round_at_or_before(tmp_path: Path) -> None:
    spec = SyntheticRun(arms=(SyntheticArm(name="a", asynchronous=True),), seeds=(1,), network=True, slow=1)
    run = read_run(spec.write(tmp_path / "run"))
    table = traffic_on_grid(run, np.array([0.0, 0.249, 0.25, 0.6, 99.0]))
    # Six messages of a third of a MB are queued at the end of every round of 0.25 s but the last.
    np.testing.assert_allclose(table["made_bytes_now"] / 333_333, [0, 0, 6, 12, 114])
    # By 0.5 s the three fast nodes have sent six, the slow one, at 5 / 32 s each, one.
    assert table["total_bytes_now"].iloc[3] / 333_333 == pytest.approx((3 * 6 + 1) / 4)
    old = replace(run, rounds=run.rounds.assign(made_bytes=np.nan))
    assert traffic_on_grid(old, np.array([0.0, 1.0]))["made_bytes_now"].isna().all()


def test_attempts_are_those_at_the_evaluations_that_count(tmp_path: Path) -> None:
    spec = SyntheticRun(arms=(SyntheticArm(name="a", asynchronous=True),), seeds=(1,), network=True)
    table = by_time(read_run(spec.write(tmp_path / "run"))).set_index("time_s")
    np.testing.assert_allclose(table["made_bytes"] / 333_333, [0, 30, 60, 90, 114])
    np.testing.assert_allclose(table["made_bytes_now"], table["made_bytes"])
