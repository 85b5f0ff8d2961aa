from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from decentral.config import Arm, Experiment, load
from decentral.errors import ConfigError
from decentral.seeding import Seeds
from decentral.tasks.base import Sgd
from launch.compose import check, complete, compose, evaluation_rows, held_out, shards

HERE = "tests.unit.example_parts"
TEXT = f"""
name = "compare"
nodes = 4
seeds = [1, 2]
algorithm = "mosaic"
topology = "{HERE}:Pairs"
fragments.count = 3
[data]
name = "{HERE}:Line"
owners = 4
[train]
lr = 0.1
batch = 8
local_steps = 2
[run]
max_rounds = 10
"""
ARMS = """
[[arm]]
name = "a"
[[arm]]
name = "b"
fragments.map = "global"
"""


@pytest.fixture
def experiment(tmp_path: Path):
    def experiment(*overrides: str, text: str = TEXT) -> Experiment:
        path = tmp_path / "experiment.toml"
        path.write_text(text, encoding="utf-8")
        return load(path, overrides)

    return experiment


@pytest.fixture
def arm(experiment):
    def arm(*overrides: str) -> Arm:
        return experiment(*overrides).arms[0]

    return arm


def problems(experiment: Experiment) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        check(experiment)
    return caught.value.problems


def test_all_parts_share_the_seed_and_the_arm(arm):
    made = compose(arm("train.momentum=0.9"), 7)
    assert made.seeds == Seeds(7) == made.topology.seeds == made.fragmenter.seeds
    assert made.topology.n == 4
    assert (made.fragmenter.count, made.fragmenter.map) == (3, "per_tensor")
    assert made.sgd == Sgd(lr=0.1, batch=8, momentum=0.9)
    algorithm = made.algorithm(local_steps=5)
    assert algorithm.local_steps == 5
    assert algorithm.topology is made.topology
    assert algorithm.fragmenter is made.fragmenter


def test_local_steps_of_full_epochs_cover_every_row(arm):
    made = compose(arm("train.full_epochs=3"), 1)
    assert [made.local_steps(rows) for rows in (1, 8, 9, 16)] == [3, 3, 6, 6]
    assert compose(arm(), 1).local_steps(1000) == 2


def test_a_sound_experiment_passes(experiment):
    check(experiment(text=TEXT + ARMS))


def test_problems_of_all_parts_and_arms_are_told_once(experiment):
    overrides = ["nodes=5", "data.rows=0", "data.partition={name='iid', alpha=1}", "arm.b.algorithm=mosiac"]
    texts = problems(experiment(*overrides, text=TEXT + ARMS))
    assert [text.partition(" = ")[0] for text in texts[:3]] == [
        "data.rows",
        "topology: pairs(n=5): n must be even; use n",
        "data.partition.alpha",
    ]
    assert texts[3].startswith('arm "b": algorithm.name = "mosiac": ')
    assert len(texts) == 4


def test_more_fragments_than_parameters_names_both(experiment):
    (text,) = problems(experiment("fragments.count=11", "fragments.map=global"))
    assert text.startswith("fragments.count = 11: is more than the d = 10 parameters of task ")
    check(experiment("fragments.count=10", "fragments.map=global"))


def test_a_map_that_leaves_fragments_empty_is_told(experiment):
    (text,) = problems(experiment("fragments.count=9"))
    assert text.startswith("fragments.count = 9: ")


def test_fragments_of_an_algorithm_that_sends_whole_models_are_refused(experiment):
    (text,) = problems(experiment("algorithm=epidemic"))
    assert text.startswith('fragments.count = 3: algorithm "epidemic" sends whole models')
    check(experiment("algorithm=epidemic", "fragments.count=1"))


def test_missing_data_is_told_before_anything_is_loaded(experiment):
    assert problems(experiment("data.present=false")) == (
        "data: line: points.csv is missing; put it into the data folder",
    )


def test_complete_fills_in_the_defaults_of_parts(experiment):
    (arm,) = complete(experiment("data.partition=dirichlet")).resolved()["arms"]
    assert arm["topology"]["settings"] == {"weight": 1.0}
    assert arm["data"]["settings"] == {"rows": 100, "owners": 4, "present": True}
    assert arm["data"]["partition"]["settings"]["alpha"] == 0.1
    assert compose(Arm.model_validate(arm), 1).task == compose(experiment().arms[0], 1).task


def test_shards_are_disjoint_complete_and_follow_the_seed(arm):
    made = compose(arm(), 1)
    loaded = made.task.load()
    dealt = shards(made, loaded)
    assert len(dealt) == 4
    np.testing.assert_array_equal(np.sort(np.concatenate(dealt)), np.arange(100))
    again, other = shards(compose(arm(), 1), loaded), shards(compose(arm(), 2), loaded)
    assert all(np.array_equal(a, b) for a, b in zip(dealt, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(dealt, other, strict=True))


def test_validation_rows_are_in_no_shard(arm):
    made = compose(arm("data.validation=0.2", "evaluate.split=validation"), 1)
    loaded = made.task.load()
    aside = held_out(made, loaded.examples)
    assert aside.size == 20
    rest = np.sort(np.concatenate(shards(made, loaded)))
    np.testing.assert_array_equal(np.union1d(rest, aside), np.arange(100))
    assert np.intersect1d(rest, aside).size == 0
    split, rows = evaluation_rows(made, loaded, None)
    assert split == "train"
    np.testing.assert_array_equal(rows, aside)


def test_groups_follow_their_rows_past_the_validation_split(arm):
    made = compose(arm("data.validation=0.2", "data.partition=by_group"), 1)
    for node, rows in enumerate(shards(made, made.task.load())):
        assert set(rows % 4) == {node}


def test_curves_use_a_fixed_subset_and_the_end_everything(arm):
    made = compose(arm("evaluate.samples=30"), 1)
    loaded = made.task.load()
    split, rows = evaluation_rows(made, loaded, np.array([0]))
    assert split == "test"
    assert rows is not None
    assert np.unique(rows).size == rows.size == 30
    np.testing.assert_array_equal(rows, evaluation_rows(made, loaded, np.array([1]))[1])
    assert evaluation_rows(made, loaded, None, final=True) == ("test", None)
    assert evaluation_rows(compose(arm("evaluate.samples=100"), 1), loaded, None) == ("test", None)


def test_local_scope_scores_on_the_rows_of_the_shards_owners(arm):
    made = compose(arm("evaluate.scope=local", "evaluate.samples=5"), 1)
    loaded = made.task.load()
    shard = np.array([1, 5, 2])
    _, everything = evaluation_rows(made, loaded, shard, final=True)
    assert everything is not None
    assert set(everything % 4) == {1, 2}
    assert everything.size == 50
    _, curve = evaluation_rows(made, loaded, shard)
    assert curve is not None
    assert curve.size == 5
    assert set(curve) <= set(everything)
    assert evaluation_rows(made, loaded, None, final=True) == ("test", None)


def test_local_validation_rows_are_those_of_the_owners(arm):
    made = compose(arm("evaluate.scope=local", "evaluate.split=validation", "data.validation=0.5"), 1)
    loaded = made.task.load()
    _, rows = evaluation_rows(made, loaded, np.array([2]))
    expected = [row for row in held_out(made, loaded.examples) if row % 4 == 2]
    np.testing.assert_array_equal(rows, expected)


def test_local_scope_needs_owners(arm):
    made = compose(arm("evaluate.scope=local", "data.owners=0"), 1)
    with pytest.raises(
        ConfigError, match=r'^evaluate\.scope = "local": line has no owners of rows; use "global"$'
    ):
        evaluation_rows(made, made.task.load(), np.array([2]))


def test_rows_that_cannot_be_dealt_are_told_with_the_key(arm):
    made = compose(arm("data.rows=3"), 1)
    with pytest.raises(ConfigError, match=r"^data\.partition: iid"):
        shards(made, made.task.load())
