"""Runs without training: the schedule and the traffic of the trained run to the bit, without its data."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decentral.config import Arm, Experiment
from decentral.errors import ConfigError
from decentral.fragments import Fragmenter, whole_model
from decentral.messages import Message
from decentral.seeding import Seeds
from decentral.tasks.base import LoadedTask, Sgd, Task, size_of
from decentral.tasks.cifar import Cifar10
from decentral.tasks.quadratic import Quadratic
from decentral.tasks.untrained import LEAST_LENGTH, LoadedUntrained, Untrained, UntrainedLearner
from launch import parts
from launch.build import load_workload
from launch.compose import complete, compose
from launch.executors.base import Executor
from launch.executors.local import LocalExecutor
from tests.asynchronous import contender
from tests.harness import Result, arm, events, run

D = 203
"""Odd, so that fragments differ in size."""
QUADRATIC = {"name": "quadratic", "settings": {"d": D}, "partition": {"name": "iid"}}
SLOW = {
    "network": {"name": "star", "settings": {"stragglers": 4, "latency_ms": 0.01}},
    "compute": {"time_per_round": 2e-4, "jitter": 0.2},
    "data": QUADRATIC,
}
GOSSIP = {"run": {"time_limit_s": 1.6e-3}}


def _cases() -> dict[str, Arm]:
    cases: dict[str, Arm] = {}
    for name in parts.available("algorithm"):
        settings = {"gossip": {"period_s": 2e-4}, "divshare": {"recipients": 3}}.get(name)
        cases[name] = contender(name, settings, **SLOW, **(GOSSIP if name == "gossip" else {}))
    whole = {"count": 1, "map": "per_tensor"}
    graph = {"name": "regular", "settings": {"degree": 3, "dynamic": False}}
    cases["mosaic"] = arm(**SLOW)
    cases["epidemic"] = arm(algorithm={"name": "epidemic"}, fragments=whole, **SLOW)
    cases["dpsgd"] = arm(algorithm={"name": "dpsgd"}, fragments=whole, topology=graph, **SLOW)
    resampled = {"recipients": 3, "resample": True}
    cases["divshare, a map per round"] = contender(
        "divshare", resampled, **SLOW, fragments={"count": 4, "map": "per_tensor"}
    )
    cases["mosaic, whole tensors"] = arm(**{**SLOW, "fragments": {"count": 2, "map": "per_layer"}})
    return cases


def twin(trained: Arm) -> Arm:
    """The same without training."""
    return trained.model_copy(update={"train": trained.train.model_copy(update={"mode": "none"})})


def _network(folder: Path) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in line.items() if key not in ("run", "cpu_s")}
        for line in events(folder / "network.jsonl")
    ]


FOUND = ("wall_s", "train_loss", "test_loss", "test_distance", "samples", "model_sha256")
"""What depends on training or on this machine."""
JOINED = "total_meta"
"""Header bytes: which messages of asynchronous nodes really travel together depends on training's pauses."""


def _logs(result: Result) -> list[list[dict[str, Any]]]:
    synchronous = result.nodes[0][0]["algorithm"] in ("mosaic", "epidemic", "dpsgd")
    left_out = FOUND if synchronous else (*FOUND, JOINED)
    return [
        [{key: value for key, value in line.items() if key not in left_out} for line in log[1:]]
        for log in result.nodes
    ]


@pytest.fixture(scope="module")
def processes() -> Iterator[Executor]:
    made = LocalExecutor()
    made.start()
    yield made
    made.close()


class TestTwins:
    @pytest.mark.parametrize("name", _cases())
    def test_network_and_counters_are_those_of_the_trained_run(self, name: str, tmp_path: Path) -> None:
        settings = _cases()[name]
        trained = run(settings, tmp_path / "trained")
        bare = run(twin(settings), tmp_path / "bare")
        network = _network(tmp_path / "trained")
        assert _network(tmp_path / "bare") == network
        assert _logs(bare) == _logs(trained)
        assert sum(sum(line["made"]) for line in network if line["event"] == "links") > 0

    def test_processes_agree_with_inline(self, processes: Executor, tmp_path: Path) -> None:
        settings = twin(contender("divshare", {"recipients": 3}, **SLOW))
        apart = run(settings, tmp_path / "processes", executor=processes)
        inline = run(settings, tmp_path / "inline")
        assert apart.models.tobytes() == inline.models.tobytes()
        assert _network(tmp_path / "processes") == _network(tmp_path / "inline")
        assert _logs(apart) == _logs(inline)

    def test_what_is_logged(self, tmp_path: Path) -> None:
        result = run(twin(arm(**SLOW)), tmp_path)
        header = result.nodes[3][0]
        assert (header["metric"], header["higher_is_better"]) == ("distance", False)
        assert (header["d"], header["shard"]) == (D, 0)
        assert {loss for losses in result.column("round", "train_loss") for loss in losses} == {None}
        scored = [line for line in result.metrics if line["event"] == "evaluation"]
        assert all(line["test_loss"] == line["test_distance"] for line in scored)
        consensus = [line["consensus"] for line in scored]
        assert consensus[0] == pytest.approx(math.sqrt(LEAST_LENGTH * 7 / 8), rel=0.1)
        assert consensus == sorted(consensus, reverse=True)
        assert consensus[-1] < 0.1 * consensus[0]
        # Regular graphs keep the mean of all models.
        assert max(line["test_distance"] for line in scored) < 1e-5


class TestComposition:
    def test_no_data_is_needed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        absent = {"name": "cifar10", "settings": {"folder": str(tmp_path / "absent")}}
        partition = {"name": "shards", "settings": {"shards": 5}}
        settings = arm(data={**absent, "partition": partition, "validation": 0.1}, nodes=4)
        settings = settings.model_copy(
            update={
                "evaluate": settings.evaluate.model_copy(update={"split": "validation", "scope": "local"})
            }
        )
        monkeypatch.setattr(Cifar10, "load", None)
        workload = load_workload(twin(settings), 1, {})
        workload.composition.task.check()
        assert workload.d == 89_834
        assert [shard.size for shard in workload.shards] == [0] * 4
        evaluation = workload.evaluation(2)
        scores, about = evaluation.score(workload.initial(2), final=True)
        assert about["samples"] == 0
        assert scores["distance"] > 0

    def test_epochs_of_no_rows_are_one_step_each(self) -> None:
        settings = arm(train={"local_steps": None, "full_epochs": 3})
        assert compose(twin(settings), 1).local_steps(0) == 3

    @pytest.mark.parametrize(
        ("tables", "problem"),
        [
            ({"compute": {"time_per_round": "measured"}}, "compute.time_per_round"),
            ({"run": {"max_rounds": 5, "clock": "wall"}}, "run.clock"),
        ],
    )
    def test_what_only_training_can_tell_is_refused(self, tables: dict[str, Any], problem: str) -> None:
        compose(arm(**tables), 1)
        with pytest.raises(ConfigError, match=rf"^{problem} = .*train\.mode"):
            compose(twin(arm(**tables)), 1)

    def test_a_target_means_nothing_without_training(self) -> None:
        trained = Experiment(name="test", arms=(arm(),), target=0.9)
        bare = Experiment(name="test", arms=(twin(arm()),), target=0.9)
        assert (complete(trained).target, complete(bare).target) == (0.9, None)

    def test_an_unknown_mode_is_refused(self) -> None:
        with pytest.raises(ValueError, match="mode"):
            arm(train={"mode": "adam"})


def _loaded(count: int = 4, map_: str = "global", n: int = 5, seed: int = 1, d: int = D) -> LoadedUntrained:
    fragmenter = Fragmenter(count=count, map=map_, seeds=Seeds(seed))  # type: ignore[arg-type]
    return Untrained(task=Quadratic(d=d), n=n, fragmenter=fragmenter, seeds=Seeds(seed)).load()


class TestVectors:
    def test_protocols(self) -> None:
        fragmenter = Fragmenter(count=4, seeds=Seeds(1))
        task = Untrained(task=Quadratic(d=16), n=5, fragmenter=fragmenter, seeds=Seeds(1))
        assert isinstance(task, Task)
        assert isinstance(task.load(), LoadedTask)
        assert task.shapes() == Quadratic(d=16).shapes()
        assert not hasattr(parts, "untrained")
        assert "untrained" not in parts.available("task")

    def test_draws_are_of_the_seed_and_the_node(self) -> None:
        few, many, other = _loaded(n=3).vectors, _loaded(n=5).vectors, _loaded(n=3, seed=2).vectors
        assert few.dtype == np.float32
        assert np.array_equal(few, many[:3])
        assert not np.isclose(few, other).all(axis=1).any()
        assert len({vector.tobytes() for vector in many}) == 5

    @pytest.mark.parametrize("count", [1, 2, 10, 64, 100])
    @pytest.mark.parametrize("map_", ["per_tensor", "global", "contiguous"])
    def test_every_fragment_has_a_part_of_equal_length(self, count: int, map_: str) -> None:
        loaded = _loaded(count, map_)
        fragments = Fragmenter(count=count, map=map_, seeds=Seeds(7)).split(loaded.sizes)  # type: ignore[arg-type]
        assert len(fragments) == count
        assert len({fragments.indices(k).size for k in range(count)}) == 1
        assert LEAST_LENGTH <= fragments.d < LEAST_LENGTH + count

    def test_maps_of_whole_tensors_have_a_tensor_per_fragment(self) -> None:
        loaded = _loaded(2, "per_layer")
        assert loaded.sizes == (LEAST_LENGTH // 2,) * 2

    @pytest.mark.parametrize(
        ("count", "map_"), [(1, "global"), (4, "global"), (7, "per_tensor"), (2, "per_layer")]
    )
    def test_messages_weigh_what_the_models_do(self, count: int, map_: str) -> None:
        loaded = _loaded(count, map_)
        fragmenter = Fragmenter(count=count, map=map_, seeds=Seeds(1))  # type: ignore[arg-type]
        real = fragmenter.split([D - D // 2, D // 2])
        held = fragmenter.split(loaded.sizes)
        x = loaded.vectors[0]
        weighed = [
            loaded.payload_bytes(Message(0, 0, k, x[held.indices(k)], held.map_hash)) for k in range(count)
        ]
        assert weighed == [4 * real.indices(k).size for k in range(count)]
        assert sum(weighed) == 4 * D
        whole = Message(0, 0, 0, x, whole_model(x.size).map_hash)
        assert loaded.payload_bytes(whole) == 4 * size_of(Quadratic(d=D).shapes())

    def test_score_is_the_distance_to_the_initial_mean(self) -> None:
        loaded = _loaded()
        mean = loaded.vectors.astype(np.float64).mean(axis=0)
        scores = loaded.evaluate(loaded.vectors[2], "test")
        assert scores["distance"] == pytest.approx(np.linalg.norm(loaded.vectors[2] - mean))
        assert scores["loss"] == scores["distance"]
        assert loaded.evaluate(mean.astype(np.float32), "test")["distance"] < 1e-5

    def test_the_learner_learns_nothing(self) -> None:
        learner = _loaded().learner(np.empty(0, dtype=np.int64), Sgd(lr=1.0, batch=1))
        assert isinstance(learner, UntrainedLearner)
        learner.x[:] = np.arange(learner.x.size)
        assert math.isnan(learner.train(100, np.random.default_rng(0)))
        assert np.array_equal(learner.x, np.arange(learner.x.size))
