from __future__ import annotations

import sys

import pytest

from decentral.config import Part
from decentral.errors import ConfigError
from decentral.network.presets import Star
from decentral.seeding import Seeds
from launch import parts
from tests.unit.example_parts import Knobs, Pairs, Rumor, Whisper

HERE = "tests.unit.example_parts"


def problems(kind: parts.Kind, part: Part, **injected: object) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        parts.build(kind, part, injected)
    return caught.value.problems


@pytest.mark.parametrize("kind", ["algorithm", "topology", "task", "partition", "network"])
def test_every_shipped_part_is_found_described_and_free_of_surprises(kind):
    names = parts.available(kind)
    assert names == sorted(names)
    assert names
    for name, line in parts.described(kind).items():
        assert line, f"{kind} {name} has no docstring"
        cls = parts.resolve(kind, name)
        parts.settings_model(cls, parts.INJECTED[kind])
        assert all(hasattr(cls, method) for method in parts._METHODS[kind])


def test_the_parts_of_the_shipped_experiments_are_there():
    assert {"mosaic", "epidemic", "dpsgd"} <= set(parts.available("algorithm"))
    assert {"regular", "ring"} <= set(parts.available("topology"))
    assert {"digits", "cifar10"} <= set(parts.available("task"))
    assert {"iid", "dirichlet"} <= set(parts.available("partition"))
    assert {"ideal", "star", "aws10", "file"} == set(parts.available("network"))


def test_a_network_is_built_from_its_table_alone():
    part = Part(name="star", settings={"stragglers": 8, "concurrency": "all", "fast_mbps": 200})
    star = parts.build("network", part, {})
    assert star == Star(stragglers=8, concurrency="all", fast_mbps=200.0)
    assert parts.completed("network", part).settings["straggler_factor"] == 5.0


def test_a_setting_comes_from_elsewhere_only_where_the_class_takes_it():
    part = Part(name=f"{HERE}:Rumor", settings={"topology": "ring", "local_steps": 2})
    foreign, unknown = problems("algorithm", part)
    assert foreign.startswith("algorithm.local_steps = 2: comes from train.local_steps")
    assert unknown.startswith('algorithm.topology = "ring": is not a known key')


def test_a_field_is_needed_where_it_has_no_default():
    found = [parts.needs(cls, "topology") for cls in (Knobs, Rumor, Whisper)]
    assert found == [True, False, False]


def test_building_injects_what_the_class_has():
    part = Part(name=f"{HERE}:Pairs", settings={"weight": 2})
    pairs = parts.build("topology", part, {"n": 4, "seeds": Seeds(1), "fragments": 3})
    assert pairs == Pairs(n=4, seeds=Seeds(1), weight=2.0)
    assert isinstance(pairs.weight, float)


def test_settings_are_validated_by_the_annotations():
    part = Part(name=f"{HERE}:Knobs", settings={"count": 3, "levels": [1, 0.5], "limit": 4, "mode": "fast"})
    knobs = parts.build("algorithm", part, {"local_steps": 1, "topology": None, "fragmenter": None})
    expected = {"count": 3, "levels": (1.0, 0.5), "limit": 4, "mode": "fast"}
    assert knobs == Knobs(local_steps=1, topology=None, fragmenter=None, **expected)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({}, "algorithm.count = (not set): is required; add count"),
        ({"count": "3"}, 'algorithm.count = "3": must be an integer; remove the quotes: 3'),
        ({"count": True}, "algorithm.count = true: must be an integer; write a whole number such as 1"),
        ({"count": 3.0}, "algorithm.count = 3.0: must be an integer; write a whole number such as 1"),
        (
            {"count": 3, "rate": float("nan")},
            "algorithm.rate = nan: must be a finite number; write for example rate = 0.5",
        ),
        (
            {"count": 3, "mode": "fats"},
            'algorithm.mode = "fats": must be one of "slow", "fast"; did you mean fast?',
        ),
        (
            {"count": 3, "levels": [0.1, "x"]},
            'algorithm.levels[1] = "x": must be a number; write a number such as 0.5',
        ),
        (
            {"count": 3, "limit": "x"},
            'algorithm.limit = "x": must be an integer; write a whole number such as 1',
        ),
        (
            {"count": 3, "flush": 1},
            "algorithm.flush = 1: must be true or false; write for example flush = true",
        ),
        (
            {"count": 3, "share": "?"},
            'algorithm.share = "?": must be a number or one of "all", "half"; write for example share = 0.5',
        ),
        (
            {"count": 3, "share": "hal"},
            'algorithm.share = "hal": must be a number or one of "all", "half"; did you mean half?',
        ),
        (
            {"count": 3, "share": 0},
            'algorithm.share = 0: must be > 0 or one of "all", "half"; use a value above 0',
        ),
        ({"count": 3, "modes": 1}, "algorithm.modes = 1: is not a known key; did you mean algorithm.mode?"),
        (
            {"count": 3, "local_steps": 1},
            "algorithm.local_steps = 1: comes from train.local_steps; set that instead",
        ),
    ],
)
def test_impossible_settings(settings, problem):
    assert problems("algorithm", Part(name=f"{HERE}:Knobs", settings=settings)) == (problem,)


def test_all_impossible_settings_are_told():
    part = Part(name=f"{HERE}:Knobs", settings={"rate": "x", "n": 1, "topology": 2})
    keys = [text.partition(" = ")[0] for text in problems("algorithm", part)]
    assert sorted(keys) == ["algorithm.count", "algorithm.n", "algorithm.rate", "algorithm.topology"]


def test_a_refusal_of_the_class_itself_gets_the_key_path():
    part = Part(name=f"{HERE}:Pairs")
    assert problems("topology", part, n=5, seeds=Seeds(1)) == (
        "topology: pairs(n=5): n must be even; use n = 6",
    )


def test_completed_parts_hold_all_defaults_and_are_stable():
    part = parts.completed("algorithm", Part(name=f"{HERE}:Knobs", settings={"count": 3}))
    assert part.settings == {
        "count": 3,
        "rate": 0.5,
        "mode": "slow",
        "levels": [0.1, 0.2],
        "limit": None,
        "flush": True,
        "share": 0.5,
    }
    assert parts.completed("algorithm", part) == part


@pytest.mark.parametrize(
    ("kind", "name", "words"),
    [
        ("algorithm", "mosiac", ["algorithm.name", '"mosiac"', "did you mean mosaic?"]),
        ("task", "../secrets", ["data.name", "use one of"]),
        ("topology", "__init__", ["topology.name", "is not a known topology"]),
        ("topology", "no_such_package.sub:Ring", ["no_such_package", "cannot be imported", "PYTHONPATH"]),
        ("topology", f"{HERE}:Piars", ["has no class Piars", "did you mean Pairs?"]),
        ("topology", f"{HERE}:HERE", ["has no class HERE"]),
        ("algorithm", f"{HERE}:Pairs", ["is no algorithm", "lacks run"]),
        ("task", f"{HERE}:LoadedLine", ["is no task", "lacks"]),
        ("partition", f"{HERE}:Unusable", ["Unusable", "correct the class"]),
    ],
)
def test_names_that_mean_nothing(kind, name, words):
    (text,) = problems(kind, Part(name=name))
    assert all(word in text for word in words), text


def test_a_module_that_fails_on_import_is_named_with_its_cause(tmp_path, monkeypatch):
    (tmp_path / "broken_lab.py").write_text("import math\nmath.no_such_function()\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    (text,) = problems("algorithm", Part(name="broken_lab:Rumor"))
    assert "module broken_lab cannot be imported (AttributeError: " in text
    assert "broken_lab" not in sys.modules
