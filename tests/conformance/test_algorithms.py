"""Every file in ``nodes/`` must pass this; a new file is found by itself."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

import numpy as np
import pytest

import nodes
from tests.harness import arm, run

MODULES = [importlib.import_module(f"nodes.{info.name}") for info in pkgutil.iter_modules(nodes.__path__)]
each_algorithm = pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)


def settings(module: ModuleType, **tables: Any) -> Any:
    """An arm with this algorithm on eight nodes; K = 4 only where the algorithm takes a fragmenter."""
    cls = module.ALGORITHM
    takes_fragments = "fragmenter" in {field.name for field in dataclasses.fields(cls)}
    example = getattr(module, "EXAMPLE", {})
    base = {
        "algorithm": {"name": module.__name__.removeprefix("nodes."), "settings": example},
        "fragments": {"count": 4 if takes_fragments else 1, "map": "global"},
    }
    return arm(**{**base, **tables})


@each_algorithm
def test_form(module: ModuleType) -> None:
    source = Path(inspect.getfile(module)).read_text(encoding="utf-8")
    assert len(source.splitlines()) < 100
    assert module.__doc__, "say which paper and algorithm this is"
    cls = module.ALGORITHM
    assert dataclasses.is_dataclass(cls)
    parameters = cls.__dataclass_params__  # type: ignore[attr-defined]
    assert parameters.frozen
    assert all(field.kw_only for field in dataclasses.fields(cls))
    assert isinstance(cls.synchronous, bool)
    assert list(inspect.signature(cls.run).parameters) == ["self", "node"]
    assert get_type_hints(cls.run)["return"] is type(None)
    assert cls.__doc__
    assert cls.run.__doc__


@each_algorithm
def test_same_seed_same_bits_other_seed_other_models(module: ModuleType, tmp_path: Path) -> None:
    first = run(settings(module), tmp_path / "a")
    again = run(settings(module), tmp_path / "b")
    other = run(settings(module), tmp_path / "c", seed=2)
    assert first.models.tobytes() == again.models.tobytes()
    assert not np.array_equal(first.models, other.models)


@each_algorithm
def test_identical_models_without_training_stay(module: ModuleType, tmp_path: Path) -> None:
    """Rows of every mixing matrix sum to 1 (algorithms.md 14.6)."""
    result = run(settings(module, train={"lr": 0.0}), tmp_path)
    initial = run(
        settings(module, train={"lr": 0.0}, run={"max_rounds": 1, "test_after": 1}), tmp_path / "one"
    )
    np.testing.assert_allclose(
        result.models, np.broadcast_to(initial.models[0], result.models.shape), rtol=1e-5
    )


@each_algorithm
def test_gossip_alone_brings_models_together(module: ModuleType, tmp_path: Path) -> None:
    rounds = {"max_rounds": 30, "test_after": 10, "init": "independent"}
    result = run(settings(module, train={"lr": 0.0}, run=rounds), tmp_path)
    distances = [line["consensus"] for line in result.metrics if line["event"] == "evaluation"]
    assert distances[0] > 1e-2
    assert distances[-1] < 1e-2 * distances[0]


@each_algorithm
def test_it_learns(module: ModuleType, tmp_path: Path) -> None:
    rounds = {"max_rounds": 60, "test_after": 20}
    result = run(settings(module, run=rounds), tmp_path)
    scores = [line["test_distance"] for line in result.metrics if line["event"] == "evaluation"]
    assert scores[-1] < 0.5 * scores[0]


@each_algorithm
def test_messages_are_conserved(module: ModuleType, tmp_path: Path) -> None:
    result = run(settings(module), tmp_path)
    ends = [lines[-1] for lines in result.nodes]
    assert all(end["event"] == "end" and end["reason"] == "done" for end in ends)
    assert all(end["made"] == end["sent"] + end["dropped"] for end in ends)
    assert sum(end["sent"] for end in ends) == sum(end["received"] for end in ends)
    assert min(end["sent"] for end in ends) > 0


@each_algorithm
def test_log_has_every_round_and_evaluation(module: ModuleType, tmp_path: Path) -> None:
    result = run(settings(module), tmp_path)
    for lines in result.nodes:
        assert lines[0]["event"] == "header"
        assert [line["round"] for line in lines if line["event"] == "round"] == [1, 2, 3, 4, 5]
        evaluations = [(line["round"], line["final"]) for line in lines if line["event"] == "evaluation"]
        assert evaluations == [(0, False), (2, False), (4, False), (5, True)]
        times = [line["time_s"] for line in lines if line["event"] == "round"]
        assert times == sorted(times)
        assert times[0] == pytest.approx(1.0)
    rounds = [(line["round"], line["models"]) for line in result.metrics if line["event"] == "evaluation"]
    assert rounds == [(0, 8), (2, 8), (4, 8), (5, 8)]
