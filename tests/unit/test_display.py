"""What a run shows, with a clock and a screen of the test's own."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from launch.display import LiveDisplay, PlainDisplay, make_display
from launch.progress import Job, Progress, duration


class ManualClock:
    """Stands still until it is told the time."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.reads = 0

    def __call__(self) -> float:
        self.reads += 1
        return self.now_s


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def screen(stream: io.StringIO, height: int = 24) -> Console:
    return Console(file=stream, force_terminal=True, width=120, height=height, color_system=None, _environ={})


def lines(stream: io.StringIO) -> list[str]:
    """What was written, less movements of the cursor."""
    text = re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "", stream.getvalue())
    return [line.strip() for line in text.splitlines() if line.strip()]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00:00"), (59.6, "0:01:00"), (3723, "1:02:03"), (360000, "100:00:00"), (-1, "0:00:00")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


class TestJob:
    def started(self, nodes: int) -> Job:
        job = Job("arm", 1, nodes=nodes, max_rounds=10)
        job.start(nodes, 10, now_s=0.0)
        return job

    def test_score_is_the_mean_over_all_nodes_of_the_latest_complete_round(self) -> None:
        job = self.started(2)
        job.add_score(0, 5, "acc", 0.2)
        assert job.score is None
        job.add_score(1, 5, "acc", 0.4)
        assert job.score == ("acc", pytest.approx(0.3), 5)
        job.add_score(0, 10, "acc", 0.9)
        assert job.score == ("acc", pytest.approx(0.3), 5)

    def test_an_older_round_never_replaces_a_newer_one(self) -> None:
        job = self.started(2)
        job.add_score(0, 5, "acc", 0.1)
        job.add_score(0, 10, "acc", 0.5)
        job.add_score(1, 10, "acc", 0.5)
        job.add_score(1, 5, "acc", 0.1)
        assert job.score == ("acc", 0.5, 10)
        assert set(job.incomplete) <= {10}

    def test_a_second_evaluation_of_a_round_replaces_the_first(self) -> None:
        job = self.started(2)
        for score in (0.2, 0.6):  # the subset of the curve, then the whole split at the end
            job.add_score(0, 10, "acc", score)
            job.add_score(1, 10, "acc", score)
        assert job.score == ("acc", pytest.approx(0.6), 10)


class TestRemaining:
    def test_counts_rounds_of_all_nodes_and_jobs(self, clock: ManualClock) -> None:
        progress = Progress(clock)
        progress.plan([("a", 1), ("b", 1)], nodes=2, max_rounds=10)
        progress.start("a", 1, 2, 10)
        assert progress.remaining() == ""
        clock.now_s += 30.0
        progress.progress(0, 10, None)
        progress.progress(1, 5, None)  # 15 of 20 node-rounds of the first of two jobs: 3/8
        assert progress.remaining() == "about 0:00:50 left"
        progress.end("a", 1, "done", "")
        assert progress.remaining() == "about 0:00:30 left"

    def test_a_job_that_ended_early_is_behind_us(self, clock: ManualClock) -> None:
        progress = Progress(clock)
        progress.plan([("a", 1)], nodes=2, max_rounds=10)
        progress.start("a", 1, 2, 10)
        clock.now_s += 1.0
        progress.end("a", 1, "failed", "node 1 died")
        assert progress.remaining() == ""


class TestPlainDisplay:
    def test_tells_the_whole_story(self, stream: io.StringIO, clock: ManualClock) -> None:
        display = PlainDisplay(stream, every_s=5.0, now=clock)
        display.plan([("EL", 1), ("D-PSGD", 1)], nodes=2, max_rounds=10)
        display.job_started("EL", 1, 2, 10)
        clock.now_s += 5.0
        display.progress(1, 3, 1.5)
        clock.now_s += 5.0
        display.evaluated(0, 5, "acc", 0.25, 2.0)
        display.evaluated(1, 5, "acc", 0.75, 2.0)
        display.progress(0, 2, 0.5)
        display.note("disk is nearly full")
        clock.now_s += 5.0
        display.job_ended("EL", 1, "failed", "node 1 died")
        display.close()
        assert lines(stream) == [
            "[0:00:00] 2 runs of 2 nodes and up to 10 rounds each",
            "[0:00:00] EL seed 1 (1 of 2): started, 2 nodes, up to 10 rounds",
            "[0:00:05] EL seed 1 (1 of 2): round 0..3 of 10, train_loss 1.5, about 0:01:02 left",
            "[0:00:10] EL seed 1 (1 of 2): round 5 of 10, acc 0.5 in round 5, about 0:00:30 left",
            "[0:00:10] disk is nearly full",
            "[0:00:15] EL seed 1 (1 of 2): failed after 0:00:15, acc 0.5 in round 5, node 1 died",
        ]

    def test_keeps_its_distance(self, stream: io.StringIO, clock: ManualClock) -> None:
        display = PlainDisplay(stream, every_s=5.0, now=clock)
        display.plan([("a", 1)], nodes=1, max_rounds=100)
        display.job_started("a", 1, 1, 100)
        for round_ in range(1, 101):
            clock.now_s += 0.5
            display.progress(0, round_, None)
        assert len(lines(stream)) == 2 + 10

    def test_progress_outside_a_job_is_ignored(self, stream: io.StringIO, clock: ManualClock) -> None:
        display = PlainDisplay(stream, now=clock)
        display.plan([("a", 1)], nodes=1, max_rounds=10)
        clock.now_s += 60.0
        display.progress(0, 1, None)
        display.evaluated(0, 1, "acc", 1.0, 0.0)
        assert len(lines(stream)) == 1

    def test_every_host_and_what_is_stalled(self, stream: io.StringIO, clock: ManualClock) -> None:
        display = PlainDisplay(stream, every_s=5.0, now=clock)
        display.plan([("EL", 1)], nodes=3, max_rounds=10)
        display.job_started("EL", 1, 3, 10)
        display.hosts({"h1": (0, 1), "h22": (2, 3, 4)})
        display.host("h1", "running", 2)
        display.host("h1", "running", 2)
        clock.now_s += 6.0
        display.progress(1, 4, None)
        display.stalled(2, "is stopped (SIGSTOP)", 2.0)
        clock.now_s += 6.0
        display.tick()
        display.stalled(2, None, 0.0)
        display.host("h22", "lost", 0)
        assert lines(stream)[2:] == [
            "[0:00:00]   host h1  2 nodes, round 0 of 10, running",
            "[0:00:06] EL seed 1 (1 of 1): round 0..4 of 10, about 0:00:39 left",
            "[0:00:06]   host h1   2 nodes, round 0..4 of 10, running",
            "[0:00:06]   host h22  1 node, round 0 of 10, starting",
            "[0:00:06]   node 2 on host h22 is stopped (SIGSTOP) since 2 s",
            "[0:00:12] EL seed 1 (1 of 1): round 0..4 of 10, about 0:01:18 left",
            "[0:00:12]   host h1   2 nodes, round 0..4 of 10, running",
            "[0:00:12]   host h22  1 node, round 0 of 10, starting",
            "[0:00:12]   node 2 on host h22 is stopped (SIGSTOP) since 8 s",
            "[0:00:12]   node 2 on host h22 goes on again",
            "[0:00:12]   host h22  1 node, round 0 of 10, lost",
        ]

    def test_a_single_host_is_not_worth_a_line(self, stream: io.StringIO, clock: ManualClock) -> None:
        display = PlainDisplay(stream, every_s=5.0, now=clock)
        display.plan([("EL", 1)], nodes=2, max_rounds=10)
        display.job_started("EL", 1, 2, 10)
        display.hosts({"localhost": (0, 1, 2, 3)})
        display.host("localhost", "running", 4)
        clock.now_s += 6.0
        display.progress(0, 1, None)
        assert len(lines(stream)) == 3


class TestLiveDisplay:
    def test_hosts_and_stalls_stand_below_the_jobs(self, stream: io.StringIO, clock: ManualClock) -> None:
        display = LiveDisplay(screen(stream, height=10), now=clock)
        display.plan([("a", seed) for seed in range(100)], nodes=2, max_rounds=10)
        display.job_started("a", 0, 2, 10)
        display.hosts({"h1": (0, 2), "h2": (1, 3)})
        display.host("h2", "running", 2)
        display.stalled(3, "is stopped (SIGSTOP)", 2.0)
        clock.now_s += 1.0
        display.tick()
        display.close()
        last = lines(stream)[-7:]
        assert [line.split()[:3] for line in last[:3]] == [["a", "seed", str(seed)] for seed in range(3)]
        assert last[3:6] == [
            "host h1  1 node, round 0 of 10, starting",
            "host h2  1 node, round 0 of 10, running",
            "the timekeeper on host h2 is stopped (SIGSTOP) since 3 s",
        ]
        assert "(97 below)" in last[6]

    def test_last_drawing_has_every_job(self, stream: io.StringIO, clock: ManualClock) -> None:
        display = LiveDisplay(screen(stream), now=clock)
        display.plan([("Mosaic [K=16]", 1), ("EL", 1), ("D-PSGD", 1)], nodes=2, max_rounds=10)
        display.job_started("Mosaic [K=16]", 1, 2, 10)
        display.evaluated(0, 10, "acc", 0.9, 0.1)
        display.evaluated(1, 10, "acc", 0.8, 0.1)
        display.progress(0, 10, 0.1)
        display.progress(1, 10, 0.1)
        clock.now_s += 65.0
        display.job_ended("Mosaic [K=16]", 1, "done", "")
        display.job_started("EL", 1, 2, 10)
        display.progress(0, 4, 0.7)
        display.progress(1, 2, 0.5)
        display.close()
        display.close()
        mosaic, el, dpsgd, total = (line.split() for line in lines(stream)[-4:])
        assert mosaic[:4] == ["Mosaic", "[K=16]", "seed", "1"]
        assert mosaic[-8:] == ["round", "10", "of", "10", "0:01:05", "acc", "0.85", "done"]
        assert el[-8:] == ["round", "2..4", "of", "10", "0:00:00", "train_loss", "0.6", "running"]
        assert dpsgd == ["D-PSGD", "seed", "1", "waiting"]
        assert total == ["elapsed", "0:01:05", "about", "0:01:25", "left"]

    def test_narrow_terminals_lose_the_bar_and_no_number(self, clock: ManualClock) -> None:
        drawn = {}
        for width in (80, 120):
            stream = io.StringIO()
            console = Console(file=stream, force_terminal=True, width=width, color_system=None, _environ={})
            display = LiveDisplay(console, now=clock)
            display.plan([("Mosaic K=16", 1)], nodes=2, max_rounds=100)
            display.job_started("Mosaic K=16", 1, 2, 100)
            for node, round_ in enumerate((90, 97)):
                display.progress(node, round_, 0.1234)
            display.close()
            drawn[width] = lines(stream)[-2]
        assert (
            " ".join(drawn[80].split())
            == "Mosaic K=16 seed 1 round 90..97 of 100 0:00:00 train_loss 0.1234 running"
        )
        assert drawn[120].replace("━", "").split() == drawn[80].split()
        assert "━" in drawn[120]

    def test_failure_is_shown_with_its_first_line(self, stream: io.StringIO, clock: ManualClock) -> None:
        display = LiveDisplay(screen(stream), now=clock)
        display.plan([("a", 1)], nodes=2, max_rounds=10)
        display.job_started("a", 1, 2, 10)
        display.job_ended("a", 1, "failed", "node 1 died\nTraceback ...")
        display.close()
        assert lines(stream)[-2].endswith("failed: node 1 died")

    def test_more_jobs_than_lines_are_folded_around_the_running_one(
        self, stream: io.StringIO, clock: ManualClock
    ) -> None:
        display = LiveDisplay(screen(stream, height=10), now=clock)
        display.plan([("a", seed) for seed in range(100)], nodes=1, max_rounds=1)
        for seed in range(50):
            display.job_started("a", seed, 1, 1)
            display.job_ended("a", seed, "done", "")
        display.job_started("a", 50, 1, 1)
        display.close()
        last = lines(stream)[-7:]
        assert [line.split()[2] for line in last[:-1]] == ["47", "48", "49", "50", "51", "52"]
        assert "(47 above, 47 below)" in last[-1]

    def test_a_note_stands_above_the_table(self, stream: io.StringIO, clock: ManualClock) -> None:
        display = LiveDisplay(screen(stream), now=clock)
        display.plan([("a", 1)], nodes=1, max_rounds=1)
        display.note("a [note]")
        display.close()
        text = stream.getvalue()
        assert text.index("a [note]") < text.rindex("waiting")

    def test_100_000_calls_draw_a_few_times_a_second(self, stream: io.StringIO, clock: ManualClock) -> None:
        display = LiveDisplay(screen(stream), every_s=0.2, now=clock)
        display.plan([("a", 1)], nodes=1000, max_rounds=100)
        display.job_started("a", 1, 1000, 100)
        before = stream.getvalue().count("elapsed")
        for call in range(100_000):
            clock.now_s += 1e-4  # ten emulated seconds in all
            display.progress(call % 1000, call // 1000 + 1, 0.5)
        drawn = stream.getvalue().count("elapsed") - before
        display.close()
        assert 40 <= drawn <= 51

    def test_closing_what_never_began_writes_nothing(self, stream: io.StringIO) -> None:
        LiveDisplay(screen(stream)).close()
        assert stream.getvalue() == ""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "term", "expected"),
    [
        (Terminal(), "xterm-256color", LiveDisplay),
        (Terminal(), "dumb", PlainDisplay),
        (io.StringIO(), "xterm", PlainDisplay),
    ],
)
def test_make_display(
    stream: io.StringIO, term: str, expected: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", term)
    assert type(make_display(stream)) is expected


def test_no_color_is_a_live_table_without_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    outputs = {}
    for no_color in ("", "1"):
        monkeypatch.setenv("NO_COLOR", no_color)
        stream = Terminal()
        display = make_display(stream)
        display.plan([("a", 1)], nodes=1, max_rounds=2)
        display.job_started("a", 1, 1, 2)
        display.job_ended("a", 1, "failed", "")
        display.close()
        outputs[no_color] = stream.getvalue()
    assert "\x1b[1;31m" in outputs[""]
    assert "31m" not in outputs["1"]
