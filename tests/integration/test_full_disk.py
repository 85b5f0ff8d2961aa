"""Checkpoints that meet a full disk, of the launcher or of a host: named, and gone on from the one before."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from launch import checkpoints
from launch.executors import fleet
from launch.executors.base import Interruption, Job, Outcome
from launch.executors.starters import LocalStarter
from launch.keeping import last_whole
from launch.paths import JobFolder
from tests.fleets import Elsewhere, loopback
from tests.harness import SilentDisplay, run
from tests.integration.test_resume import REAL, arm_of, logged, without_checkpoints

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for 300 files: logs may grow for ever, and new files soon find no place."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "nr_inodes=300", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if made.returncode != 0:
        pytest.skip(f"cannot mount a tmpfs here: {made.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


class Filling(SilentDisplay):
    """Leaves no place on a disk from the first whole checkpoint on."""

    def __init__(self, disk: Path, folder: JobFolder) -> None:
        super().__init__()
        self._disk = disk
        self._folder = folder
        self._names = itertools.count()
        self._fills = False

    def tick(self) -> None:
        self._fills = self._fills or bool(last_whole(self._folder))
        while self._fills:
            try:
                (self._disk / f"filler-{next(self._names)}").touch()
            except OSError:
                return


@pytest.mark.parametrize("full", ["the run folder", "hosts apart", "the launcher's, hosts apart"])
def test_named_and_gone_on_from_the_one_before(
    full: str, small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "apart" in full:
        monkeypatch.setattr(fleet, "Line", Elsewhere)
    brake = tmp_path / "brake"
    arm, _ = arm_of("mosaic", brake)
    cut = JobFolder((tmp_path if full == "hosts apart" else small_disk) / "cut")
    cut.path.mkdir()
    there = (small_disk if full == "hosts apart" else tmp_path) / "hosts"

    def go_on(job: Job, display: SilentDisplay) -> Outcome:
        hosts = fleet.Fleet(loopback(2, folder=str(there)), LocalStarter())
        with closing(hosts), Interruption().installed() as interruption:
            return hosts.run(job, display, interruption)

    outcome = go_on(Job(arm, 1, cut), Filling(small_disk, cut))
    assert outcome.state == "failed"
    assert outcome.exit_code == (3 if full == "the launcher's, hosts apart" else 4)
    cause = outcome.cause or ""
    for word in (f"cannot write {small_disk}", "/checkpoints/", "No space left on device"):
        assert word in cause, cause
    for filler in small_disk.glob("filler-*"):
        filler.unlink()
    found, problems = checkpoints.newest(cut)
    assert found is not None
    assert all("cannot be read: No such file" in problem for problem in problems)
    assert checkpoints.numbers(cut)[-1] >= found.number
    checkpoints.cut_logs(cut, found)
    brake.touch()
    outcome = go_on(Job(arm, 1, cut, found), SilentDisplay())
    assert outcome.state == "done", outcome.cause
    whole = JobFolder(tmp_path / "whole")
    expected = run(without_checkpoints(arm), whole.path)
    models = np.stack([np.load(cut.model(i)) for i in range(arm.nodes)])
    assert models.tobytes() == expected.models.tobytes()
    assert logged(cut, (*REAL, "host")) == logged(whole, (*REAL, "host"))
