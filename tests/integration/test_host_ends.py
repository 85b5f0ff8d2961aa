"""How a host's part of a job ends: nothing is done before all is here, and busy disks are no losses."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import pytest

from launch.executors import fleet as fleet_module
from launch.executors.child import spawn
from launch.executors.fleet import Fleet
from launch.executors.line import Line
from launch.executors.local import LocalExecutor
from launch.executors.starters import ENVIRONMENT, LocalStarter
from launch.hosts import Host
from launch.protocol import SILENCE_S
from launch.scratch import PrivateFolder
from tests.conformance.test_lost_nodes import lossy
from tests.harness import SilentDisplay, arm
from tests.integration.test_faults import LONG
from tests.integration.test_fleet import Elsewhere, ended, loopback

HELD_S = SILENCE_S + 3.0
"""Longer than a host may be silent."""


class PowerCut(Elsewhere):
    """Host h2 goes dark when its last member has ended; its models are on the way, and do not arrive."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._exited = 0
        self._members = 0

    def order(self, do: str, **fields: Any) -> None:
        if do == "load":
            self._members = len(fields["members"])
        super().order(do, **fields)

    def read(self) -> list[dict[str, Any]]:
        if self.name != "h2":
            return super().read()
        arrived = []
        for event in super().read():
            late = event["is"] == "file" and event["path"].startswith("models/")
            if not late and (not self._members or self._exited < self._members):
                arrived.append(event)
            if event["is"] == "exited":
                self._exited += 1
                if self._exited == self._members:
                    os.kill(self.facts["pid"], signal.SIGKILL)
        return arrived


@pytest.mark.parametrize("on_node_failure", ["stop", "continue"])
def test_a_host_that_is_lost_before_its_last_files_arrive_fails_the_run(
    on_node_failure: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(fleet_module, "Line", PowerCut)
    made = lossy("epidemic") if on_node_failure == "continue" else arm()
    assert made.run.on_node_failure == on_node_failure
    scratch = tmp_path / "scratch"
    fleet = Fleet(loopback(2, folder=str(scratch)), LocalStarter())
    try:
        outcome = ended(fleet, made, tmp_path / "run", SilentDisplay())
    finally:
        fleet.close()
        PrivateFolder(Path(tempfile.gettempdir()), "decentral-").remove()  # as the next agent there does
    assert len(list((tmp_path / "run" / "models").glob("*.npy"))) < made.nodes
    assert (outcome.state, outcome.exit_code) == ("failed", 4)
    assert outcome.cause is not None
    assert outcome.cause.startswith("agent on host h2 was killed by signal 9")
    assert outcome.cause.endswith("; not all of its logs and models had arrived")


class StoppedAgent(SilentDisplay):
    """Stops the agent in the middle of a run, and interrupts when that is told."""

    def __init__(self, pid: int) -> None:
        super().__init__()
        self._pid = pid
        self.told: list[str] = []

    def progress(self, node: int, round: int, train_loss: float | None) -> None:
        if not self.rounds:
            os.kill(self._pid, signal.SIGSTOP)
        super().progress(node, round, train_loss)

    def note(self, text: str) -> None:
        self.told.append(text)
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.timeout(120)
def test_an_agent_here_that_is_stopped_is_told_of_and_does_not_hold_up_the_end(tmp_path: Path) -> None:
    """Nothing is left of it or its nodes (tests/conftest.py)."""
    executor = LocalExecutor()
    (facts,) = executor.meet().values()
    display = StoppedAgent(facts["pid"])
    try:
        outcome = ended(executor, arm(run=LONG), tmp_path, display)
    finally:
        executor.close()
    assert (outcome.state, outcome.exit_code) == ("interrupted", 5)
    assert "the agent (pid" in display.told[0]
    assert "is stopped (SIGSTOP) since" in display.told[0]


class Refusing(Line):
    """Host h2 cannot do what it is told once nodes have come so far."""

    refused: ClassVar[bool]

    def read(self) -> list[dict[str, Any]]:
        events = super().read()
        if self.name == "h2" and not Refusing.refused and any(e["is"] == "progress" for e in events):
            Refusing.refused = True
            events.append({"is": "refused", "what": "no space left", "code": 3})
        return events


def test_a_refusal_ends_a_run_that_would_go_on_without_nodes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(fleet_module, "Line", Refusing)
    Refusing.refused = False
    endless: dict[str, Any] = {"max_rounds": 1_000_000, "test_after": 1_000_000, "time_limit_s": None}
    fleet = Fleet(loopback(2), LocalStarter())
    try:
        outcome = ended(fleet, lossy("epidemic", run=endless), tmp_path, SilentDisplay())
    finally:
        fleet.close()
    assert (outcome.state, outcome.exit_code) == ("failed", 3)
    assert outcome.cause == "host h2: no space left"


SLOW_DISK = f"""
import os, sys, time
from launch import workplace, zygote
def slowly(act):
    def wrapped(*arguments, **settings):
        if "h2" in os.environ["THIS_HOST"]:
            time.sleep({HELD_S})
        return act(*arguments, **settings)
    return wrapped
workplace.Workplace.{{method}} = slowly(workplace.Workplace.{{method}})
zygote.main()
"""


class SlowDisk(LocalStarter):
    """Agents whose host h2 takes its time over one thing that ``Workplace`` does on the disk."""

    def __init__(self, method: str) -> None:
        super().__init__()
        self._program = SLOW_DISK.format(method=method)

    def start(self, host: Host, log: BinaryIO) -> subprocess.Popen[bytes]:
        variables = {**os.environ, **ENVIRONMENT, "THIS_HOST": host.name}
        return spawn([sys.executable, "-P", "-c", self._program], stderr=log, env=variables)


@pytest.mark.parametrize("method", ["__init__", "leave"])
def test_a_host_whose_disk_is_slow_is_not_lost(method: str, tmp_path: Path) -> None:
    """Two jobs, since after the last one nobody waits for what is removed."""
    fleet = Fleet(loopback(2), SlowDisk(method))
    try:
        for job in ("first", "second"):
            outcome = ended(fleet, arm(), tmp_path / job, SilentDisplay())
            assert (outcome.state, outcome.cause) == ("done", None)
    finally:
        fleet.close()
        PrivateFolder(Path(tempfile.gettempdir()), "decentral-").remove()  # ended while it removed them
