"""Axes and labels: limits from what was measured, single seeds, the clock, settings in the users' words."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from results import plots, timeplots
from results.figures import draw_all
from results.provenance import flat, provenance
from results.read import Run, read_run
from results.report import facts
from results.style import limits
from results.tables import DASH, clock_of, time_label
from tests.unit.synthetic_run import SyntheticArm, SyntheticRun


def scattered(tmp_path: Path, seeds: tuple[int, ...], shift: float) -> Run:
    arms = (SyntheticArm(name="a", seed_shift=shift), SyntheticArm(name="b", seed_shift=shift, level=0.6))
    return read_run(SyntheticRun(arms=arms, seeds=seeds).write(tmp_path / "run"))


def captions(run: Run) -> dict[str, str]:
    return {drawn.name: drawn.caption for drawn in draw_all(run)}


def seed_lines(figure: Figure) -> list[np.ndarray]:
    drawn = [lines for lines in figure.axes[0].collections if isinstance(lines, LineCollection)]
    return [np.asarray(path.vertices, dtype=float) for lines in drawn for path in lines.get_paths()]


def band_reach(figure: Figure) -> np.ndarray:
    bands = [shape for shape in figure.axes[0].collections if not isinstance(shape, LineCollection)]
    points = np.concatenate([np.asarray(path.vertices)[:, 1] for band in bands for path in band.get_paths()])
    return points[np.isfinite(points)]


def test_axes_follow_what_was_measured_and_not_wide_intervals(tmp_path: Path) -> None:
    run = scattered(tmp_path, (1, 2), 0.2)
    for draw in (plots.score_over_rounds, timeplots.score_over_time, timeplots.score_over_bytes):
        figure = draw(run)
        assert figure is not None
        figure.draw_without_rendering()
        means = [np.asarray(line.get_ydata(), dtype=float) for line in figure.axes[0].get_lines()]
        values = np.concatenate([*means, *(line[:, 1] for line in seed_lines(figure))])
        bottom, top = figure.axes[0].get_ylim()
        # The band runs from about -125 to 200 %; the values do not.
        assert band_reach(figure).min() < -50
        assert band_reach(figure).max() > 150
        assert 0 <= bottom <= values.min() + 1e-9
        assert values.max() <= top <= 100
        assert top - bottom <= 1.1001 * np.ptp(values)


def test_axes_end_where_scores_do(tmp_path: Path) -> None:
    arms = (SyntheticArm(name="a", level=1.0, spread=0.0, seed_shift=0.049, rounds=100),)
    run = read_run(SyntheticRun(arms=arms, seeds=(1, 2), every=10).write(tmp_path / "run"))
    for figure in (plots.score_over_rounds(run), plots.spread_over_rounds(run)):
        assert figure is not None
        assert figure.axes[0].get_ylim()[0] == 0.0
    nodes = plots.final_distribution(run)
    assert nodes is not None
    left, right = nodes.axes[0].get_xlim()
    assert 94 < left < 95.1
    assert 99.9 < right <= 100


@pytest.mark.parametrize(
    ("values", "lowest", "highest", "log", "ends"),
    [
        ([20.0, 60.0], 0.0, 100.0, False, (18.0, 62.0)),
        ([1.0, 99.0], 0.0, 100.0, False, (0.0, 100.0)),
        ([-1.0, 9.0], 0.0, 9.5, False, (-1.5, 9.5)),
        ([5.0, 5.0], 0.0, 100.0, False, (4.75, 5.25)),
        ([0.0, 0.0], 0.0, 100.0, False, (0.0, 0.05)),
        ([-1e-16, 100.00000000000001], 0.0, 100.0, False, (0.0, 100.0)),
        ([1.0, 1e20], 0.0, np.inf, True, (0.1, 1e21)),
    ],
)
def test_limits(
    values: list[float], lowest: float, highest: float, log: bool, ends: tuple[float, float]
) -> None:
    assert limits(np.array(values), lowest, highest, log=log) == pytest.approx(ends)


@pytest.mark.parametrize("wide", [1, 2, 5, 6])
def test_two_to_five_seeds_are_drawn_one_by_one(tmp_path: Path, wide: int) -> None:
    run = scattered(tmp_path, tuple(range(1, wide + 1)), 0.01)
    figure = plots.score_over_rounds(run)
    assert figure is not None
    lines = seed_lines(figure)
    assert ("thin lines: single seeds" in captions(run)["score_rounds"]) == (wide in (2, 5))
    if wide in (1, 6):
        assert lines == []
        return
    assert len(lines) == 2 * wide
    rounds = np.array([0, 5, 10, 15, 20])
    expected = 100 * (0.7 * (1 - np.exp(-3 * rounds / 20)) + 0.01)
    np.testing.assert_allclose(lines[1], np.column_stack([rounds, expected]))
    lowest_line = min(line.get_zorder() for line in figure.axes[0].get_lines())
    for shape in figure.axes[0].collections:
        assert shape.get_zorder() < lowest_line or isinstance(shape, LineCollection)


@pytest.mark.parametrize(
    ("clock", "label"),
    [
        ("wall", "time (wall clock, s)"),
        ("virtual (inline)", "emulated time (s)"),
        (None, "time (s)"),
    ],
)
def test_the_clock_is_the_manifests(tmp_path: Path, clock: str | None, label: str) -> None:
    folder = SyntheticRun(seeds=(1,)).write(tmp_path / "run")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "clock": clock}))
    run = read_run(folder)
    assert (clock_of(run), time_label(run)) == (clock or "", label)
    figure = timeplots.score_over_time(run)
    assert figure is not None
    assert figure.axes[0].get_xlabel() == label
    assert dict(facts(run))["clock"] == dict(provenance(run))["clock"] == (clock or DASH)


def test_settings_read_as_users_write_them() -> None:
    settings = {
        "algorithm": {"name": "mosaic", "settings": {}},
        "data": {"name": "digits", "partition": {"name": "dirichlet", "settings": {"alpha": 0.1}}},
        "evaluate": {"samples": None, "split": "test"},
    }
    assert flat(settings) == {
        "algorithm.name": "mosaic",
        "data.name": "digits",
        "data.partition.name": "dirichlet",
        "data.partition.alpha": "0.1",
        "evaluate.samples": "not set",
        "evaluate.split": "test",
    }


def test_where_nodes_ran_is_told_once_per_placement(tmp_path: Path) -> None:
    run = read_run(SyntheticRun(seeds=(1,)).write(tmp_path / "run"))
    jobs = [
        {"placement": {"h1": "0-1", "h2": "2"}},
        {"placement": {"h1": "0-1", "h2": "2"}},
        {"placement": {"h1": "0", "h2": "1-2", "h3": ""}},
        {"placement": {"localhost": "0-2"}},
        {"placement": None},
    ]
    told = [text for key, text in provenance(replace(run, manifest={"jobs": jobs})) if key == "placement"]
    assert told == ["h1: nodes 0-1; h2: nodes 2", "h1: nodes 0; h2: nodes 1-2; h3: nodes none"]
