"""Figures of asynchronous arms: what is drawn is what the logs say, and nothing is drawn without a reason."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from results import linkplots, timeplots
from results.figures import draw_all
from results.read import Run, read_run
from results.report import render
from results.timeline import compute_windows, lanes, merged, shown_nodes, timeline
from tests.unit.synthetic_run import SyntheticArm, SyntheticRun

EMULATED = SyntheticRun(
    arms=(SyntheticArm(name="divshare", asynchronous=True), SyntheticArm(name="mosaic", level=0.6)),
    seeds=(1, 2),
    network=True,
    slow=2,
)
NEW = {"timeline", "fates", "utilisation", "staleness_rounds"}
SPANS = st.lists(st.tuples(st.integers(0, 50), st.integers(1, 20)), max_size=30)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return read_run(EMULATED.write(tmp_path_factory.mktemp("timeline") / "run"))


def as_spans(pairs: list[tuple[int, int]]) -> np.ndarray:
    ordered = sorted(pairs)
    return np.array([(begin, begin + width) for begin, width in ordered], dtype=float).reshape(-1, 2)


@given(SPANS)
def test_lanes_do_not_overlap_and_are_as_few_as_possible(pairs: list[tuple[int, int]]) -> None:
    spans = as_spans(pairs)
    taken = lanes(spans)
    for lane in set(taken):
        mine = spans[taken == lane]
        assert (mine[1:, 0] >= mine[:-1, 1]).all()
    busiest = max((((spans[:, 0] <= t) & (t < spans[:, 1])).sum() for t in spans[:, 0]), default=0)
    assert len(set(taken)) == busiest


@given(SPANS, st.integers(0, 3))
def test_merged_spans_cover_the_same_and_leave_gaps(pairs: list[tuple[int, int]], gap: int) -> None:
    spans = as_spans(pairs)
    joined = merged(spans, gap)
    assert (joined[1:, 0] > joined[:-1, 1] + gap).all()
    for t in np.arange(0, 75, 0.5):
        inside = ((spans[:, 0] <= t) & (t < spans[:, 1])).any()
        covered = ((joined[:, 0] <= t) & (t < joined[:, 1])).any()
        assert covered or not inside
        if covered and not inside:
            # In a gap that was closed, which is no wider than asked.
            before, after = spans[spans[:, 1] <= t, 1].max(), spans[spans[:, 0] > t, 0].min()
            assert after - before <= gap


def test_compute_windows_end_where_waiting_begins() -> None:
    rounds = pd.DataFrame({"time_s": [2.0, 5.0], "train_s": [1.0, 1.5], "wait_s": [0.5, np.nan]})
    computed, waited = compute_windows(rounds)
    assert computed.tolist() == [[0.5, 1.5], [3.5, 5.0]]
    assert waited.tolist() == [[1.5, 2.0], [5.0, 5.0]]


def test_nodes_with_the_fastest_and_slowest_uplinks_are_shown() -> None:
    rates = [12.0, 60.0, 11.0, 61.0, np.nan, 60.0]
    uplinks = pd.DataFrame({"node": range(6), "rate_bps": rates})
    assert list(shown_nodes(uplinks, 4).index) == [4, 3, 0, 2]
    assert list(shown_nodes(uplinks, 6).index) == [4, 3, 1, 5, 0, 2]
    assert list(shown_nodes(uplinks.assign(rate_bps=60.0), 4).index) == [2, 3, 0, 1]


def bars(figure: Figure, panel: int, color: str) -> list[tuple[float, float]]:
    """Begin and end of all bars of one colour, in order of drawing."""
    found = []
    for shape in figure.axes[panel].collections:
        if [to_hex(face) for face in np.atleast_2d(shape.get_facecolor())] == [color.lower()]:
            for path in shape.get_paths():
                xs = np.asarray(path.vertices)[:, 0]
                found.append((round(float(xs.min()), 6), round(float(xs.max()), 6)))
    return found


def test_the_timeline_shows_windows_transfers_and_drops(run: Run) -> None:
    figure = timeline(run)
    assert figure is not None
    figure.draw_without_rendering()
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["divshare", "mosaic"]
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels[::-1] == [f"node {i}\n{60 if i > 1 else 12} Mbit/s" for i in (2, 3, 0, 1)]
    computed = bars(figure, 0, "#555555")
    assert computed[:4] == [(0.0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1.0)]
    # Node 0, drawn second, is slow: a message takes 5 / 32 s, without a pause.
    odd = bars(figure, 0, "#56B4E9")
    assert (0.25, 0.40625) in odd
    # It dropped what two transfers of six left, at the end of its second window.
    texts = {text.get_text() for text in figure.axes[0].texts}
    assert "4" in texts
    # The synchronous arm waits for its slowest uplink, and drops nothing.
    assert (0.25, 1.1875) in bars(figure, 1, "#E2E2E2")
    assert not figure.axes[1].texts
    assert figure.axes[0].get_xlim()[1] == pytest.approx(4 * 0.25)


def test_aborted_and_lost_transfers_have_colours_of_their_own(run: Run) -> None:
    transfers = run.network.transfers.copy()
    transfers.loc[transfers.index[0], "outcome"] = "aborted"
    transfers.loc[transfers.index[1], "outcome"] = "lost"
    figure = timeline(replace(run, network=replace(run.network, transfers=transfers)))
    assert figure is not None
    assert len(bars(figure, 0, "#D55E00")) == len(bars(figure, 0, "#CC79A7")) == 1


def test_figures_that_say_nothing_are_left_out(tmp_path: Path, run: Run) -> None:
    assert {drawn.name for drawn in draw_all(run)} >= NEW
    plain = read_run(SyntheticRun(seeds=(1,)).write(tmp_path / "plain"))
    assert not {drawn.name for drawn in draw_all(plain)} & NEW
    # An ideal network: no rate is limiting, every message arrives, no transfer takes time, nothing is stale.
    network = run.network
    transfers = network.transfers.assign(end_s=network.transfers["start_s"])
    links = network.links.assign(delivered_bytes=network.links["made_bytes"])
    uplinks = network.uplinks.assign(rate_bps=np.nan)
    ideal = replace(network, transfers=transfers, links=links, uplinks=uplinks)
    idle = replace(run, network=ideal, rounds=run.rounds.assign(staleness=0.0))
    assert not {drawn.name for drawn in draw_all(idle)} & NEW


def test_fates_add_up_to_everything_attempted(run: Run) -> None:
    figure = linkplots.fate_bars(run)
    assert figure is not None
    widths: dict[float, float] = {}
    for patch in figure.axes[0].patches:
        widths[patch.get_y()] = widths.get(patch.get_y(), 0.0) + patch.get_width()
    assert list(widths.values()) == pytest.approx([100.0, 100.0])


def test_utilisation_draws_every_uplink_of_every_seed(run: Run) -> None:
    figure = linkplots.utilisation_of_uplinks(run)
    assert figure is not None
    dots = [line for line in figure.axes[0].get_lines() if line.get_linestyle() == "None"]
    assert sum(len(np.asarray(line.get_xdata())) for line in dots) == 2 * 2 * 4


def test_attempted_and_sent_payload_have_panels_of_their_own(run: Run) -> None:
    figure = timeplots.score_over_bytes(run)
    assert figure is not None
    labels = [axes.get_xlabel() for axes in figure.axes]
    assert labels == ["payload attempted per node (MB)", "payload sent per node (MB)"]
    attempted = np.asarray(figure.axes[0].get_lines()[0].get_xdata(), dtype=float)
    np.testing.assert_allclose(attempted, np.array([0, 30, 60, 90, 114]) * 333_333 / 1e6)


def test_the_target_is_drawn_and_never_is_written_out(run: Run) -> None:
    figure = timeplots.target_bars(replace(run, resolved={**run.resolved, "target": 0.62}))
    assert figure is not None
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ["never", "3.75"]
    assert "62 %" in figure.axes[0].get_xlabel()
    curves = timeplots.score_over_time(replace(run, resolved={**run.resolved, "target": 0.62}))
    assert curves is not None
    assert [text.get_text() for text in curves.axes[0].texts] == ["target 62 %"]


class Text(HTMLParser):
    """The text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.feed(html)

    def handle_data(self, data: str) -> None:
        self.words += data.split()

    def says(self, words: str) -> bool:
        return words in " ".join(self.words)


def test_the_report_states_network_accounting_staleness_and_target(run: Run) -> None:
    page = Text(render(run, ()))
    for words in (
        "Time to target",
        "Network and computation",
        "uplink: senders' uplinks only",
        "Utilisation of uplinks",
        "dropped: flush",
        "which was checked link by link",
        "95th percentile",
        "As the nodes count",
    ):
        assert page.says(words), words
    assert not page.says("unaccounted for")


def test_the_report_of_an_older_run_has_none_of_it(tmp_path: Path) -> None:
    page = Text(render(read_run(SyntheticRun(seeds=(1,)).write(tmp_path / "run")), ()))
    for words in ("Utilisation of uplinks", "checked link by link", "attempted per node", "TRUSTWORTHY"):
        assert not page.says(words), words


def test_an_accounting_that_does_not_hold_is_loud(tmp_path: Path) -> None:
    folder = replace(EMULATED, seeds=(1,)).write(tmp_path / "run")
    path = folder / "arm-0" / "seed-1" / "network.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    next(line for line in lines if line["event"] == "links")["made"][0] += 1
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = Text(render(read_run(folder), ()))
    assert page.says("The accounting does not hold: messages or bytes are unaccounted for.")
    assert page.says("which does NOT hold here")


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        ("not trustworthy", "NOT TRUSTWORTHY: 1 of 1 runs did not keep"),
        ("trustworthy", "Trustworthy: every run kept"),
        ("not checked", "1 of 1 runs did not check"),
    ],
)
def test_wall_clock_runs_say_how_well_they_kept_their_promises(
    tmp_path: Path, verdict: str, words: str
) -> None:
    fidelity = {("mosaic", 1): {"verdict": verdict, "reasons": ["a <reason>"], "cpu_saturation": 0.5}}
    run = read_run(SyntheticRun(seeds=(1,), clock="wall", fidelity=fidelity).write(tmp_path / "run"))
    page = Text(render(run, ()))
    assert page.says(words)
    assert page.says("a <reason>")
    assert page.says("CPU in use 50 %")
