"""What a run shows where there is no terminal, with a clock of the test's own; which display is chosen."""

from __future__ import annotations

import io

import pytest

from launch.display import LiveDisplay, PlainDisplay, make_display
from tests.unit.screen import ManualClock, clock, lines, stream

__all__ = ["clock", "stream"]


def test_tells_the_whole_story(stream: io.StringIO, clock: ManualClock) -> None:
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


def test_keeps_its_distance(stream: io.StringIO, clock: ManualClock) -> None:
    display = PlainDisplay(stream, every_s=5.0, now=clock)
    display.plan([("a", 1)], nodes=1, max_rounds=100)
    display.job_started("a", 1, 1, 100)
    for round_ in range(1, 101):
        clock.now_s += 0.5
        display.progress(0, round_, None)
    assert len(lines(stream)) == 2 + 10


def test_progress_outside_a_job_is_ignored(stream: io.StringIO, clock: ManualClock) -> None:
    display = PlainDisplay(stream, now=clock)
    display.plan([("a", 1)], nodes=1, max_rounds=10)
    clock.now_s += 60.0
    display.progress(0, 1, None)
    display.evaluated(0, 1, "acc", 1.0, 0.0)
    assert len(lines(stream)) == 1


HOSTS = {f"h{i}": (i - 1,) for i in range(1, 10)} | {"h10": (9, 10, 11)}
"""Ten hosts with a node each; observer and timekeeper are on the last."""


def on_ten_hosts(stream: io.StringIO, clock: ManualClock) -> PlainDisplay:
    display = PlainDisplay(stream, every_s=5.0, now=clock)
    display.plan([("EL", 1), ("EL", 2)], nodes=10, max_rounds=50)
    display.job_started("EL", 1, 10, 50)
    display.hosts(HOSTS)
    stream.seek(0)
    stream.truncate()
    return display


def test_a_line_when_all_hosts_are_as_far(stream: io.StringIO, clock: ManualClock) -> None:
    display = on_ten_hosts(stream, clock)
    for state in ("loading", "starting", "running", "ending", "done"):
        for number, name in enumerate(HOSTS):
            assert len(lines(stream)) == ("loading", "starting", "running", "ending", "done").index(state)
            display.host(name, state, 1)
            display.host(name, None, number)
    assert lines(stream) == [
        "[0:00:00]   10 hosts: loading",
        "[0:00:00]   10 hosts: starting",
        "[0:00:00]   10 hosts: running",
        "[0:00:00]   10 hosts: ending",
        "[0:00:00]   10 hosts: done",
    ]
    display.job_ended("EL", 1, "done", "")
    display.job_started("EL", 2, 10, 50)
    display.hosts(HOSTS)
    for name in HOSTS:
        display.host(name, "loading")
    assert lines(stream)[-1] == "[0:00:00]   10 hosts: loading", "the next job is told of like the first"


def test_a_lost_host_is_told_of_at_once(stream: io.StringIO, clock: ManualClock) -> None:
    display = on_ten_hosts(stream, clock)
    for name in HOSTS:
        display.host(name, "running", 1)
    display.progress(2, 7, None)
    display.host("h3", "lost", 0)
    for name in HOSTS.keys() - {"h3"}:
        display.host(name, "stopping")
    assert lines(stream) == [
        "[0:00:00]   10 hosts: running",
        "[0:00:00]   host h3  1 node, round 7 of 50, lost",
        "[0:00:00]   9 of 10 hosts: stopping",
    ]


def test_the_ends_of_the_field_who_stands_out_and_what_is_stalled(
    stream: io.StringIO, clock: ManualClock
) -> None:
    display = on_ten_hosts(stream, clock)
    for name in list(HOSTS)[:9]:
        display.host(name, "running", 1)
    for node in range(10):
        display.progress(node, 35, None)
    display.progress(1, 40, None)
    clock.now_s += 6.0
    display.progress(6, 31, None)  # what comes late turns nobody back
    display.stalled(2, "is stopped (SIGSTOP)", 2.0)
    clock.now_s += 6.0
    display.host("h4", "lost", 0)
    clock.now_s += 6.0
    display.tick()
    display.stalled(2, None, 0.0)
    told = [line.partition("]")[2].strip() for line in lines(stream)]
    job = "EL seed 1 (1 of 2): round 35..40 of 50"
    assert [line.partition(", about")[0] for line in told] == [
        job,
        "10 hosts: slowest h1 round 35, fastest h2 round 40",
        "host h10  1 node, round 35 of 50, starting",
        "node 2 on host h3 is stopped (SIGSTOP) since 2 s",
        "host h4  1 node, round 35 of 50, lost",
        job,
        "9 of 10 hosts: slowest h1 round 35, fastest h2 round 40",
        "host h4  1 node, round 35 of 50, lost",
        "host h10  1 node, round 35 of 50, starting",
        "node 2 on host h3 is stopped (SIGSTOP) since 14 s",
        "node 2 on host h3 goes on again",
    ]


def test_what_is_left_of_a_run_without_lost_nodes(stream: io.StringIO, clock: ManualClock) -> None:
    display = PlainDisplay(stream, every_s=5.0, now=clock)
    display.plan([("EL", 1)], nodes=3, max_rounds=10)
    display.job_started("EL", 1, 3, 10)
    display.hosts({"h1": (0, 3, 4), "h2": (1,), "h3": (2,)})
    for node, round_ in enumerate((2, 5, 5)):
        display.progress(node, round_, 3.0)
    display.lost(0)
    for node in (1, 2):
        display.evaluated(node, 5, "acc", 0.5, 1.0)
    clock.now_s += 6.0
    display.tick()
    assert [line.partition("]")[2].strip() for line in lines(stream)[-2:]] == [
        "EL seed 1 (1 of 1): round 5 of 10, acc 0.5 in round 5, about 0:00:06 left",
        "3 hosts: slowest h2 round 5, fastest h2 round 5",
    ]


def test_hosts_without_nodes_and_none_that_is_left(stream: io.StringIO, clock: ManualClock) -> None:
    """Observer and timekeeper on a host of their own are behind nobody."""
    display = PlainDisplay(stream, every_s=5.0, now=clock)
    display.plan([("EL", 1)], nodes=2, max_rounds=10)
    display.job_started("EL", 1, 2, 10)
    display.hosts({"h1": (2, 3), "h2": (0, 1)})
    display.progress(0, 4, None)
    clock.now_s += 6.0
    display.tick()
    assert lines(stream)[-1] == "[0:00:06]   2 hosts: slowest h2 round 0, fastest h2 round 4"
    for name in ("h1", "h2"):
        display.host(name, "lost", 0)
    clock.now_s += 6.0
    display.tick()
    assert [line.partition("]")[2].partition(", about")[0].strip() for line in lines(stream)[-7:]] == [
        "2 hosts: slowest h2 round 0, fastest h2 round 4",
        "host h1  0 nodes, lost",
        "host h2  2 nodes, round 0..4 of 10, lost",
        "EL seed 1 (1 of 1): round 0..4 of 10",
        "0 of 2 hosts",
        "host h1  0 nodes, lost",
        "host h2  2 nodes, round 0..4 of 10, lost",
    ]


def test_a_single_host_is_not_worth_a_line(stream: io.StringIO, clock: ManualClock) -> None:
    display = PlainDisplay(stream, every_s=5.0, now=clock)
    display.plan([("EL", 1)], nodes=2, max_rounds=10)
    display.job_started("EL", 1, 2, 10)
    display.hosts({"localhost": (0, 1, 2, 3)})
    display.host("localhost", "running", 4)
    clock.now_s += 6.0
    display.progress(0, 1, None)
    assert len(lines(stream)) == 3


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
