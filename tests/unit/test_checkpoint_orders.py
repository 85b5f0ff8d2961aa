"""The launcher's part in checkpoints of a host that does not see the run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from launch.checkpoints import folder_of, load
from launch.collect import Collector, land
from launch.executors.base import Job
from launch.executors.line import Line
from launch.executors.resuming import Checkpoints
from launch.paths import JobFolder
from launch.placement import Placement
from tests.harness import arm
from tests.unit.test_checkpoint_folders import N, make

HOSTS = {0: "h1", 1: "h2", N: "h1", N + 1: "h1"}


class Orders:
    """In place of a line: what the agent at its end is ordered."""

    def __init__(self) -> None:
        self.given: list[tuple[str, dict[str, Any]]] = []

    def order(self, do: str, **fields: Any) -> None:
        """See ``Line``."""
        self.given.append((do, fields))


@pytest.fixture
def folder(tmp_path: Path) -> JobFolder:
    """Of a job with two nodes and a checkpoint, where the launcher has it."""
    made = JobFolder(tmp_path / "job")
    make(made, 1)
    return made


def checkpoints_of(folder: JobFolder, *, resumed: bool = False) -> tuple[Checkpoints, dict[str, Orders]]:
    """Those of a job on two hosts, and what is ordered of each."""
    found = load(folder_of(folder, 1)) if resumed else None
    job = Job(arm(nodes=N, topology={"name": "ring"}), 1, folder, found)
    lines = {"h1": Orders(), "h2": Orders()}
    placement = Placement(N, HOSTS, dict.fromkeys(HOSTS), {"h1": 1, "h2": 1})
    return Checkpoints(job, cast("dict[str, Line]", lines), placement), lines


def test_a_host_apart_gets_what_its_processes_printed_before(folder: JobFolder, tmp_path: Path) -> None:
    """What it prints now is appended here too, and does not replace what it printed before the resume."""
    folder.log("h2").parent.mkdir()
    folder.log("h2").write_text("before\n")
    made, lines = checkpoints_of(folder, resumed=True)
    made.apart("h2")
    made.bring("h1")
    made.bring("h2")
    assert lines["h1"].given == [], "it sees the run folder"
    there = tmp_path / "there"
    collector = Collector(there, lambda path, offset, piece: land(folder.path, "h2", path, offset, piece))
    for _, piece in lines["h2"].given:  # as the agent takes it in
        land(there, "h2", piece["path"], piece["offset"], piece["data"])
        collector.known(piece["path"], piece["offset"] + len(piece["data"]))
    with JobFolder(there).log("h2").open("a") as log:
        log.write("after\n")
    collector.collect()
    assert folder.log("h2").read_text() == "before\nafter\n"
