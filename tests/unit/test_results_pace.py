"""Arms whose nodes keep no pace: what tells them, and what is not drawn over rounds then."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from results import plots, timeplots
from results.compare import COSTS, comparison
from results.delivery import staleness_over_seeds
from results.delivery_tables import staleness_table
from results.emulation import emulation_table
from results.figures import draw_all
from results.grid import by_common_round
from results.pace import asynchronous_arms, rounds_range, uneven_arms
from results.read import Run, read_run
from results.report import comparison_table, paired_table, render
from results.tables import DASH, Quantity
from tests.unit.synthetic_run import SyntheticArm, SyntheticRun

SPEC = SyntheticRun(arms=(SyntheticArm(name="pairs"), SyntheticArm(name="mosaic", level=0.65)), seeds=(1, 2))


@pytest.fixture(scope="module")
def even(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return read_run(SPEC.write(tmp_path_factory.mktemp("pace") / "run"))


@pytest.fixture(scope="module")
def uneven(even: Run) -> Run:
    """Node 0 of the first arm takes 5 / 3 of the time for a round, and does 12 rounds of 20."""

    def slowed(table: pd.DataFrame) -> pd.DataFrame:
        mine = (table["arm"] == "pairs") & (table["node"] == 0)
        table = table.assign(round=np.where(mine & (table["round"] == 20), 12, table["round"]))
        return table[~mine | (table["round"] <= 12)]

    tables = {name: slowed(getattr(even, name)) for name in ("rounds", "evaluations", "ends")}
    return replace(even, **tables)


def without_ages(run: Run) -> Run:
    """The first arm averages pairs, in two rounds of three."""
    rounds = run.rounds
    mine = rounds["arm"] == "pairs"
    counts = np.where(mine, rounds["round"] - rounds["round"] // 3, rounds["aggregated"])
    return replace(run, rounds=rounds.assign(aggregated=counts, staleness=rounds["staleness"].mask(mine)))


def caption(run: Run, name: str) -> str:
    return next(drawn.caption for drawn in draw_all(run) if drawn.name == name)


def test_what_tells_an_asynchronous_arm(even: Run, uneven: Run, tmp_path: Path) -> None:
    assert asynchronous_arms(even) == uneven_arms(even) == frozenset()
    assert asynchronous_arms(uneven) == uneven_arms(uneven) == {"pairs"}
    assert asynchronous_arms(without_ages(even)) == {"pairs"}
    assert uneven_arms(without_ages(even)) == frozenset()
    # The time alone: after 20 rounds the slowest node is 10 of its own rounds behind, of 4 nodes.
    drifting = (SyntheticArm(name="a", asynchronous=True, stagger=0.35), SyntheticArm(name="b"))
    run = read_run(replace(SPEC, arms=drifting, seeds=(1,)).write(tmp_path / "run"))
    assert asynchronous_arms(replace(run, rounds=run.rounds.assign(staleness=0.0))) == {"a"}


def test_a_time_limit_makes_no_synchronous_arm_asynchronous(even: Run) -> None:
    ends = even.ends
    behind = (ends["node"] == 0) & (ends["arm"] == "pairs")
    limited = replace(
        even, ends=ends.assign(round=ends["round"] - behind), rounds=even.rounds.query("round < 20")
    )
    assert rounds_range(limited)["pairs"] == (19, 20)
    assert asynchronous_arms(limited) == frozenset()
    assert uneven_arms(without_ages(limited)) == {"pairs"}


def test_a_run_cut_short_is_not_asynchronous_for_it(tmp_path: Path) -> None:
    folder = replace(SPEC, stop={("mosaic", 2): 12}, state="failed").write(tmp_path / "run")
    log = folder / "arm-1" / "seed-2" / "nodes" / "000.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join(lines[:-1]))
    run = read_run(folder)
    assert next(job.rounds for job in run.jobs if (job.arm, job.seed) == ("mosaic", 2)) == (11, 12)
    assert asynchronous_arms(run) == frozenset()


def test_rounds_without_messages_are_those_that_aggregated_none(even: Run) -> None:
    run = without_ages(even)
    table = staleness_over_seeds(run).set_index("arm")
    assert table["idle"].tolist() == pytest.approx([6 / 20, 0.0])
    shown = staleness_table(run)
    assert shown is not None
    assert [[cell.text for cell in row] for row in shown.rows] == [
        ["pairs", "2", DASH, DASH, DASH, "30.0 ± 0.0"]
    ]
    note = "pairs average models as they are at the exchange; no age."
    assert note in render(run, ())
    assert timeplots.staleness_over_rounds(run) is None
    assert staleness_table(even) is None


def test_the_caveat_holds_for_arms_without_ages(even: Run, uneven: Run) -> None:
    assert "Asynchronous arms" not in caption(even, "score_rounds")
    assert "Asynchronous arms: a node counts at its own" in caption(without_ages(even), "score_rounds")
    assert "No mean model of theirs is drawn." in caption(uneven, "score_rounds")


def test_an_uneven_arm_is_read_at_common_times_and_without_mean_model(even: Run, uneven: Run) -> None:
    figures = [plots.score_over_rounds(run) for run in (even, uneven)]
    assert all(figure is not None for figure in figures)
    dashes = [
        sum(line.get_linestyle() == "--" for line in figure.axes[0].get_lines())
        for figure in figures
        if figure is not None
    ]
    assert dashes == [2, 1]
    table = by_common_round(uneven)
    rows = table[(table["arm"] == "pairs") & (table["seed"] == 1)]
    assert rows["round"].tolist() == [0, 5, 10, 15, 20]
    assert rows["complete"].all()


def test_consensus_is_over_time_where_an_arm_is_asynchronous(even: Run, uneven: Run) -> None:
    labels = {}
    for name, run in (("even", even), ("uneven", uneven)):
        drawn = next(drawn for drawn in draw_all(run) if drawn.name == "consensus_rounds")
        labels[name] = (drawn.title, drawn.figure.axes[0].get_xlabel())
        assert ("Over time" in drawn.caption) == (name == "uneven")
    assert labels == {
        "even": ("Consensus distance", "local rounds"),
        "uneven": ("Consensus distance over time", "emulated time (s)"),
    }


def test_the_costs_have_the_range_of_rounds(uneven: Run) -> None:
    assert rounds_range(uneven) == {"pairs": (12, 20), "mosaic": (20, 20)}
    shown = comparison_table(uneven, comparison(uneven), COSTS)
    column = list(shown.headings).index("rounds")
    assert [row[column].text for row in shown.rows] == ["12\u201320", "20 ± 0"]


@pytest.mark.parametrize(
    ("number", "half", "shown"),
    [
        (0.012345, None, "0.0123"),
        (4.5, 0.25, "4.50 ± 0.25"),
        (1234.6, 3.0, "1\u202f235 ± 3"),
        (0.0, None, "0.00"),
    ],
)
def test_significant_digits(number: float, half: float | None, shown: str) -> None:
    assert Quantity("time (s)", digits=3).interval(number, half) == shown


@pytest.mark.parametrize(
    ("name", "setting", "shown"), [("star", 1.0, "2 ms"), ("ideal", 3.0, "3 ms"), ("aws10", None, None)]
)
def test_latency_is_from_node_to_node(
    tmp_path: Path, name: str, setting: float | None, shown: str | None
) -> None:
    settings = {"network": {"name": name, "settings": {"latency_ms": setting}}}
    run = read_run(
        SyntheticRun(arms=(SyntheticArm(name="a", settings=settings),), seeds=(1,)).write(tmp_path / "run")
    )
    rows: dict[str, str] = {row[0]: row[1] for row in emulation_table(run)[1]}
    assert rows.get("latency") == shown


def test_of_many_arms_only_differences_from_the_first_are_shown(tmp_path: Path) -> None:
    arms = tuple(SyntheticArm(name=name, rounds=5) for name in "abcde")
    run = read_run(SyntheticRun(arms=arms, seeds=(1, 2), nodes=2).write(tmp_path / "run"))
    shown, note = paired_table(run)
    assert shown is not None
    assert [row[0].text for row in shown.rows] == [f"a \u2212 {name}" for name in "bcde"]
    assert note == "Of 5 arms only the differences of a from the others are listed."
