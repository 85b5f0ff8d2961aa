"""Several agents as if on several hosts: loopback addresses, CURVE between them, beats, collection."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from decentral.errors import PreflightError
from launch.executors import fleet as fleet_module
from launch.executors.fleet import Fleet
from launch.executors.line import Line
from launch.executors.starters import LocalStarter
from launch.hosts import Host, Hosts
from launch.protocol import BEAT_S, SILENCE_S
from tests.asynchronous import contender
from tests.fleets import Elsewhere, ended, loopback, tidy_up_after_a_killed_agent
from tests.harness import SilentDisplay, arm, run
from tests.integration.test_faults import LONG
from tests.integration.test_virtual_time import same
from tests.load import Others


@pytest.fixture(params=["shared", "apart"])
def three(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Fleet]:
    if request.param == "apart":
        monkeypatch.setattr(fleet_module, "Line", Elsewhere)
    made = Fleet(loopback(3, folder=str(tmp_path / "host's folder")), LocalStarter())
    yield made
    made.close()
    assert not list((tmp_path / "host's folder").rglob("*.jsonl")), "what was collected is still there"


def test_three_hosts_give_the_bits_of_one_process(three: Fleet, tmp_path: Path) -> None:
    for name, settings in {
        "mosaic": arm(),
        "divshare": contender("divshare", settings={"recipients": 3}),
    }.items():
        folders = (tmp_path / name / "hosts", tmp_path / name / "inline")
        hosts = run(settings, folders[0], executor=three)
        same(hosts, run(settings, folders[1]), folders)
        assert hosts.column("end", "reason") == [["done"]] * settings.nodes
        logs = {path.name for path in (folders[0] / "logs").iterdir()}
        assert logs == {"h1.log", "h2.log", "h3.log"}


class Struck(SilentDisplay):
    """Sends the agent of h2 a signal in the middle of a run; knows when, and when it heard what."""

    def __init__(self, pid: int, number: signal.Signals) -> None:
        super().__init__()
        self._pid = pid
        self._number = number
        self.at_s: float | None = None
        self.heard_s: float | None = None
        self.lost_s: float | None = None

    def host(self, name: str, state: str | None, alive: int | None = None) -> None:
        if state == "lost" and self.lost_s is None:
            self.lost_s = time.monotonic()

    def heard(self, name: str) -> None:
        if name == "h2":
            self.heard_s = time.monotonic()

    def progress(self, node: int, round: int, train_loss: float | None) -> None:
        if self.at_s is None:
            self.at_s = time.monotonic()
            os.kill(self._pid, self._number)


@pytest.mark.parametrize(
    ("number", "cause", "within_s"),
    [
        (signal.SIGKILL, "agent on host h2 was killed by signal 9", 5.0),
        # A beat that it had sent may still arrive, and 6 s of silence begin then.
        (signal.SIGSTOP, "agent on host h2 is lost: nothing has been heard of it for 6 s", 10.0),
    ],
)
def test_a_lost_agent_is_named_and_ends_the_job(
    number: signal.Signals, cause: str, within_s: float, tmp_path: Path
) -> None:
    others = Others()
    fleet = Fleet(loopback(2), LocalStarter())
    try:
        struck = Struck(fleet.meet()["h2"]["pid"], number)
        outcome = ended(fleet, arm(run=LONG), tmp_path, struck)
    finally:
        fleet.close()
        tidy_up_after_a_killed_agent()
    assert (outcome.state, outcome.exit_code) == ("failed", 4)
    assert outcome.cause is not None
    assert outcome.cause.startswith(cause)
    assert struck.at_s is not None
    assert struck.heard_s is not None
    assert struck.lost_s is not None
    took_s = struck.lost_s - struck.at_s
    assert took_s < within_s * others.allowance
    if number == signal.SIGSTOP:
        assert took_s > SILENCE_S - BEAT_S, "a host that is only late is not lost"
        assert struck.lost_s - struck.heard_s >= SILENCE_S


def test_a_range_that_was_taken_after_all_was_checked_is_named(tmp_path: Path) -> None:
    """As by another run at the same time; fleets check nothing themselves."""
    fleet = Fleet(loopback(2, ports="21000-21001"), LocalStarter())
    try:
        outcome = ended(fleet, arm(), tmp_path, SilentDisplay())
    finally:
        fleet.close()
    assert (outcome.state, outcome.exit_code) == ("failed", 4)
    assert outcome.cause is not None
    assert "21000" in outcome.cause


class Faraway(Elsewhere):
    """A line whose agent also lacks every file that the launcher has in one folder."""

    folder: str

    def order(self, do: str, **fields: Any) -> None:
        if do == "load":
            away = {path.replace(self.folder, "/nowhere"): held for path, held in fields["files"].items()}
            fields |= {"arm": fields["arm"].replace(self.folder, "/nowhere"), "files": away}
        super().order(do, **fields)


def test_files_that_an_experiment_names_come_to_hosts_that_lack_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = tmp_path / "mine"
    files.mkdir()
    (files / "ring.edges").write_text("4\n0 1\n1 2\n2 3\n3 0\n")
    (files / "rates.json").write_text('{"uplink_mbps": [1.0, 2.0, 3.0, 4.0], "latency_ms": 1.0}')
    (files / "rows.json").write_text(json.dumps([list(range(10 * i, 10 * i + 10)) for i in range(4)]))
    settings = arm(
        nodes=4,
        topology={"name": "edges", "settings": {"path": str(files / "ring.edges")}},
        network={"name": "file", "settings": {"path": str(files / "rates.json")}},
        data={
            "name": "quadratic",
            "partition": {"name": "file", "settings": {"path": str(files / "rows.json")}},
        },
    )
    monkeypatch.setattr(Faraway, "folder", str(files), raising=False)
    monkeypatch.setattr(fleet_module, "Line", Faraway)
    fleet = Fleet(loopback(2, folder=str(tmp_path / "host's folder")), LocalStarter())
    folders = (tmp_path / "hosts", tmp_path / "inline")
    try:
        hosts = run(settings, folders[0], executor=fleet)
    finally:
        fleet.close()
    same(hosts, run(settings, folders[1]), folders)
    assert list((tmp_path / "host's folder" / "scratch").iterdir()) == []


def test_hosts_that_deal_rows_otherwise_are_refused(tmp_path: Path) -> None:
    fleet = Fleet(loopback(2), LocalStarter())
    try:
        moody = {"data": {"name": "quadratic", "partition": {"name": "tests.integration.faulty:Moody"}}}
        outcome = ended(fleet, arm(**moody), tmp_path, SilentDisplay())
    finally:
        fleet.close()
    assert (outcome.state, outcome.exit_code) == ("failed", 3)
    assert outcome.cause is not None
    assert "hosts h1 and h2 deal" in outcome.cause or "hosts h2 and h1 deal" in outcome.cause


class Rounding(Line):
    """A line to hosts each of which rounds in its own way."""

    def read(self) -> list[dict[str, Any]]:
        def changed(event: dict[str, Any]) -> dict[str, Any]:
            if event["is"] != "loaded":
                return event
            loss, _, shards = event["sample"]
            return {**event, "sample": [loss, self.name, shards]}

        return [changed(event) for event in super().read()]


class Noting(SilentDisplay):
    """Remembers notes."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_that_hosts_round_otherwise_is_told_once_a_session(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(fleet_module, "Line", Rounding)
    fleet, display = Fleet(loopback(2), LocalStarter()), Noting()
    try:
        for number in range(3):
            outcome = ended(fleet, arm(), tmp_path / str(number), display)
            assert outcome.state == "done", outcome.cause
    finally:
        fleet.close()
    (note,) = display.notes
    assert note.startswith("hosts h1 and h2 round otherwise")


def test_an_address_of_no_host_is_refused_before_anything_starts() -> None:
    lost = tuple(Host(name=name, address="nowhere.invalid") for name in "bc")
    fleet = Fleet(Hosts(hosts=lost, source="the test", kind="ssh"), LocalStarter())
    try:
        with pytest.raises(PreflightError, match=r"host b: .*bind = "):
            fleet.meet()
    finally:
        fleet.close()
