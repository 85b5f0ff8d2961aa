"""How far a run is: what displays know of it."""

from __future__ import annotations

import pytest

from launch.progress import Job, Progress, duration
from tests.unit.screen import ManualClock, clock, stream

__all__ = ["clock", "stream"]


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

    def test_lost_nodes_are_not_waited_for(self) -> None:
        job = self.started(3)
        for node, round_ in enumerate((2, 6, 8)):
            job.reached(node, round_)
        job.add_score(1, 5, "acc", 0.2)
        job.lost.add(0)
        job.add_score(2, 5, "acc", 0.4)
        assert job.score == ("acc", pytest.approx(0.3), 5)
        assert job.span() == "6..8 of 10"
        assert job.slowest == 6
        assert job.share() == pytest.approx(0.7)


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
