"""Figures and report: self-contained, escaped, and honest about runs that are not whole."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from decentral.errors import PreflightError
from results import plots, timeplots
from results.atomic import write_atomic
from results.figures import draw_all
from results.read import Run, read_run
from results.report import render, write_report
from results.style import PALETTE, arm_styles, encode, printable
from tests.unit.synthetic_run import SyntheticArm, SyntheticRun

FIGURES = {
    "score_rounds",
    "score_time",
    "time_to_target",
    "score_bytes",
    "spread_rounds",
    "final_distribution",
    "consensus_rounds",
    "loss_rounds",
}


class Page(HTMLParser):
    """Collects text, tags and whatever would be loaded from elsewhere."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text: list[str] = []
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def says(self, words: str) -> bool:
        return words in " ".join(" ".join(self.text).split())


def page_of(folder: Path) -> Page:
    return Page(render(read_run(folder), ()))


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = SyntheticRun(seeds=(1, 2)).write(tmp_path_factory.mktemp("report") / "run")
    assert write_report(folder) == folder / "report.html"
    return folder


def test_everything_is_written_and_nothing_is_left_behind(reported: Path) -> None:
    names = {path.relative_to(reported).as_posix() for path in reported.rglob("*") if path.is_file()}
    figures = {f"figures/{name}.{kind}" for name in FIGURES for kind in ("png", "pdf")}
    assert figures | {"summary.csv", "report.html"} <= names
    assert not [name for name in names if Path(name).name.startswith(".")]
    assert len(pd.read_csv(reported / "summary.csv")) == 4 + 2


def test_the_report_needs_nothing_but_itself(reported: Path) -> None:
    html = (reported / "report.html").read_text()
    page = Page(html)
    assert all(source.startswith(("data:image/svg+xml;base64,", "#")) for source in page.sources)
    assert page.tags.count("img") == len(FIGURES)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert "url(" not in html
    assert page.says("Complete: every arm reached its end with every seed.")
    assert page.says(
        "Mean over n = 2 seeds; thin lines: single seeds; band: 95 % t-interval, cut where it leaves the axes"
    )
    assert page.says("0123456789abcdef0123456789abcdef01234567")
    assert page.says("fragments.count")


def test_names_are_escaped_wherever_they_stand(tmp_path: Path) -> None:
    evil = """<script>alert("a")</script> & 'b' $x_1^$"""
    arms = (SyntheticArm(name=evil), SyntheticArm(name="_el \u6f22 {{ 7 * 7 }}"))
    spec = SyntheticRun(arms=arms, seeds=(1,), stop={(evil, 1): 7}, state="failed", cause=evil)
    run = read_run(spec.write(tmp_path / "run"))
    drawn = draw_all(run)[:1]
    html = render(run, drawn)
    page = Page(html)
    assert "script" not in page.tags
    assert page.says(evil)
    assert page.says("{{ 7 * 7 }}")
    assert """<script""" not in html
    svg = encode(drawn[0].figure, "svg")
    assert svg.startswith(b"<?xml")


def test_a_failed_run_says_what_happened_and_how_far_it_got(tmp_path: Path) -> None:
    spec = SyntheticRun(
        stop={("el", 2): 12}, absent=(("el", 3),), state="failed", cause="node 2 on host-a died of SIGKILL"
    )
    page = page_of(spec.write(tmp_path / "run"))
    assert page.says("Incomplete: the run failed. 4 of 6 runs reached their end.")
    assert page.says("First cause: node 2 on host-a died of SIGKILL")
    assert page.says("round 12 of 20; 0 of 4 nodes reached their end, 4 have a log")
    assert page.says("nothing was measured")
    assert page.says("No best value is marked")
    assert page.says("no end event of 4 of 4 nodes (0-3)")


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("interrupted", "the run was interrupted"),
        ("running", "is still going on, or its launcher was killed"),
    ],
)
def test_other_ends_are_named(tmp_path: Path, state: str, words: str) -> None:
    assert page_of(SyntheticRun(seeds=(1,), state=state).write(tmp_path / "run")).says(words)


def test_a_run_without_manifest_is_not_called_complete(tmp_path: Path) -> None:
    folder = SyntheticRun(seeds=(1,)).write(tmp_path / "run")
    (folder / "manifest.json").unlink()
    (folder / "resolved.json").unlink()
    page = page_of(folder)
    assert page.says("manifest.json is missing or damaged")
    assert page.says("Unknown: resolved.json is missing or damaged.")


SMALL: list[tuple[str, SyntheticRun, set[str]]] = [
    ("no evaluation", SyntheticRun(seeds=(1, 2), evaluations=False), {"loss_rounds"}),
    (
        "nothing finished",
        SyntheticRun(seeds=(1,), stop={("mosaic", 1): 0, ("el", 1): 0}, state="failed"),
        FIGURES - {"time_to_target"},
    ),
    (
        "nothing started",
        SyntheticRun(seeds=(1,), absent=(("mosaic", 1), ("el", 1)), state="failed"),
        set(),
    ),
    (
        "one node",
        SyntheticRun(arms=(SyntheticArm(name="a"),), seeds=(1,), nodes=1),
        FIGURES - {"spread_rounds"},
    ),
    (
        "lower is better",
        SyntheticRun(arms=(SyntheticArm(name="a"),), seeds=(1,), metric="rmse", higher_is_better=False),
        # It grows, so no arm improved on the initial score.
        FIGURES - {"time_to_target"},
    ),
    (
        "all diverged",
        SyntheticRun(arms=(SyntheticArm(name="a", diverged=(0, 1, 2, 3)),), seeds=(1, 2)),
        {"consensus_rounds"},
    ),
]


@pytest.mark.parametrize(("spec", "figures"), [case[1:] for case in SMALL], ids=[case[0] for case in SMALL])
def test_unusual_runs_are_drawn_and_reported(tmp_path: Path, spec: SyntheticRun, figures: set[str]) -> None:
    run = read_run(spec.write(tmp_path / "run"))
    drawn = draw_all(run)
    # Before the first round there is neither training loss nor traffic to draw.
    if run.rounds.empty and figures:
        figures = figures - {"score_bytes"}
    assert {figure.name for figure in drawn} == figures
    for figure in drawn:
        figure.figure.draw_without_rendering()
    assert Page(render(run, ())).says("Comparison")


def test_one_seed_shows_no_band_and_says_so(tmp_path: Path) -> None:
    run = read_run(SyntheticRun(seeds=(1,)).write(tmp_path / "run"))
    figure = plots.score_over_rounds(run)
    assert figure is not None
    reach = [path.vertices for band in figure.axes[0].collections for path in band.get_paths()]
    assert not any(np.isfinite(np.asarray(vertices)).any() for vertices in reach)
    assert Page(render(run, ())).says("One seed per arm: there is no interval")
    assert "One seed: no interval." in draw_all(run)[0].caption


def curve(figure: Figure | None, place: int) -> tuple[np.ndarray, np.ndarray]:
    assert figure is not None
    line = figure.axes[0].get_lines()[place]
    return np.asarray(line.get_xdata(), dtype=float), np.asarray(line.get_ydata(), dtype=float)


def test_curves_are_means_over_seeds_in_percent(reported: Path) -> None:
    run = read_run(reported)
    rounds, node_avg = curve(plots.score_over_rounds(run), 0)
    expected = 100 * (0.7 * (1 - np.exp(-3 * rounds / 20)) + 0.005)
    np.testing.assert_allclose(rounds, [0, 5, 10, 15, 20])
    np.testing.assert_allclose(node_avg, expected)
    _, avg_model = curve(plots.score_over_rounds(run), 1)
    np.testing.assert_allclose(avg_model, expected + 2)
    sent, over_bytes = curve(timeplots.score_over_bytes(run), 0)
    np.testing.assert_allclose(sent, rounds * 2)
    np.testing.assert_allclose(over_bytes, expected)
    time_s, over_time = curve(timeplots.score_over_time(run), 0)
    np.testing.assert_allclose(time_s, rounds * 0.25)
    np.testing.assert_allclose(over_time, expected)


def test_where_fewer_seeds_got_the_curve_goes_on_dotted(tmp_path: Path) -> None:
    run = read_run(SyntheticRun(stop={("mosaic", 2): 12}, state="failed").write(tmp_path / "run"))
    figure = plots.spread_over_rounds(run)
    _, whole = curve(figure, 0)
    _, fewer = curve(figure, 1)
    assert np.isfinite(whole).tolist() == [True, True, True, False, False]
    assert np.isfinite(fewer).tolist() == [False, False, True, True, True]


def test_an_arm_has_one_colour_in_all_figures(reported: Path) -> None:
    run = read_run(reported)
    for draw in (plots.score_over_rounds, timeplots.score_over_time, plots.consensus_over_rounds):
        figure = draw(run)
        assert figure is not None
        lines = [line for line in figure.axes[0].get_lines() if len(np.unique(line.get_ydata())) > 1]
        assert {line.get_color() for line in lines} == set(PALETTE[:2])
    styles = arm_styles([f"arm {number}" for number in range(9)])
    assert len({(style.color, style.marker) for style in styles.values()}) == 9


def test_drawing_leaves_no_state_and_the_same_bytes(reported: Path) -> None:
    run = read_run(reported)
    before = dict(mpl.rcParams)
    kinds: tuple[Callable[[Run], Figure | None], ...] = (plots.consensus_over_rounds,)
    for draw in kinds:
        pair = [draw(run), draw(run)]
        for kind in ("png", "pdf", "svg"):
            first, second = (encode(figure, kind) for figure in pair if figure is not None)
            assert first == second
    assert dict(mpl.rcParams) == before


def test_labels_cannot_be_markup_hidden_or_endless() -> None:
    assert printable("$a$") == r"\$a\$"
    assert printable("_a") == " _a"
    assert printable("\u6f22\n") == "??"
    assert len(printable("x" * 100)) == 42


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(PreflightError, match=re.escape(str(blocked / "report.html"))):
        write_atomic(blocked / "report.html", b"")


def test_a_full_disk_keeps_the_old_file_and_no_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.html"
    write_atomic(path, b"old")

    def full(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("results.atomic.os.replace", full)
    with pytest.raises(PreflightError, match=r"report\.html: No space left on device"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("seeds", "sentence"),
    [
        (
            (1,),
            "One seed per arm: there is no interval, so nothing can be said about the variation between "
            "runs; use --seeds 1,2,3,4,5.",
        ),
        ((1, 2), "With so few seeds (2 seeds) intervals are wide; use --seeds 1,2,3,4,5."),
        ((1, 2, 3), "With so few seeds (3 seeds) intervals are wide; use --seeds 1,2,3,4,5."),
        ((1, 2, 3, 4), None),
    ],
)
def test_few_seeds_are_pointed_out(tmp_path: Path, seeds: tuple[int, ...], sentence: str | None) -> None:
    page = page_of(SyntheticRun(seeds=seeds).write(tmp_path / "run"))
    assert page.says("With so few seeds") == (len(seeds) in (2, 3))
    assert page.says("One seed per arm") == (len(seeds) == 1)
    assert not (page.says("With so few seeds (one") and page.says("One seed per arm"))
    assert sentence is None or page.says(sentence)


def test_seeds_lost_to_a_failure_need_no_other_option(tmp_path: Path) -> None:
    absent = (("el", 3), ("el", 4))
    page = page_of(SyntheticRun(seeds=(1, 2, 3, 4), absent=absent, state="failed").write(tmp_path / "run"))
    assert page.says("With so few seeds (2 seeds) intervals are wide.")
