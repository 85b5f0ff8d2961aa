"""A killed node does not end a run that goes on without it: named, noted by the others, and nothing hangs."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from decentral.config import Arm
from launch.checkpoints import folder_of, load, numbers
from launch.executors.base import Interruption, Job, Outcome
from launch.executors.fleet import Fleet
from launch.executors.local import LocalExecutor
from launch.executors.starters import LocalStarter
from launch.paths import JobFolder
from tests.asynchronous import accounts
from tests.conformance.test_lost_nodes import lossy
from tests.fleets import loopback, tidy_up_after_a_killed_agent
from tests.harness import SilentDisplay, events, header
from tests.integration.leisurely import braked

NODES = 8
FULL = os.environ.get("DECENTRAL_FULL") == "1"


class Killer(SilentDisplay):
    """SIGKILLs nodes when some node has come so far; lets the others go on once it has killed ``all_of``."""

    def __init__(
        self, folder: Path, when: Callable[[int, int], list[int]], all_of: Sequence[int] = ()
    ) -> None:
        super().__init__()
        self._folder = folder
        self._when = when
        self._all_of = set(all_of)
        self.killed: set[int] = set()
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def progress(self, node: int, round: int, train_loss: float | None) -> None:
        super().progress(node, round, train_loss)
        for other in self._when(node, round):
            if other not in self.killed:
                self.killed.add(other)
                log = self._folder / "nodes" / f"{other:03}.jsonl"
                os.kill(header(log)["pid"], signal.SIGKILL)
        if self._all_of and self.killed >= self._all_of:
            brake_in(self._folder).touch()


def brake_in(folder: Path) -> Path:
    """The file that ``slow`` runs in ``folder`` wait for."""
    return folder.with_name(f"{folder.name}-brake")


def run_killing(
    made: Arm, folder: Path, when: Callable[[int, int], list[int]], all_of: Sequence[int] = ()
) -> tuple[Outcome, Killer]:
    executor = LocalExecutor()
    killer = Killer(folder, when, all_of)
    try:
        with Interruption().installed() as interruption:
            return executor.run(Job(made, 1, JobFolder(folder)), killer, interruption), killer
    finally:
        executor.close()


def slow(name: str, folder: Path, rounds: int = 24, hold_at: int | None = 20, **tables: Any) -> Arm:
    """A run in ``folder`` in whose middle nodes wait until those that are to be killed are."""
    run = {"max_rounds": rounds, "test_after": rounds // 2}
    data = braked(brake_in(folder), hold_at)
    return lossy(name, run=run, data=data, train={"local_steps": 100, "lr": 0.002}, **tables)


def check(made: Arm, folder: Path, outcome: Outcome, killed: set[int]) -> None:
    """Done; the loss is named; survivors finished all rounds, say so, and are scored; accounts are exact."""
    assert (outcome.state, outcome.exit_code) == ("done", 0), outcome.cause
    assert {loss.node for loss in outcome.lost} == killed
    accounts(folder)
    for loss in outcome.lost:
        assert loss.host == "localhost"
        assert loss.cause.startswith("was killed by SIGKILL")
        assert f"after round {loss.round} of" in loss.cause
        assert loss.time_s is not None
    for node in range(made.nodes):
        lines = events(folder / "nodes" / f"{node:03}.jsonl")
        if node in killed:
            assert lines[-1]["event"] != "end"
            continue
        assert (lines[-1]["event"], lines[-1]["reason"]) == ("end", "done")
        assert lines[-1]["round"] == made.run.max_rounds
        assert {line["peer"] for line in lines if line["event"] == "lost"} == killed
        final = [line for line in lines if line["event"] == "evaluation" and line["final"]]
        assert len(final) == 1
        start = next(line["test_loss"] for line in lines if line["event"] == "evaluation")
        assert final[0]["test_loss"] < start, "it has learned"
    metrics = events(folder / "metrics.jsonl")
    assert (metrics[-1]["event"], metrics[-1]["reason"]) == ("end", "done")
    assert metrics[-2]["final"]
    assert metrics[-2]["models"] == made.nodes - len(killed)
    assert np.isfinite(metrics[-2]["test_loss"])


@pytest.mark.parametrize("name", ["mosaic", "epidemic", "dpsgd", "divshare", "adpsgd", "swift", "swarm"])
def test_a_killed_node(name: str, tmp_path: Path) -> None:
    """Node 3, wherever it is when some node has finished round 5."""
    made = slow(name, tmp_path)
    outcome, killer = run_killing(made, tmp_path, lambda node, round: [3] if round >= 5 else [], [3])
    check(made, tmp_path, outcome, {3})
    assert len(killer.notes) == 1
    assert killer.notes[0].startswith("node 3 on host localhost was killed by SIGKILL")
    assert killer.notes[0].endswith("; the others go on without it")


@pytest.mark.parametrize("name", ["mosaic", "divshare"])
def test_two_killed_nodes(name: str, tmp_path: Path) -> None:
    made = slow(name, tmp_path)

    def when(node: int, round: int) -> list[int]:
        return [2] * (round >= 3) + [6] * (round >= 8)

    outcome, _ = run_killing(made, tmp_path, when, [2, 6])
    check(made, tmp_path, outcome, {2, 6})
    first, second = outcome.lost
    assert first.time_s is not None
    assert second.time_s is not None
    assert first.time_s <= second.time_s


def test_a_passive_and_an_active_node_of_adpsgd(tmp_path: Path) -> None:
    made = slow("adpsgd", tmp_path, algorithm={"name": "adpsgd", "settings": {"roles": "parity"}})
    outcome, _ = run_killing(made, tmp_path, lambda node, round: [4, 1] if round >= 5 else [], [4, 1])
    check(made, tmp_path, outcome, {4, 1})


def test_a_failed_node_is_lost_too(tmp_path: Path) -> None:
    algorithm = {"name": "tests.integration.faulty:Faulty", "settings": {"how": "raise", "round": 4}}
    made = lossy("epidemic", algorithm=algorithm, fragments={"count": 1})
    outcome, _ = run_killing(made, tmp_path, lambda node, round: [])
    assert outcome.state == "done", outcome.cause
    (loss,) = outcome.lost
    assert (loss.node, loss.round) == (3, 4)
    assert loss.cause.startswith("failed after round 4 of 8: ValueError: the learning rate is purple")


@pytest.mark.parametrize(("how", "round"), [("kill", 0), ("kill_in_exchange", 0), ("kill_in_exchange", 4)])
def test_a_node_that_is_killed_in_its_first_step_or_while_it_waits(
    how: str, round: int, tmp_path: Path
) -> None:
    algorithm = {"name": "tests.integration.faulty:Faulty", "settings": {"how": how, "round": round}}
    made = lossy("epidemic", algorithm=algorithm, fragments={"count": 1}, train={"lr": 0.002})
    outcome, _ = run_killing(made, tmp_path, lambda node, round: [])
    check(made, tmp_path, outcome, {3})
    assert outcome.lost[0].round == round


@pytest.mark.parametrize("name", ["mosaic", "divshare", "adpsgd", "swift"])
def test_random_kills_while_checkpoints_are_made(name: str, tmp_path: Path) -> None:
    """Up to three of eight, whatever they do just then: nothing hangs, and no checkpoint lacks a node.

    In every other run the nodes wait for the kills; in the others the last kills may come too late.
    """
    lost = 0
    for seed in range(30 if FULL else 2):
        chance = random.Random(f"{name} {seed}")
        folder = tmp_path / str(seed)
        held = seed % 2 == 0
        # The slowest nodes have done more than 14 rounds when the fastest, 2.5 times as fast, are held.
        rounds, hold_at = (48, 44) if held else (16, None)
        made = slow(name, folder, rounds, hold_at, checkpoint={"every": 1})
        victims = chance.sample(range(NODES), chance.randint(1, 3))
        survivors = sorted(set(range(NODES)) - set(victims))
        doomed = {victim: (chance.choice(survivors), chance.randint(0, 14)) for victim in victims}
        seen: dict[int, int] = {}

        def when(node: int, round: int, seen: Any = seen, doomed: Any = doomed) -> list[int]:
            seen[node] = round
            return [victim for victim, (by, at) in doomed.items() if seen.get(by, -1) >= at]

        outcome, killer = run_killing(made, folder, when, victims if held else [])
        assert (outcome.state, outcome.exit_code) == ("done", 0), outcome.cause
        gone = {loss.node for loss in outcome.lost}
        lost += len(gone)
        # One that is killed at the very end has done all there was to do.
        assert gone <= killer.killed
        assert not held or gone == set(victims)
        accounts(folder)
        for node in set(range(NODES)) - killer.killed:
            last = events(folder / "nodes" / f"{node:03}.jsonl")[-1]
            assert (last["event"], last["reason"], last["round"]) == ("end", "done", rounds)
        for number in numbers(JobFolder(folder)):
            checkpoint = load(folder_of(JobFolder(folder), number))
            assert checkpoint is None or len(checkpoint.entries) == NODES + 2
    assert lost


def run_losing_a_host(made: Arm, folder: Path, needed: int) -> set[int]:
    """Run on two hosts, of which the one without member ``needed`` loses its agent, and its nodes with it.

    Returns:
        The nodes that were lost, in a run that came to its end.
    """
    executor = Fleet(loopback(2), LocalStarter())
    there: list[int] = []

    class Striker(Killer):
        def hosts(self, members: Mapping[str, Sequence[int]]) -> None:
            (name,) = [name for name, each in members.items() if needed not in each]
            there[:] = [*members[name], executor.meet()[name]["pid"]]

        def progress(self, node: int, round: int, train_loss: float | None) -> None:
            super().progress(node, round, train_loss)
            if round >= 5 and not self.killed:
                self.killed.update(there[:-1])
                os.kill(there[-1], signal.SIGKILL)
                brake_in(folder).touch()

    striker = Striker(folder, lambda node, round: [])
    try:
        with Interruption().installed() as interruption:
            outcome = executor.run(Job(made, 1, JobFolder(folder)), striker, interruption)
    finally:
        executor.close()
        tidy_up_after_a_killed_agent()
    assert (outcome.state, outcome.exit_code) == ("done", 0), outcome.cause
    assert {loss.node for loss in outcome.lost} == striker.killed != set()
    for loss in outcome.lost:
        assert loss.cause.startswith(f"was lost: agent on host {loss.host} was killed by signal 9")
        assert loss.time_s is not None
    return striker.killed


@pytest.mark.parametrize("name", ["mosaic", "adpsgd"])
def test_a_lost_host(name: str, tmp_path: Path) -> None:
    """The one without observer and timekeeper."""
    lost = run_losing_a_host(slow(name, tmp_path), tmp_path, NODES + 1)
    accounts(tmp_path)
    for node in set(range(NODES)) - lost:
        lines = events(tmp_path / "nodes" / f"{node:03}.jsonl")
        assert (lines[-1]["event"], lines[-1]["reason"], lines[-1]["round"]) == ("end", "done", 24)
        assert {line["peer"] for line in lines if line["event"] == "lost"} == lost


def test_fewer_than_two_are_no_run(tmp_path: Path) -> None:
    """All but one of four."""
    made = slow("epidemic", tmp_path, nodes=4, topology={"name": "epidemic", "settings": {"degree": 2}})
    outcome, _ = run_killing(made, tmp_path, lambda node, round: [1, 2, 3] if round >= 3 else [])
    assert (outcome.state, outcome.exit_code) == ("failed", 4)
    assert outcome.cause is not None
    assert "was killed by SIGKILL" in outcome.cause
    assert outcome.cause.endswith("3 of 4 nodes are lost, and a run needs 2")


def holder_of(log: Path) -> psutil.Process:
    """The process of this test's run that writes ``log``."""
    for process in psutil.Process().children(recursive=True):
        if str(log) in [file.path for file in process.open_files()]:
            return process
    raise AssertionError(f"nobody writes {log}")


@pytest.mark.parametrize(("log", "who"), [("metrics", "the observer"), ("network", "the timekeeper")])
def test_the_observer_and_the_timekeeper_cannot_be_gone_on_without(
    log: str, who: str, tmp_path: Path
) -> None:
    made = slow("epidemic", tmp_path)
    killed: list[psutil.Process] = []

    def when(node: int, round: int) -> list[int]:
        if round >= 3 and not killed:
            killed.append(holder_of(tmp_path / f"{log}.jsonl"))
            killed[0].kill()
        return []

    outcome, _ = run_killing(made, tmp_path, when)
    assert outcome.state == "failed"
    assert outcome.cause is not None
    assert outcome.cause.startswith(f"{who} on host localhost was killed by SIGKILL")
    assert outcome.lost == ()
