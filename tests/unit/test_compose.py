from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from decentral.config import Arm, Experiment, load
from decentral.errors import ConfigError
from decentral.seeding import Seeds
from decentral.tasks.base import Sgd
from launch import emulation
from launch.compose import check, complete, compose, settled
from launch.rows import evaluation_rows, held_out, shards

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


RUMOR = f"algorithm={HERE}:Rumor"
MATCHED = ("network=star", "compute.time_per_round=match_comm")


def test_the_network_and_its_stragglers_follow_the_seed(arm):
    star = arm("network=star", "network.stragglers=2", "network.contention=both")
    made, again, other = (compose(star, seed).network for seed in (1, 1, 2))
    assert (made.n, made.contention, made.seeds) == (4, "both", Seeds(1))
    assert np.array_equal(made.uplink_bps, again.uplink_bps)
    assert not np.array_equal(made.uplink_bps, other.uplink_bps)
    assert (made.uplink_bps < 20e6).sum() == 2
    assert compose(arm(), 1).network.unlimited


def test_a_network_of_ones_own_is_found_and_its_refusal_gets_the_key(arm, experiment):
    made = compose(arm(f"network={{name='{HERE}:Wire', mbps=2}}"), 1)
    assert made.network.uplink_bps.tolist() == [2e6] * 4
    assert problems(experiment(f"network={HERE}:Wire", "nodes=22")) == (
        "network: wire(n=22): too many nodes; use at most 20",
    )


def test_seconds_per_round_are_the_nominal_time(arm):
    made = compose(arm("compute.time_per_round=0.25", "compute.slow_nodes=1", "compute.slow_which=first"), 1)
    assert [made.compute.duration_ns(node, 0) for node in (0, 1)] == [1_250_000_000, 250_000_000]
    assert not made.measured
    jittered = compose(arm("compute.jitter=0.1"), 3).compute
    assert (jittered.jitter, jittered.seeds) == (0.1, Seeds(3))


def test_a_time_to_be_measured_is_filled_in_later(arm):
    made = compose(arm("compute.time_per_round=measured", "run.time_limit_s=1e-3"), 1)
    assert made.measured
    assert made.compute.nominal_ns == 0
    assert made.timed(7_000).compute.duration_ns(0, 0) == 7_000


def test_nominal_matching_takes_the_volume_of_graph_algorithm_or_table(arm):
    """d = 10 at 60 Mbit/s: 5333.3 ns for a whole model."""

    def nominal_ns(*overrides: str) -> int:
        return compose(arm(*MATCHED, *overrides), 1).compute.nominal_ns

    assert nominal_ns() == 5333
    assert nominal_ns("topology=complete") == 16_000
    assert nominal_ns("compute.recipients=2") == 10_667
    assert nominal_ns("network.stragglers=4", "network.fast_mbps=6.0") == 53_333
    assert nominal_ns(f"network={HERE}:Wire") == 40_000


def test_volume_of_an_algorithm_that_chooses_recipients_itself(experiment):
    text = TEXT.replace(f'topology = "{HERE}:Pairs"', "")
    (arm,) = experiment(RUMOR, *MATCHED, text=text).arms
    made = compose(arm, 1)
    assert made.topology is None
    assert made.volume == 1.5
    assert made.compute.nominal_ns == 8000
    assert made.algorithm(local_steps=3).local_steps == 3


def test_calibrated_matching_runs_the_network_without_its_stragglers(arm, monkeypatch):
    calibrated = (*MATCHED, "compute.match_comm=calibrated", "network.latency_ms=0.5")
    made = compose(arm(*calibrated), 1).compute.nominal_ns
    assert made == compose(arm(*calibrated, "network.stragglers=4"), 1).compute.nominal_ns
    # Fragments of 4, 3 and 3 parameters; every transfer is rounded up to a nanosecond.
    assert 1_005_333 <= made <= 1_005_336
    both = [*calibrated, "network.contention=both", "topology=complete"]
    assert compose(arm(*both), 1).compute.nominal_ns > 1_016_000
    assert compose(arm(*calibrated, "compute.recipients=3"), 1).compute.nominal_ns == pytest.approx(
        1_016_000, abs=9
    )
    monkeypatch.setattr(emulation, "match_calibrated_ns", lambda *_, **__: pytest.fail("not remembered"))
    assert compose(arm(*calibrated), 1).compute.nominal_ns == made


def test_a_target_must_be_within_reach(experiment):
    for reachable in ("0.001", "1"):
        check(experiment(f"target={reachable}"))
    assert problems(experiment("target=2")) == (
        "target = 2.0: accuracy lies between 0 and 1; use for example 0.8",
    )
    distance = ("data={name='quadratic'}", "fragments.count=1")
    check(experiment("target=2", *distance))
    (text,) = problems(experiment("target=-0.5", *distance))
    assert text == "target = -0.5: distance is above 0; use for example 1.25"
    check(experiment("target=2", "train.mode=none"))  # nothing is scored


def test_a_target_out_of_reach_of_one_arm_names_it(experiment):
    texts = problems(experiment("target=2", "arm.b.data={name='quadratic'}", text=TEXT + ARMS))
    assert [text for text in texts if "target" in text] == [
        'arm "a": target = 2.0: accuracy lies between 0 and 1; use for example 0.8'
    ]


def test_real_time_needs_processes(experiment):
    wall = experiment("run.clock=wall")
    check(wall)
    with pytest.raises(ConfigError, match=r'^run\.clock = "wall": inline nodes take turns'):
        check(wall, "inline")
    check(experiment(), "inline")


def test_a_time_limit_must_leave_time_for_a_round(experiment):
    (text,) = problems(experiment("run.time_limit_s=0.5"))
    assert text.startswith("run.time_limit_s = 0.5: no node would finish a local round, which takes 1 s")
    check(experiment("run.time_limit_s=0.5", "run.clock=wall"))
    check(experiment("run.time_limit_s=0.95", "compute.jitter=0.1"))


def test_loss_is_for_asynchronous_algorithms(experiment):
    lossy = ("network={name='ideal', loss=0.1}", "fragments.count=1")
    (text,) = problems(experiment(*lossy))
    assert text.startswith('network.loss = 0.1: algorithm "mosaic" waits')
    check(experiment(*lossy, f"algorithm={HERE}:Whisper"))


def test_a_graph_that_all_arms_share_is_ignored_by_those_that_take_none(experiment):
    shared = experiment(f"arm.b.{RUMOR}", text=TEXT + ARMS)
    check(shared)
    assert [arm.topology is None for arm in settled(shared).arms] == [False, True]
    a, b = complete(shared).arms
    assert a.topology is not None
    assert b.topology is None
    assert complete(shared).resolved()["arms"][1]["topology"] is None
    assert compose(Arm.model_validate(b.model_dump(mode="json")), 1).topology is None


def test_a_graph_of_an_arms_own_or_for_nobody_is_refused(experiment):
    own = experiment(f"arm.b.{RUMOR}", "arm.b.topology.weight=2.0", text=TEXT + ARMS)
    (text,) = problems(own)
    assert text.startswith('arm "b": topology = "tests.unit.example_parts:Pairs": algorithm')
    for nobody in (experiment(RUMOR), experiment(RUMOR, text=TEXT + ARMS)):
        (text,) = problems(nobody)
        assert text.startswith('topology = "tests.unit.example_parts:Pairs": algorithm')


def test_a_missing_graph_is_refused_where_one_is_needed(experiment):
    text = TEXT.replace(f'topology = "{HERE}:Pairs"', "")
    (problem,) = problems(experiment(text=text))
    assert problem.startswith('topology = (not set): algorithm "mosaic" needs a graph')
    check(experiment(RUMOR, text=text))
    check(experiment(f"algorithm={HERE}:Whisper", "fragments.count=1", text=text))


def test_an_algorithm_checks_the_number_of_nodes(experiment):
    text = TEXT.replace(f'topology = "{HERE}:Pairs"', "")
    assert problems(experiment(RUMOR, "nodes=5", text=text)) == (
        "algorithm: rumor(n=5): half the nodes are active, so n must be even; use n = 6",
    )
    assert problems(experiment(RUMOR, "algorithm.recipients=4", text=text)) == (
        "algorithm.recipients = 4: a node has 3 others; use at most 3",
    )


def test_complete_fills_in_the_defaults_of_the_network(experiment):
    (arm,) = complete(experiment("network=star")).resolved()["arms"]
    settings = arm["network"]["settings"]
    assert (settings["fast_mbps"], settings["concurrency"], settings["stragglers"]) == (60.0, 1, 0)


def test_an_unknown_algorithm_without_a_graph_is_told_once(experiment):
    (arm,) = experiment("algorithm=mosiac", text=TEXT.replace(f'topology = "{HERE}:Pairs"', "")).arms
    with pytest.raises(ConfigError) as caught:
        compose(arm, 1)
    (text,) = caught.value.problems
    assert text.startswith('algorithm.name = "mosiac": ')
