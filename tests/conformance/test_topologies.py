"""Every file of ``topologies/`` keeps the contract of ``decentral.topology``; a new file is found by itself.

Arguments come from the module's ``EXAMPLES``. What they lack of the required fields is filled in: degrees
of 2 and 4, three fragments, and for a path a file with the edges of a path graph.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import itertools
import json
import os
import pkgutil
import subprocess
import sys
import tempfile
import typing
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import topologies
from decentral.seeding import Seeds
from decentral.topology import Topology

ROOT = Path(topologies.__path__[0]).parent
MODULES = sorted(module.name for module in pkgutil.iter_modules(topologies.__path__))
ROUNDS = (0, 1, 2, 3, 40, 41)
MAX_LINES = 60
FILLED: dict[str, list[object]] = {"degree": [2, 4], "fragments": [3]}

Arguments = dict[str, Any]
Rows = list[tuple[tuple[int, ...], tuple[int, ...]]]


class SpiedSeeds(Seeds):
    """Streams that note which names are drawn from."""

    def __init__(self, run_seed: int) -> None:
        super().__init__(run_seed)
        self.names: set[str]
        object.__setattr__(self, "names", set())

    def _digest(self, name: str, counters: tuple[int, ...]) -> bytes:
        self.names.add(name)
        return super()._digest(name, counters)


def module_of(name: str) -> Any:
    return importlib.import_module(f"topologies.{name}")


def arguments_of(name: str) -> Iterator[Arguments]:
    """All that the class needs but ``seeds`` and paths."""
    module = module_of(name)
    types = typing.get_type_hints(module.TOPOLOGY)
    for example in getattr(module, "EXAMPLES", [{"n": 8}, {"n": 15}]):
        missing = [
            field.name
            for field in dataclasses.fields(module.TOPOLOGY)
            if field.default is dataclasses.MISSING
            and field.name not in {"seeds", *example}
            and types[field.name] is not Path
        ]
        unknown = [key for key in missing if key not in FILLED]
        assert not unknown, f"topologies/{name}.py needs {unknown}: define EXAMPLES that give them"
        for choice in itertools.product(*(FILLED[key] for key in missing)):
            yield {**example, **dict(zip(missing, choice, strict=True))}


def make(name: str, arguments: Arguments, seeds: Seeds, folder: Path) -> Any:
    """The topology; paths that it needs lead to a path graph's edges."""
    made = module_of(name).TOPOLOGY
    path = folder / f"{arguments['n']}.edges"
    paths = {key: path for key, kind in typing.get_type_hints(made).items() if kind is Path}
    if paths:
        edges = [f"{i} {i + 1}" for i in range(arguments["n"] - 1)]
        path.write_text("\n".join([str(arguments["n"]), *edges]), encoding="utf-8")
    return made(**{**paths, **arguments}, seeds=seeds)


def rows(topology: Any, t: int) -> Rows:
    """Targets and sources in round ``t`` of all fragments and nodes, fragment-major."""
    fragments = range(getattr(topology, "fragments", 2))
    return [
        (topology.targets(i, t, k), topology.sources(i, t, k)) for k in fragments for i in range(topology.n)
    ]


def digests(folder: Path) -> dict[str, str]:
    """One hash per case over all rows, as this process sees them."""
    found = {}
    for name, number, arguments in CASES:
        topology = make(name, arguments, Seeds(5), folder)
        text = json.dumps([rows(topology, t) for t in ROUNDS])
        found[f"{name}-{number}"] = hashlib.sha256(text.encode()).hexdigest()
    return found


CASES = [(name, number, case) for name in MODULES for number, case in enumerate(arguments_of(name))]
every_case = pytest.mark.parametrize(
    ("name", "arguments"), [pytest.param(name, case, id=f"{name}-{number}") for name, number, case in CASES]
)
every_module = pytest.mark.parametrize("name", MODULES)


@every_module
def test_file_is_short_and_says_what_it_is(name: str) -> None:
    module = module_of(name)
    lines = Path(module.__file__).read_text(encoding="utf-8").splitlines()
    assert len(lines) < MAX_LINES
    assert module.__doc__
    assert list(arguments_of(name))


@every_module
def test_class_is_one_frozen_keyword_only_dataclass(name: str) -> None:
    module = module_of(name)
    own = [
        value
        for key, value in vars(module).items()
        if isinstance(value, type) and value.__module__ == module.__name__ and not key.startswith("_")
    ]
    assert {*own} == {module.TOPOLOGY}
    fields = dataclasses.fields(module.TOPOLOGY)
    assert all(field.kw_only for field in fields)
    assert {"n", "seeds"} <= {field.name for field in fields}
    assert module.TOPOLOGY.__dataclass_params__.frozen
    assert module.TOPOLOGY.__doc__
    assert typing.get_type_hints(module.TOPOLOGY)["seeds"] is Seeds


@every_case
def test_rows_are_consistent(name: str, arguments: Arguments, tmp_path: Path) -> None:
    topology = make(name, arguments, Seeds(1), tmp_path)
    assert isinstance(topology, Topology)
    n = topology.n
    assert n == arguments["n"]
    undirected = True
    for t in ROUNDS:
        seen = rows(topology, t)
        for start in range(0, len(seen), n):
            graph = seen[start : start + n]
            sent = Counter((i, j) for i in range(n) for j in graph[i][0])
            received = Counter((i, j) for j in range(n) for i in graph[j][1])
            assert sent == received
            for i, (targets, sources) in enumerate(graph):
                for row in (targets, sources):
                    assert list(row) == sorted(row)
                    assert all(type(j) is int and 0 <= j < n and j != i for j in row)
            undirected &= all(targets == sources for targets, sources in graph)
    assert topology.symmetric is undirected


@every_case
def test_rows_are_pure(name: str, arguments: Arguments, tmp_path: Path) -> None:
    topology = make(name, arguments, Seeds(2), tmp_path)
    forwards = {t: rows(topology, t) for t in ROUNDS}
    again = make(name, arguments, Seeds(2), tmp_path)
    assert again == topology
    assert hash(again) == hash(topology)
    assert {t: rows(again, t) for t in reversed(ROUNDS)} == forwards
    assert {t: rows(topology, t) for t in ROUNDS} == forwards


@every_case
def test_graph_changes_exactly_where_it_should(name: str, arguments: Arguments, tmp_path: Path) -> None:
    topology = make(name, arguments, Seeds(3), tmp_path)
    drawn = [rows(topology, t) for t in ROUNDS]
    changes = any(graph != drawn[0] for graph in drawn)
    assert changes is getattr(topology, "dynamic", False)
    per_fragment = getattr(topology, "per_fragment", None)
    if per_fragment is not None and topology.fragments > 1:
        n = topology.n
        shared = all(graph[:n] == graph[n : 2 * n] for graph in drawn)
        assert shared is not per_fragment


RUN_SEEDS = itertools.count(1000, 10)


@every_case
def test_draws_follow_the_run_seed(name: str, arguments: Arguments, tmp_path: Path) -> None:
    first = next(RUN_SEEDS)
    spies = [SpiedSeeds(first + number) for number in range(10)]
    graphs = []
    for spy in spies:
        topology = make(name, arguments, spy, tmp_path)
        graphs.append([rows(topology, t) for t in ROUNDS])
    differ = any(graph != graphs[0] for graph in graphs)
    drawn_from = set().union(*(spy.names for spy in spies))
    assert drawn_from <= {"topology"}
    complete = all(len(set(targets)) == topology.n - 1 for targets, _ in graphs[0][0])
    assert differ is (bool(drawn_from) and not complete)


def test_a_fresh_process_draws_the_same(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "77"}
    command = [sys.executable, __file__]
    process = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    assert json.loads(process.stdout) == digests(tmp_path)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        print(json.dumps(digests(Path(scratch))))
