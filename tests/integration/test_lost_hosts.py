"""A host that is lost in one job takes no part in the next ones, whose nodes run on the others."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from decentral.config import Arm
from decentral.errors import PreflightError
from launch.executors.base import Interruption, Job, Outcome
from launch.executors.fleet import Fleet
from launch.executors.starters import LocalStarter
from launch.hosts import Host, Hosts
from launch.paths import JobFolder
from tests.fleets import tidy_up_after_a_killed_agent
from tests.harness import SilentDisplay, events, run
from tests.integration.test_lost_nodes import NODES, brake_in, slow


def three(**keys: Any) -> Hosts:
    """Observer and timekeeper are on h3."""
    hosts = [Host(name=f"h{i}", bind=f"127.0.0.{i}", share=int(i < 3)) for i in range(1, 4)]
    hosts[1] = hosts[1].model_copy(update=keys)
    return Hosts(hosts=tuple(hosts), source="hosts.toml", kind="ssh")


class Reaching(LocalStarter):
    """Refuses hosts as ssh does that cannot reach them."""

    def __init__(self) -> None:
        super().__init__()
        self.unreachable: set[str] = set()

    def prepare(self, hosts: Sequence[Host], tell: Callable[[str], None]) -> None:
        for host in hosts:
            if host.name in self.unreachable:
                raise PreflightError(f"host {host.name}: No route to host")


class Striker(SilentDisplay):
    """Kills an agent when some node has finished five rounds, and lets the run go on."""

    def __init__(self, brake: Path) -> None:
        super().__init__()
        self._brake = brake
        self.doomed: int | None = None
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def progress(self, node: int, round: int, train_loss: float | None) -> None:
        if round >= 5 and self.doomed is not None:
            os.kill(self.doomed, signal.SIGKILL)
            self.doomed = None
            self._brake.touch()


class Session:
    """Jobs on a fleet that loses h2 in the first."""

    def __init__(self, hosts: Hosts, folder: Path) -> None:
        self._starter = Reaching()
        self.fleet = Fleet(hosts, self._starter)
        self.display = Striker(brake_in(folder))
        self.display.doomed = self.fleet.meet()["h2"]["pid"]
        self._folder = folder

    def run(self, made: Arm, seed: int) -> tuple[Outcome, Path]:
        folder = self._folder / f"seed-{seed}"
        if self.display.doomed is None:
            self._starter.unreachable = {"h2"}
        with Interruption().installed() as interruption:
            return self.fleet.run(Job(made, seed, JobFolder(folder)), self.display, interruption), folder


@pytest.fixture
def sessions() -> Iterator[list[Session]]:
    made: list[Session] = []
    yield made
    for session in made:
        session.fleet.close()
    tidy_up_after_a_killed_agent()


def test_the_next_seed_runs_on_the_rest(sessions: list[Session], tmp_path: Path) -> None:
    made = slow("mosaic", tmp_path)
    session = Session(three(), tmp_path)
    sessions.append(session)
    outcome, folder = session.run(made, 1)
    check_loss(made, folder, outcome)
    session.display.notes.clear()
    outcome, folder = session.run(made, 2)
    assert (outcome.state, outcome.exit_code, outcome.lost) == ("done", 0, ()), outcome.cause
    assert outcome.placement == {"h1": f"0-{NODES - 1}", "h3": ""}
    assert session.display.notes == ["host h2, lost in an earlier job: all nodes run on h1, h3 from now on"]
    inline = run(made, tmp_path / "inline", seed=2)
    ends = [events(folder / "nodes" / f"{node:03}.jsonl")[-1] for node in range(NODES)]
    assert [end["model_sha256"] for end in ends] == [
        column[0] for column in inline.column("end", "model_sha256")
    ], "the same bits as on any hosts"
    outcome, _ = session.run(made, 3)
    assert outcome.state == "done"
    assert len(session.display.notes) == 1, "it is said once"


def check_loss(made: Arm, folder: Path, outcome: Outcome) -> None:
    """The first job went on without h2, whose host nobody else has."""
    lost = {loss.node for loss in outcome.lost}
    assert lost
    for loss in outcome.lost:
        assert loss.host == "h2"
    assert outcome.state == "done", outcome.cause
    for node in set(range(made.nodes)) - lost:
        assert events(folder / "nodes" / f"{node:03}.jsonl")[-1]["reason"] == "done"


def test_nodes_that_are_listed_for_it_run_nowhere_else(sessions: list[Session], tmp_path: Path) -> None:
    made = slow("mosaic", tmp_path)
    session = Session(three(nodes=(2, 3)), tmp_path)
    sessions.append(session)
    outcome, folder = session.run(made, 1)
    check_loss(made, folder, outcome)
    for _ in range(2):
        outcome, folder = session.run(made, 2)
        assert (outcome.state, outcome.exit_code) == ("failed", 3)
        assert outcome.cause is not None
        assert outcome.cause.startswith(
            "host h2, lost in an earlier job: hosts.toml says which nodes run there, and they run nowhere"
        )
        assert not folder.exists()
