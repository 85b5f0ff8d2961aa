"""The observer: mean model and consensus distance over all nodes of the same round."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decentral.arrays import FloatArray
from decentral.messages import Kind, Message
from decentral.observer import Grid, Observer, consensus_distance
from decentral.records import MemoryRecorder, Value


@dataclass
class SumScore:
    """Scores a model with the sum of its parameters."""

    seen: list[tuple[FloatArray, bool]] = field(default_factory=list)

    def score(self, x: FloatArray, *, final: bool) -> tuple[dict[str, float], dict[str, Value]]:
        self.seen.append((x.copy(), final))
        return {"loss": float(x.sum()), "acc": math.nan}, {"split": "test", "samples": 7}


def snapshot(
    node: int, round_: int, values: list[float], kind: Kind = Kind.SNAPSHOT, time_ns: int = 0
) -> Message:
    return Message(node, round_, 0, np.array(values, dtype=np.float32), bytes(8), time_ns, kind)


def observer(n: int, grid: Grid | None = None) -> tuple[Observer, SumScore, MemoryRecorder]:
    evaluation, recorder = SumScore(), MemoryRecorder()
    return Observer(n=n, evaluation=evaluation, recorder=recorder, grid=grid), evaluation, recorder


def test_distance_of_known_models() -> None:
    models = np.array([[0, 0], [6, 8]], dtype=np.float32)
    mean, distance = consensus_distance(models)
    assert mean.tolist() == [3, 4]
    assert mean.dtype == np.float32
    assert distance == 5  # not squared


def test_equal_models_agree() -> None:
    models = np.tile(np.array([0.1, -7e8, 3e-9], dtype=np.float32), (60, 1))
    mean, distance = consensus_distance(models)
    np.testing.assert_array_equal(mean, models[0])
    assert distance < 1e-6


@given(st.integers(1, 6), st.integers(1, 8), st.integers(0, 99))
def test_distance_is_its_formula(n: int, d: int, seed: int) -> None:
    models = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    mean, distance = consensus_distance(models)
    expected = [sum(float(models[i, p]) for i in range(n)) / n for p in range(d)]
    np.testing.assert_allclose(mean, expected, rtol=1e-6, atol=1e-7)
    lengths = [math.dist(models[i].tolist(), expected) for i in range(n)]
    assert distance == pytest.approx(sum(lengths) / n, rel=1e-9, abs=1e-12)


def test_float32_sums_would_be_too_coarse() -> None:
    models = np.full((4000, 1), 1e4, dtype=np.float32)
    models[0] += 1
    mean, _ = consensus_distance(models)
    assert mean[0] == np.float32(1e4 + 1 / 4000)


def test_a_round_is_scored_when_its_last_snapshot_arrives() -> None:
    made, evaluation, recorder = observer(3)
    made.add(snapshot(2, 10, [3, 0], time_ns=2_500_000_000))
    made.add(snapshot(0, 10, [0, 0], time_ns=1_000_000_000))
    assert recorder.events == []
    made.add(snapshot(1, 10, [0, 3], time_ns=2_000_000_000))
    (seen,) = evaluation.seen
    assert seen[0].tolist() == [1, 1]
    (event,) = recorder.events
    distance = event.pop("consensus")
    assert distance == pytest.approx((2 * math.sqrt(5) + math.sqrt(2)) / 3)
    assert event == {
        "event": "evaluation",
        "round": 10,
        "time_s": 2.5,  # when the slowest node got there
        "split": "test",
        "samples": 7,
        "final": False,
        "models": 3,
        "test_loss": 2.0,
        "test_acc": None,
    }
    assert not made.complete


def test_rounds_and_kinds_are_kept_apart() -> None:
    made, evaluation, recorder = observer(2)
    made.add(snapshot(0, 0, [0]))
    made.add(snapshot(0, 5, [2]))
    made.add(snapshot(0, 5, [4], Kind.FINAL))
    assert evaluation.seen == []
    made.add(snapshot(1, 0, [0]))
    made.add(snapshot(1, 5, [2]))
    assert not made.complete
    made.add(snapshot(1, 5, [4], Kind.FINAL))
    assert made.complete
    assert [(event["round"], event["final"], event["test_loss"]) for event in recorder.events] == [
        (0, False, 0.0),
        (5, False, 2.0),
        (5, True, 4.0),
    ]
    assert [final for _, final in evaluation.seen] == [False, False, True]


@given(st.permutations(range(5)))
def test_the_order_of_arrival_does_not_show(order: list[int]) -> None:
    models = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    made, evaluation, recorder = observer(5)
    for node in order:
        made.add(snapshot(node, 1, models[node].tolist()))
    mean, distance = consensus_distance(models)
    assert evaluation.seen[0][0].tobytes() == mean.tobytes()
    assert recorder.events[0]["consensus"] == distance


def test_one_node_is_its_own_mean() -> None:
    made, _, recorder = observer(1)
    made.add(snapshot(0, 3, [1, 2], Kind.FINAL))
    assert made.complete
    assert recorder.events[0]["consensus"] == 0
    assert recorder.events[0]["test_loss"] == 3


def test_a_diverged_model_is_reported_not_hidden() -> None:
    made, _, recorder = observer(2)
    made.add(snapshot(0, 1, [math.nan]))
    made.add(snapshot(1, 1, [1]))
    assert recorder.events[0]["consensus"] is None
    assert recorder.events[0]["test_loss"] is None


# A common time grid: nodes of an asynchronous algorithm reach different rounds at different times.

GRID = Grid(step_ns=1_000_000_000, rounds=5)
FAST = [(0, 0.0), (5, 1.0), (10, 2.0), (15, 3.0)]
SLOW = [(0, 0.0), (5, 2.5)]
"""(round, seconds) of the snapshots of a nominal node, and of one that is 2.5 times slower."""


def seconds(node: int, round_: int, at_s: float, value: float, kind: Kind = Kind.SNAPSHOT) -> Message:
    return snapshot(node, round_, [value], kind, round(at_s * 1e9))


def scored(recorder: MemoryRecorder) -> list[tuple[object, ...]]:
    """(round, time_s, sum of the mean model) of everything but the final evaluation."""
    return [
        (event["round"], event["time_s"], event["test_loss"])
        for event in recorder.events
        if not event["final"]
    ]


def test_each_node_counts_with_its_last_snapshot_at_or_before_the_instant() -> None:
    made, _, recorder = observer(2, GRID)
    for round_, at_s in FAST:
        made.add(seconds(0, round_, at_s, 2.0 * round_))
    assert recorder.events == [], "of node 1 nothing is known yet"
    for round_, at_s in SLOW:
        made.add(seconds(1, round_, at_s, 1000.0 + 2 * round_))
    # At 3 s both could have a newer snapshot of that very time.
    assert scored(recorder) == [
        (0, 0.0, (0 + 1000) / 2),
        (5, 1.0, (10 + 1000) / 2),
        (10, 2.0, (20 + 1000) / 2),
    ]
    made.add(seconds(0, 20, 4.0, 99.0, Kind.FINAL))
    assert len(scored(recorder)) == 3
    made.add(seconds(1, 8, 4.0, 77.0, Kind.FINAL))
    assert scored(recorder)[3:] == [(15, 3.0, (30 + 1010) / 2), (20, 4.0, (99 + 77) / 2)]
    final = recorder.events[-1]
    assert (final["final"], final["round"], final["time_s"], final["test_loss"]) == (True, 20, 4.0, 88.0)
    assert made.complete


def test_an_instant_at_which_nothing_has_changed_is_not_scored_again() -> None:
    made, evaluation, recorder = observer(2, GRID)
    for node in range(2):
        made.add(seconds(node, 0, 0.0, 1.0))
        made.add(seconds(node, 5, 3.5, 3.0))
        made.add(seconds(node, 10, 9.0, 3.0, Kind.FINAL))
    assert [(round_, at_s) for round_, at_s, _ in scored(recorder)] == [(0, 0.0), (20, 4.0), (45, 9.0)]
    assert len(evaluation.seen) == 4, "equal values of another round are scored"


def test_a_node_that_has_ended_counts_with_its_final_model() -> None:
    made, _, recorder = observer(2, GRID)
    for node in range(2):
        made.add(seconds(node, 0, 0.0, 0.0))
    made.add(seconds(0, 3, 0.5, 8.0, Kind.FINAL))
    made.add(seconds(1, 5, 1.0, 2.0))
    made.add(seconds(1, 10, 2.0, 4.0))
    made.add(seconds(1, 12, 2.4, 5.0, Kind.FINAL))
    assert scored(recorder) == [(0, 0.0, 0.0), (5, 1.0, 5.0), (10, 2.0, 6.0)]
    assert recorder.events[-1]["time_s"] == 2.4


@given(
    st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=6), min_size=1, max_size=4),
    st.randoms(use_true_random=False),
)
def test_the_grid_does_not_depend_on_who_is_faster_in_real_time(
    steps: list[list[int]], chance: random.Random
) -> None:
    """Snapshots of one node come in order, those of different nodes in any; against the definition."""
    n = len(steps)
    lives = []
    for node, own in enumerate(steps):
        times = [sum(own[:stop]) for stop in range(len(own) + 1)]
        kinds = [Kind.SNAPSHOT] * len(own) + [Kind.FINAL]
        values = [float(100 * node + k) for k in range(len(times))]
        lives.append(
            [
                snapshot(node, k, [value], kind, 100 * at)
                for k, (at, value, kind) in enumerate(zip(times, values, kinds, strict=True))
            ]
        )
    grid = Grid(step_ns=700, rounds=2)
    last_ns = max(life[-1].time_ns for life in lives)
    expected: list[tuple[object, ...]] = []
    before: list[Message] = []
    for m in range(last_ns // 700 + 1):
        current = [[one for one in life if one.time_ns <= 700 * m][-1] for life in lives]
        if current != before:
            mean = np.mean([one.values for one in current], axis=0, dtype=np.float64).astype(np.float32)
            expected.append((2 * m, 700 * m / 1e9, float(mean.sum())))
        before = current
    made, _, recorder = observer(n, grid)
    queues = [list(life) for life in lives]
    while any(queues):
        queue = chance.choice([queue for queue in queues if queue])
        made.add(queue.pop(0))
    assert scored(recorder) == expected
    assert made.complete
    assert sum(bool(event["final"]) for event in recorder.events) == 1


def test_rounds_without_a_lost_node() -> None:
    """What it has shown counts; the others are waited for as ever, and the last score is theirs."""
    made, evaluation, recorder = observer(3)
    for node in (0, 1, 2):
        made.add(snapshot(node, 0, [float(node)]))
    made.add(snapshot(2, 5, [9.0]))
    made.add(snapshot(0, 5, [3.0]))
    made.lose(2, 0)
    assert len(recorder.events) == 1
    made.add(snapshot(1, 5, [6.0]))
    made.add(snapshot(0, 10, [4.0]))
    made.add(snapshot(1, 10, [6.0]))
    for node in (0, 1):
        assert not made.complete
        made.add(snapshot(node, 11, [float(node)], Kind.FINAL))
    assert made.complete
    assert [(event["round"], event["models"]) for event in recorder.events] == [
        (0, 3),
        (5, 3),
        (10, 2),
        (11, 2),
    ]
    assert [float(x[0]) for x, _ in evaluation.seen] == [1.0, 6.0, 5.0, 0.5]


def test_a_loss_completes_what_waited_for_the_lost_node_alone() -> None:
    made, _, recorder = observer(2)
    made.add(snapshot(0, 0, [1.0]))
    made.add(snapshot(0, 1, [2.0], Kind.FINAL))
    made.lose(1, 0)
    assert made.complete
    assert [(event["round"], event["models"]) for event in recorder.events] == [(0, 1), (1, 1)]


def test_a_node_that_is_lost_after_its_final_model_counts() -> None:
    made, _, recorder = observer(2)
    made.add(snapshot(1, 1, [4.0], Kind.FINAL))
    made.lose(1, 0)
    assert not made.complete
    made.add(snapshot(0, 1, [2.0], Kind.FINAL))
    assert made.complete
    assert recorder.events[-1]["models"] == 2


@pytest.mark.parametrize("kind", [Kind.SNAPSHOT, Kind.FINAL])
def test_what_a_lost_node_shows_afterwards_does_not_count(kind: Kind) -> None:
    """A host that was given up, because its line to the launcher is cut, may live on for a while."""
    made, evaluation, recorder = observer(2)
    made.lose(1, 0)
    made.add(snapshot(1, 1, [4.0], kind))
    made.add(snapshot(0, 1, [2.0], Kind.FINAL))
    assert made.complete
    assert [(event["final"], event["models"]) for event in recorder.events] == [(True, 1)]
    assert [float(x[0]) for x, _ in evaluation.seen] == [2.0]


def test_the_grid_goes_on_without_a_lost_node() -> None:
    """It counts at the instants that it has passed, also where the others were not there yet."""
    made, _, recorder = observer(2, GRID)
    for node in range(2):
        made.add(seconds(node, 0, 0.0, float(node)))
        made.add(seconds(node, 5, 1.0, 10.0 + node))
    made.add(seconds(0, 10, 2.0, 30.0))
    for at_ns in (1_700_000_000, 0):
        made.lose(1, at_ns)
    made.add(seconds(0, 12, 2.5, 40.0, Kind.FINAL))
    assert made.complete
    assert [(event["time_s"], event["models"]) for event in recorder.events] == [
        (0.0, 2),
        (1.0, 2),
        (2.0, 1),
        (2.5, 1),
    ]


@given(st.integers(0, 1 << 30))
def test_a_lost_node_counts_while_it_lived(seed: int) -> None:
    """Whenever the observer hears of the loss: at every instant that it is known to have passed."""
    chance = random.Random(seed)
    last = chance.randint(-1, 8)
    lost_ns = round((last + chance.uniform(1.0, 3.0)) * 1e9)
    made, _, recorder = observer(3, GRID)
    shown = [[seconds(node, 5 * t, float(t), 1.0 + t) for t in range(9)] for node in range(2)]
    shown.append([seconds(2, 5 * t, float(t), 1.0 + t) for t in range(last + 1)])
    while any(shown):
        queue = chance.choice([each for each in shown if each])
        made.add(queue.pop(0))
        if not shown[2] and chance.random() < 0.3:
            made.lose(2, lost_ns)
    made.lose(2, lost_ns)
    for node in range(2):
        made.add(seconds(node, 45, 9.0, 1.0, Kind.FINAL))
    models = {event["time_s"]: event["models"] for event in recorder.events if not event["final"]}
    assert models == {float(t): 3 if t <= last else 2 for t in range(10)}


def test_only_what_can_still_count_is_kept() -> None:
    made, _, _ = observer(2, GRID)
    for t in range(200):
        for node in range(2):
            made.add(seconds(node, 5 * t, float(t), 1.0))
        assert sum(map(len, made._by_node)) <= 4
