"""Every file in ``nodes/`` must pass this; a new file is found by itself.

What an algorithm cannot run without beyond the defaults stands in its module as ``EXAMPLE``.
"""

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
from decentral.config import Arm
from tests.harness import Result, arm, composed, events, run

MODULES = [importlib.import_module(f"nodes.{info.name}") for info in pkgutil.iter_modules(nodes.__path__)]
ASYNCHRONOUS = [module for module in MODULES if not module.ALGORITHM.synchronous]
each_algorithm = pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)


def settings(module: ModuleType, **tables: Any) -> Arm:
    """An arm with this algorithm on eight nodes, with fragments and a static graph where it takes them.

    Where rounds are a matter of arrivals, the time limit is that of ``max_rounds`` rounds of the others.
    """
    cls = module.ALGORITHM
    fields = {field.name for field in dataclasses.fields(cls)}
    base: dict[str, Any] = {
        "algorithm": {
            "name": module.__name__.removeprefix("nodes."),
            "settings": getattr(module, "EXAMPLE", {}),
        },
        "fragments": {"count": 4 if "fragmenter" in fields else 1, "map": "global"},
        "topology": {"name": "regular", "settings": {"degree": 3, "dynamic": cls.synchronous}},
    }
    if "topology" not in fields:
        base["topology"] = None
    rounds = {"max_rounds": 5, "test_after": 2, **tables.get("run", {})}
    if getattr(cls, "needs_time_limit", False):
        rounds |= {"time_limit_s": float(rounds["max_rounds"]), "max_rounds": None}
    return arm(**{**base, **tables, "run": rounds})


def accounts(folder: Path) -> list[dict[str, Any]]:
    """What became of each node's messages, per link, as the emulated network has it."""
    return [line for line in events(folder / "network.jsonl") if line["event"] == "links"]


def scores(result: Result, key: str) -> list[float]:
    """``key`` at every evaluation of the mean model."""
    return [line[key] for line in result.metrics if line["event"] == "evaluation"]


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
    assert not (cls.synchronous and hasattr(cls, "volume")), "the graph says it"
    assert cls.synchronous or cls.volume.__doc__
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
    distances = scores(result, "consensus")
    assert distances[0] > 1e-2
    assert distances[-1] < 1e-2 * distances[0]


@each_algorithm
def test_it_learns(module: ModuleType, tmp_path: Path) -> None:
    rounds = {"max_rounds": 60, "test_after": 20}
    result = run(settings(module, run=rounds, train={"lr": 0.1}), tmp_path)
    distances = scores(result, "test_distance")
    assert distances[-1] < 0.4 * distances[0]


@each_algorithm
def test_messages_are_conserved(module: ModuleType, tmp_path: Path) -> None:
    """Per link: made = delivered + replaced + dropped + in flight; and nodes and network agree on it."""
    result = run(settings(module), tmp_path)
    ends = [lines[-1] for lines in result.nodes]
    assert all(end["event"] == "end" and end["reason"] == "done" for end in ends)
    rows = accounts(tmp_path)
    fates = [
        "delivered",
        "replaced",
        "dropped_flush",
        "dropped_abort",
        "dropped_loss",
        "dropped_end",
        "in_flight",
    ]
    for unit in ("", "_bytes"):
        for row in rows:
            made = np.sum([row[fate + unit] for fate in fates], axis=0)
            assert made.tolist() == row["made" + unit]
        assert [sum(row["made" + unit]) for row in rows] == [end["made" + unit] for end in ends]
    for end in ends:
        assert end["received"] == end["aggregated"] + end["replaced"] + end["discarded"]
    arrived = sum(sum(row["delivered"]) + sum(row["replaced"]) for row in rows)
    assert 0 < sum(end["received"] for end in ends) <= arrived
    if module.ALGORITHM.synchronous:
        assert all(end["made"] == end["sent"] for end in ends)
        assert sum(end["received"] for end in ends) == arrived == sum(end["made"] for end in ends)


@each_algorithm
def test_log_has_every_round_and_evaluation(module: ModuleType, tmp_path: Path) -> None:
    result = run(settings(module), tmp_path)
    nominal_s = events(tmp_path / "network.jsonl")[0]["compute_s"][0]
    by_arrival = getattr(module.ALGORITHM, "needs_time_limit", False)
    for lines in result.nodes:
        assert lines[0]["event"] == "header"
        rounds = [line["round"] for line in lines if line["event"] == "round"]
        last = len(rounds)
        assert rounds == list(range(1, last + 1))
        assert by_arrival or last == 5
        evaluations = [(line["round"], line["final"]) for line in lines if line["event"] == "evaluation"]
        if by_arrival:  # at most once in every two nominal rounds, whatever local rounds end then
            scored = [line["time_s"] for line in lines if line["event"] == "evaluation"][:-1]
            steps = [int(time / (2 * nominal_s) + 1e-9) for time in scored]
            assert steps == sorted(set(steps))
            assert len(steps) > 1
        else:
            assert evaluations[:-1] == [(r, False) for r in range(0, last, 2)]
        assert evaluations[-1] == (last, True)
        times = [line["time_s"] for line in lines if line["event"] == "round"]
        assert times == sorted(times)
        assert by_arrival or times == pytest.approx([1.0, 2.0, 3.0, 4.0, 5.0])
    measured = [(line["round"], line["models"]) for line in result.metrics if line["event"] == "evaluation"]
    assert measured[0] == (0, 8)
    assert by_arrival or measured[1:3] == [(2, 8), (4, 8)]
    assert measured[-1][1] == 8


@pytest.mark.parametrize("module", ASYNCHRONOUS, ids=lambda module: module.__name__)
def test_attempted_volume_is_what_the_algorithm_says(module: ModuleType, tmp_path: Path) -> None:
    """14.10: whole models queued per node and round; a pong of the last round may be asked for too late."""
    made = settings(module, run={"max_rounds": 40, "test_after": 20})
    result = run(made, tmp_path)
    parts = composed(made)
    volume = parts.algorithm(local_steps=1).volume(made.nodes)
    queued = [lines[-1]["made_bytes"] / (4 * result.models.shape[1]) for lines in result.nodes]
    assert np.sum(queued) / (made.nodes * 40) == pytest.approx(volume, rel=0.05)
