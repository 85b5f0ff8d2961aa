"""Runs that go on without lost nodes: wherever they end, the others finish, and the accounts stay exact."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decentral.config import Arm
from decentral.wire import Heard
from launch.executors import inline
from launch.executors.base import Interruption, Job, Outcome
from launch.executors.inline import InlineExecutor
from launch.paths import JobFolder
from results.metrics import by_round
from results.read import read_run
from results.report import facts
from tests.asynchronous import ROUND_S, accounts, contender
from tests.emulated import Jumbled
from tests.harness import SilentDisplay, events

ROUNDS = 8
NODES = 8


class Crash(Exception):
    """What befalls a node."""


@dataclass
class Fate:
    """Which node ends when it hears or pushes something for the n-th time."""

    left: dict[int, int] = field(default_factory=dict)

    def strike(self, node: int) -> None:
        if node in self.left:
            self.left[node] -= 1
            if self.left[node] == 0:
                raise Crash(f"node {node}")


@pytest.fixture
def fate(monkeypatch: pytest.MonkeyPatch) -> Fate:
    """Nodes run in random order in real time, and those in ``left`` end wherever they are."""
    made = Fate()

    class Deadly(Jumbled):
        def next(self, node: int, block: bool, what: Callable[[], str]) -> Heard | None:
            made.strike(node)
            return super().next(node, block, what)

    class Wire(inline.InlineWire):
        def push(self, outgoing: Any) -> None:
            made.strike(self._node)
            super().push(outgoing)

    monkeypatch.setattr(inline, "Scheduler", Deadly)
    monkeypatch.setattr(inline, "InlineWire", Wire)
    return made


def lossy(name: str, **tables: Any) -> Arm:
    """An arm of ``name`` that goes on without lost nodes."""
    run = {"on_node_failure": "continue", "test_after": 2, **tables.pop("run", {})}
    compute = {"time_per_round": ROUND_S, "slow_nodes": 2, "slow_factor": 2.5}
    if name in ("mosaic", "epidemic", "dpsgd"):
        topology = {"mosaic": "regular", "epidemic": "epidemic", "dpsgd": "ring"}[name]
        tables = {"topology": {"name": topology, "settings": {}}, **tables}
        if name != "dpsgd":
            tables["topology"] = {"name": topology, "settings": {"degree": 3}}
    return contender(name, rounds=ROUNDS, run=run, **{"compute": compute, **tables})


def outcome_of(made: Arm, folder: Path) -> Outcome:
    executor = InlineExecutor()
    try:
        with Interruption().installed() as interruption:
            return executor.run(Job(made, 1, JobFolder(folder)), SilentDisplay(), interruption)
    finally:
        executor.close()


def check(made: Arm, folder: Path, outcome: Outcome) -> Counter[str]:
    """The run is done; survivors' logs are whole and name the lost; what became of messages in all."""
    assert (outcome.state, outcome.exit_code) == ("done", 0), outcome.cause
    lost = {loss.node for loss in outcome.lost}
    total: Counter[str] = Counter()
    ends_s = []
    for node in range(made.nodes):
        lines = events(folder / "nodes" / f"{node:03}.jsonl")
        end = lines[-1]
        assert end["event"] == "end"
        if node in lost:
            assert end["reason"] == "failed"
            continue
        assert end["reason"] == "done"
        ends_s.append(end["time_s"])
        if made.run.max_rounds is not None:
            assert end["round"] == made.run.max_rounds
        assert end["received"] == end["aggregated"] + end["replaced"] + end["discarded"]
        final = [line for line in lines if line["event"] == "evaluation" and line["final"]]
        assert len(final) == 1
        assert np.isfinite(final[0]["test_loss"])
        heard = [line for line in lines if line["event"] == "lost"]
        assert len({line["peer"] for line in heard}) == len(heard)
        assert {line["peer"] for line in heard} <= lost
        total["heard"] += len(heard)
        total["missed"] += end.get("missed", 0)
    for row in accounts(folder).values():
        total.update({name: value for name, value in row.items() if not name.endswith("_bytes")})
    metrics = [line for line in events(folder / "metrics.jsonl") if line["event"] == "evaluation"]
    assert metrics[-1]["final"]
    assert metrics[-1]["models"] >= made.nodes - len(lost)
    assert np.isfinite(metrics[-1]["test_loss"])
    assert metrics[0]["models"] >= made.nodes - len(lost)
    return total


ALGORITHMS = (
    *("mosaic", "epidemic", "dpsgd", "divshare", "adpsgd", "adpsgd_pingpong", "swarm", "swift", "swift_push"),
    "gossip",
)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_nodes_that_end_anywhere_are_gone_on_without(name: str, fate: Fate, tmp_path: Path) -> None:
    """One to three of eight, at random points between two words of theirs."""
    made = lossy(name)
    total: Counter[str] = Counter()
    for seed in range(12):
        chance = random.Random(seed)
        Jumbled.seed = seed
        doomed = chance.sample(range(NODES), chance.randint(1, 3))
        fate.left = {node: chance.randint(1, 60) for node in doomed}
        folder = tmp_path / str(seed)
        outcome = outcome_of(made, folder)
        total += check(made, folder, outcome)
        total["lost"] += len(outcome.lost)
        for loss in outcome.lost:
            assert loss.node in doomed
            assert loss.cause == f"tests.conformance.test_lost_nodes.Crash: node {loss.node}"
    assert total["lost"] >= 12, "the fault was injected"
    assert total["heard"] >= 4 * total["lost"], "survivors' logs say so"
    assert total["dropped_lost_node"] > 0


def test_scores_are_those_of_the_nodes_that_are_left(fate: Fate, tmp_path: Path) -> None:
    """With the manifest, and without it, from what survivors' logs say."""
    made = lossy("mosaic")
    Jumbled.seed = 0
    fate.left = {2: 12, 5: 25}
    folder = tmp_path / made.slug / "seed-1"
    outcome = outcome_of(made, folder)
    assert [loss.node for loss in outcome.lost] == [2, 5]
    resolved = {"name": "test", "seeds": [1], "arms": [made.model_dump(mode="json")]}
    (tmp_path / "resolved.json").write_text(json.dumps(resolved), encoding="utf-8")
    entry = {"arm": made.name, "seed": 1, "folder": f"{made.slug}/seed-1", "state": "done"}
    losses = [asdict(loss) for loss in outcome.lost]
    manifest = {"v": 1, "state": "done", "jobs": [{**entry, "lost": losses}]}
    for content in (manifest, {**manifest, "jobs": [entry]}):
        (tmp_path / "manifest.json").write_text(json.dumps(content), encoding="utf-8")
        found = read_run(tmp_path)
        (job,) = found.jobs
        assert (job.lost, job.scored, job.complete, found.complete) == ((2, 5), 6, True, True)
        assert job.rounds == (ROUNDS, ROUNDS)
        assert [each.what for each in found.problems] == []
        assert set(found.evaluations["node"]) == {0, 1, 3, 4, 6, 7}
        table = by_round(found)
        assert (table["nodes"] == 6).all()
        assert table["node_avg"].notna().all()
        assert table["avg_model"].notna().all()
        (about,) = [text for name, text in facts(found) if name == "lost nodes"]
        assert about.startswith(f"{made.name}, seed 1, scores of 6 of 8 nodes: ")
        assert ("Crash: node 2" in about) == ("lost" in content["jobs"][0])
