from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decentral.config import SHIPPED, Arm, Experiment, load
from decentral.config.merge import canonical, merged, parse_override
from decentral.config.problems import common, shown
from decentral.errors import ConfigError

TEXT = """
name = "compare"
nodes = 8
seeds = [3, 1]
algorithm = "mosaic"
topology = { name = "regular", degree = 4 }
[data]
name = "digits"
flip = true
partition = { name = "dirichlet", alpha = 0.1 }
[train]
lr = 1
batch = 8
local_steps = 4
[run]
max_rounds = 10
"""

ARMS = """
[[arm]]
name = "Mosaic K=16"
fragments.count = 16
topology.degree = 2
[[arm]]
name = "D-PSGD on a ring"
algorithm = "dpsgd"
topology.name = "ring"
data = { name = "cifar10", validation = 0.1 }
train.full_epochs = 2
"""


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str) -> Path:
        path = tmp_path / "experiment.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_one_arm_named_after_its_algorithm(write):
    experiment = load(write(TEXT))
    assert experiment.seeds == (3, 1)
    assert [arm.name for arm in experiment.arms] == ["mosaic"]
    assert experiment.source == TEXT
    third_party = TEXT.replace('"mosaic"', '"my_lab.gossip:Rumor"')
    assert [arm.name for arm in load(write(third_party)).arms] == ["Rumor"]


def test_defaults_are_those_of_the_documentation(write):
    (arm,) = load(write(TEXT)).arms
    assert arm.train.lr == 1.0
    assert isinstance(arm.train.lr, float)
    assert (arm.train.momentum, arm.train.weight_decay, arm.train.full_epochs) == (0.0, 0.0, None)
    assert (arm.run.test_after, arm.run.init, arm.run.liveness_timeout_s) == (10, "common", 300.0)
    assert arm.run.save_models is True
    assert (arm.evaluate.samples, arm.evaluate.split, arm.evaluate.scope) == (None, "test", "global")
    assert (arm.fragments.count, arm.fragments.map) == (1, "per_tensor")
    compute = arm.compute
    assert (compute.time_per_round, compute.match_comm, compute.recipients) == (1.0, "nominal", None)
    assert (compute.slow_nodes, compute.slow_which, compute.jitter) == (0, "random", 0.0)
    assert (arm.run.clock, arm.run.time_limit_s) == ("virtual", None)
    assert (arm.network.name, arm.network.settings) == ("ideal", {})
    assert arm.data.validation == 0.0


@pytest.mark.parametrize("spelling", ['network = "star"\n', '[network]\nname = "star"\n'])
def test_a_network_is_a_name_or_a_table(spelling, write):
    text = TEXT.replace("[data]", f"{spelling}[data]")
    (arm,) = load(write(text), ["network.stragglers=8", "network.concurrency=all"]).arms
    assert (arm.network.name, arm.network.settings) == ("star", {"stragglers": 8, "concurrency": "all"})


def test_another_network_drops_the_settings_of_the_former_one(write):
    text = TEXT.replace("[data]", 'network = { name = "star", stragglers = 8 }\n[data]')
    mosaic, _ = load(write(text + ARMS), ['arm."Mosaic K=16".network=aws10']).arms
    assert (mosaic.network.name, mosaic.network.settings) == ("aws10", {})
    star, _ = load(write(text + ARMS), ["network.name=star", "network.sd_mbps=0.0"]).arms
    assert star.network.settings == {"stragglers": 8, "sd_mbps": 0.0}


def test_a_run_ends_by_rounds_or_time_or_whichever_comes_first(write):
    text = TEXT.replace("max_rounds = 10", "time_limit_s = 800")
    (arm,) = load(write(text)).arms
    assert (arm.run.max_rounds, arm.run.time_limit_s) == (None, 800.0)
    (arm,) = load(write(text), ["run.max_rounds=7", "run.clock=wall"]).arms
    assert (arm.run.max_rounds, arm.run.time_limit_s, arm.run.clock) == (7, 800.0, "wall")


def test_rounds_that_all_arms_give_themselves_are_not_missed_in_the_defaults(write):
    text = TEXT.replace("max_rounds = 10", "test_after = 5") + ARMS
    text = text.replace('"D-PSGD on a ring"', '"D-PSGD on a ring"\nrun.time_limit_s = 9')
    arms = load(write(text), ['arm."Mosaic K=16".run.max_rounds=3']).arms
    assert [(arm.run.max_rounds, arm.run.time_limit_s) for arm in arms] == [(3, None), (None, 9.0)]


def test_without_a_graph_there_is_none(write):
    (arm,) = load(write(TEXT.replace('topology = { name = "regular", degree = 4 }', ""))).arms
    assert arm.topology is None
    assert Arm.model_validate(json.loads(json.dumps(arm.model_dump(mode="json")))) == arm


def test_what_an_arm_inherits_is_what_neither_it_nor_an_override_of_it_mentions(write):
    experiment = load(write(TEXT + ARMS), ["network=star", 'arm."Mosaic K=16".data.flip=false'])
    mosaic, ring = (experiment.inherited[arm.name] for arm in experiment.arms)
    assert set(mosaic) == {"nodes", "algorithm", "train", "run", "network"}
    assert set(ring) == {"nodes", "run", "network"}
    (names,) = load(write(TEXT)).inherited.values()
    assert set(names) == {"nodes", "algorithm", "topology", "data", "train", "run"}


def test_arms_override_deeply_and_drop_the_settings_of_another_part(write):
    mosaic, ring = load(write(TEXT + ARMS)).arms
    assert mosaic.topology.name == "regular"
    assert mosaic.topology.settings == {"degree": 2}
    assert mosaic.data.settings == {"flip": True}
    assert mosaic.fragments.count == 16
    assert ring.topology.name == "ring"
    assert ring.topology.settings == {}
    assert ring.data.settings == {}
    assert ring.data.validation == 0.1
    assert ring.data.partition.settings == {"alpha": 0.1}
    assert (ring.train.local_steps, ring.train.full_epochs) == (None, 2)


def test_overrides_win_over_the_arms_and_a_later_one_over_an_earlier(write):
    overrides = ["topology.degree=6", "train.lr=0.1", "train.lr=0.2", "name=again", "seeds=[9]"]
    experiment = load(write(TEXT + ARMS), overrides)
    assert (experiment.name, experiment.seeds) == ("again", (9,))
    assert [arm.topology.settings for arm in experiment.arms] == [{"degree": 6}, {"degree": 6}]
    assert {arm.train.lr for arm in experiment.arms} == {0.2}


def test_an_override_of_a_part_drops_what_arms_set_for_the_former_part(write):
    mosaic, _ = load(write(TEXT + ARMS), ["topology=ring"]).arms
    assert (mosaic.topology.name, mosaic.topology.settings) == ("ring", {})


def test_an_override_can_address_one_arm(write):
    mosaic, ring = load(write(TEXT + ARMS), ['arm."Mosaic K=16".train.lr = 0.3']).arms
    assert (mosaic.train.lr, ring.train.lr) == (0.3, 1.0)


def test_seeds_of_the_call_win(write):
    assert load(write(TEXT), ["seeds=[9]"], seeds=[5, 6]).seeds == (5, 6)


@pytest.mark.parametrize(
    ("text", "table"),
    [
        ("train.lr=0.1", {"train": {"lr": 0.1}}),
        ("run.init=perturb(4)", {"run": {"init": "perturb(4)"}}),
        ('description="a = b"', {"description": "a = b"}),
        ("a.b-c.d=[1, 2]", {"a": {"b-c": {"d": [1, 2]}}}),
        ("data.partition={name='iid'}", {"data": {"partition": {"name": "iid"}}}),
        ("name=1\nseeds=[2]", {"name": "1\nseeds=[2]"}),  # one assignment stays one
    ],
)
def test_override_values_are_toml_or_bare_strings(text, table):
    assert parse_override(text).table == table


def test_arms_round_trip_through_json(write):
    for arm in load(write(TEXT + ARMS)).arms:
        assert Arm.model_validate(json.loads(json.dumps(arm.model_dump(mode="json")))) == arm


def test_resolved_is_json_with_every_key(write):
    experiment = load(write(TEXT + ARMS))
    resolved = json.loads(json.dumps(experiment.resolved(), allow_nan=False))
    assert list(resolved) == ["name", "description", "seeds", "target", "arms"]
    assert resolved["arms"][0]["run"]["test_after"] == 10
    assert [Arm.model_validate(arm) for arm in resolved["arms"]] == list(experiment.arms)


def test_settings_are_frozen(write):
    (arm,) = load(write(TEXT)).arms
    with pytest.raises(ValueError, match="frozen"):
        arm.train.lr = 3.0


def test_perturbation_is_the_m_of_init(write):
    assert load(write(TEXT), ["run.init=perturb(4)"]).arms[0].run.perturbation == 4.0
    assert load(write(TEXT), ["run.init=perturb(1e-2)"]).arms[0].run.perturbation == 0.01
    assert load(write(TEXT)).arms[0].run.perturbation is None


def _arm(name: str) -> Arm:
    parts = {"algorithm": {"name": "mosaic"}, "topology": {"name": "ring"}, "data": {"name": "digits"}}
    train = {"lr": 0.1, "batch": 8, "local_steps": 1}
    return Arm.model_validate({"name": name, "nodes": 4, **parts, "train": train, "run": {"max_rounds": 1}})


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("Mosaic K=16", "Mosaic-K=16"),
        ("figures", "figures-arm"),
        ("Manifest.JSON", "Manifest.JSON-arm"),
        ("...hidden", "hidden"),
        ("-rf", "rf"),
        ("\N{GREEK CAPITAL LETTER OMEGA}", "arm"),
    ],
)
def test_slugs(name, slug):
    assert _arm(name).slug == slug


@given(st.text(min_size=1, max_size=80))
def test_every_accepted_name_has_a_safe_folder(name):
    try:
        slug = _arm(name).slug
    except ValueError:
        return
    assert slug.isascii()
    assert 0 < len(slug) <= 84
    assert not set(slug) & set('/\\ \0\n:*?"<>|')
    assert slug[0] not in ".-"


def test_problems_of_all_tables_are_told_at_once(write):
    text = (TEXT + ARMS).replace("lr = 1", 'lr = "1"').replace("[3, 1]", "[3, 3]")
    with pytest.raises(ConfigError) as caught:
        load(write(text), ["run.max_rounds=0", "nonsense", "arm.D-PSGD.nodes=4"])
    keys = [problem.partition(" = ")[0] for problem in caught.value.problems]
    assert sorted(keys) == sorted(["--set", "seeds", "train.lr", "run.max_rounds", "--set arm.D-PSGD"])


def test_a_problem_of_one_arm_names_it_and_one_of_the_defaults_is_told_once(write):
    with pytest.raises(ConfigError) as caught:
        load(
            write(TEXT + ARMS + "nodes = 1\nalgorithm.name = 3".replace("algorithm.name = 3", "")),
            ["train.batch=0"],
        )
    batch, nodes = caught.value.problems
    assert batch.startswith("train.batch = 0: ")
    assert nodes.startswith('arm "D-PSGD on a ring": nodes = 1: ')


def test_what_the_defaults_lack_is_told_once_unless_an_arm_gives_it(write):
    text = (TEXT + ARMS).replace("local_steps = 4", "")
    with pytest.raises(ConfigError) as caught:
        load(write(text))
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].startswith('arm "Mosaic K=16": train.local_steps = (not set): ')


def test_common_problems_lose_the_arm():
    problems = {'arm "a"': ["x", "y"], 'arm "b"': ["y", "z", "z"]}
    assert common(problems) == ['arm "a": x', "y", 'arm "b": z']
    assert common({}) == []


def test_values_are_shown_as_in_toml_and_shortened():
    assert shown({"a": [True, float("nan"), "b"], "c": -float("inf")}) == '{a = [true, nan, "b"], c = -inf}'
    assert shown(None) == "(not set)"
    assert len(shown("x" * 1000)) <= 60


@given(
    st.dictionaries(
        st.sampled_from("abc"), st.integers() | st.dictionaries(st.sampled_from("de"), st.integers())
    )
)
def test_merging_is_idempotent_and_leaves_its_arguments_alone(over):
    base = {"a": {"d": 1}, "b": 2}
    once = merged(base, over)
    assert merged(once, over) == once
    assert base == {"a": {"d": 1}, "b": 2}
    assert merged(base, {}) == base


def test_short_forms_are_the_long_ones():
    short = {
        "algorithm": "mosaic",
        "data": {"name": "digits", "partition": "iid", "validation": 0.1, "flip": 1},
    }
    partition = {"name": "iid", "settings": {}}
    data = {"name": "digits", "partition": partition, "validation": 0.1, "settings": {"flip": 1}}
    assert canonical(short) == {"algorithm": {"name": "mosaic", "settings": {}}, "data": data}


def test_a_bare_name_is_that_of_a_shipped_experiment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load(Path("default")) == load(SHIPPED / "default.toml")
    (tmp_path / "default").write_text(TEXT, encoding="utf-8")
    assert load(Path("default")).name == "compare"  # a file of the user's goes first


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.toml")), ids=lambda path: path.stem)
def test_shipped_experiments_load(path):
    experiment = load(path)
    assert isinstance(experiment, Experiment)
    assert len({arm.slug for arm in experiment.arms}) == len(experiment.arms) > 1
    assert experiment.description
