"""The live table of a terminal, on a screen of the test's own."""

from __future__ import annotations

import io

from rich.console import Console

from launch.live_table import LiveDisplay
from tests.unit.screen import ManualClock, clock, lines, screen, stream

__all__ = ["clock", "stream"]


def test_hosts_and_stalls_stand_below_the_jobs(stream: io.StringIO, clock: ManualClock) -> None:
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


def test_last_drawing_has_every_job(stream: io.StringIO, clock: ManualClock) -> None:
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


def test_narrow_terminals_lose_the_bar_and_no_number(clock: ManualClock) -> None:
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


def test_failure_is_shown_with_its_first_line(stream: io.StringIO, clock: ManualClock) -> None:
    display = LiveDisplay(screen(stream), now=clock)
    display.plan([("a", 1)], nodes=2, max_rounds=10)
    display.job_started("a", 1, 2, 10)
    display.job_ended("a", 1, "failed", "node 1 died\nTraceback ...")
    display.close()
    assert lines(stream)[-2].endswith("failed: node 1 died")


def test_more_jobs_than_lines_are_folded_around_the_running_one(
    stream: io.StringIO, clock: ManualClock
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


def test_a_note_stands_above_the_table(stream: io.StringIO, clock: ManualClock) -> None:
    display = LiveDisplay(screen(stream), now=clock)
    display.plan([("a", 1)], nodes=1, max_rounds=1)
    display.note("a [note]")
    display.close()
    text = stream.getvalue()
    assert text.index("a [note]") < text.rindex("waiting")


def test_100_000_calls_draw_a_few_times_a_second(stream: io.StringIO, clock: ManualClock) -> None:
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


def test_closing_what_never_began_writes_nothing(stream: io.StringIO) -> None:
    LiveDisplay(screen(stream)).close()
    assert stream.getvalue() == ""
