"""Checkpoints of hosts that do not see the run folder, and what must be on the disk before what."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, cast

import pytest

from decentral.records import FileRecorder
from launch.checkpoints import Checkpoint, folder_of, load, numbers
from launch.collect import Collector, land
from launch.executors.base import Job
from launch.executors.line import Line
from launch.executors.resuming import Checkpoints
from launch.keeping import last_whole
from launch.paths import JobFolder
from launch.placement import Placement
from launch.saving import Saving
from tests.harness import arm, run
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


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """What was synced, in order: path, and size at that moment."""
    done: list[tuple[str, int]] = []
    fsync = os.fsync

    def note(fd: int) -> None:
        done.append((os.readlink(f"/proc/self/fd/{fd}"), os.fstat(fd).st_size))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", note)
    return done


@pytest.mark.parametrize("apart", [True, False])
def test_what_was_sent_is_on_the_disk_before_older_ones_are_removed(
    apart: bool, folder: JobFolder, synced: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a power cut could take the logs of a checkpoint that stays, which is refused without them."""
    made, _ = checkpoints_of(folder)
    if apart:
        made.apart("h2")
    rmtree = shutil.rmtree
    kept: list[Checkpoint] = []

    def remove(path: Path, **keys: Any) -> None:
        logs = {str(folder.path / entry.log) for each in kept for entry in each.entries}
        files = {str(each.folder / entry.name) for each in kept for entry in each.entries}
        assert (logs | files <= {path for path, _ in synced}) == apart
        rmtree(path, **keys)

    monkeypatch.setattr(shutil, "rmtree", remove)
    make(folder, 2)
    make(folder, 3, forget=False)
    kept += last_whole(folder)
    synced.clear()
    made.saved(3)
    assert numbers(folder) == [2, 3]
    assert made.forgotten("checkpoints/1/node-001.ckpt")
    assert not made.forgotten("checkpoints/2/node-001.ckpt")
    assert bool(synced) == apart
    synced.clear()
    made.saved(4)
    assert synced == [], "once is enough"


def test_a_members_log_is_on_the_disk_before_its_file(
    folder: JobFolder, synced: list[tuple[str, int]]
) -> None:
    path = folder.path / "nodes" / "7.jsonl"
    recorder = FileRecorder(path)
    recorder.write("header", node=7)
    Saving(folder, 0, N, None).write(9, {"a": 1}, recorder)
    first, *_, file, _ = synced
    assert first == (str(path), recorder.nbytes)
    assert recorder.nbytes == path.stat().st_size > 0
    assert "/checkpoints/9/.node-000.ckpt." in file[0]
    recorder.close()


def test_logs_of_an_inline_run_are_on_the_disk_before_its_checkpoints(
    tmp_path: Path, synced: list[tuple[str, int]]
) -> None:
    settings = arm(nodes=4, checkpoint={"every": 2}, network={"name": "star", "settings": {}})
    folder = JobFolder(tmp_path / "job")
    run(settings, folder.path)
    for number in numbers(folder):
        found = load(folder_of(folder, number))
        assert found is not None
        for entry in found.entries[:-1]:  # the network's log is written at the end
            (at,) = (i for i, (path, _) in enumerate(synced) if f"/{number}/.{entry.name}." in path)
            log = [size for path, size in synced[:at] if path == str(folder.path / entry.log)]
            assert log[-1] >= entry.log_bytes > 0
