"""Private folders: private, removed by their owner, and by the next one where the owner was killed."""

from __future__ import annotations

import os
import shutil
import signal
import stat
from pathlib import Path
from typing import Any

import pytest

from launch.scratch import PrivateFolder


def test_private_and_removed(tmp_path: Path) -> None:
    made = PrivateFolder(tmp_path / "deep" / "er", "job-")
    assert stat.S_IMODE(made.path.stat().st_mode) == 0o700
    (made.path / "file").write_text("x")
    made.remove()
    made.remove()
    assert list((tmp_path / "deep" / "er").iterdir()) == []


def test_folders_in_use_and_others_stay(tmp_path: Path) -> None:
    first = PrivateFolder(tmp_path, "job-")
    (tmp_path / "other-1").mkdir()
    (tmp_path / "job-without-lock").mkdir()  # of no host that this one knows
    second = PrivateFolder(tmp_path, "job-")
    assert {p.name for p in tmp_path.iterdir()} == {
        first.path.name,
        second.path.name,
        "other-1",
        "job-without-lock",
    }
    first.remove()
    second.remove()


def test_a_killed_owners_folder_goes_with_the_next(tmp_path: Path) -> None:
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        PrivateFolder(tmp_path, "job-")
        os.write(write, b"!")
        signal.pause()
    os.read(read, 1)
    os.close(read)
    os.close(write)
    (old,) = tmp_path.iterdir()
    while_it_lives = PrivateFolder(tmp_path, "job-")
    assert old.exists()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    after = PrivateFolder(tmp_path, "job-")
    assert not old.exists()
    assert while_it_lives.path.exists()
    while_it_lives.remove()
    after.remove()


def left_behind(tmp_path: Path) -> Path:
    """A folder of this host and user as a killed owner leaves it."""
    made = PrivateFolder(tmp_path, "job-")
    (made.path / "nodes").mkdir()
    (made.path / "nodes" / "000.jsonl").write_text("x")
    left = made.path.with_name(made.path.name + "left")
    shutil.copytree(made.path, left)
    made.remove()
    return left


def test_what_was_killed_while_it_removed_its_folder_goes_with_the_next(tmp_path: Path) -> None:
    left = left_behind(tmp_path)
    (left / ".lock").unlink()
    PrivateFolder(tmp_path, "job-").remove()
    assert list(tmp_path.iterdir()) == []


def test_the_lock_goes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is killed in the middle leaves a folder that still says whether its owner lives."""
    made = PrivateFolder(tmp_path, "job-")
    for name in "abcdefgh":
        (made.path / name).mkdir()
    seen: list[tuple[Path, bool]] = []
    rmtree = shutil.rmtree

    def remove(path: Path, **keys: Any) -> None:
        seen.append((path, (made.path / ".lock").exists()))
        rmtree(path, **keys)

    monkeypatch.setattr(shutil, "rmtree", remove)
    made.remove()
    assert {path.name for path, locked in seen if locked} >= set("abcdefgh")
    assert seen[-1][0] == made.path
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_never_got_its_name_goes_once_it_is_old(tmp_path: Path) -> None:
    old = left_behind(tmp_path)
    old = old.rename(tmp_path / f".{old.name}")
    held = PrivateFolder(tmp_path, "job-")
    busy = held.path.rename(tmp_path / f".{held.path.name}")
    PrivateFolder(tmp_path, "job-").remove()
    assert old.exists(), "its owner may be about to name it"
    for folder in (old, busy):
        os.utime(folder, (0, 0))
    PrivateFolder(tmp_path, "job-").remove()
    assert list(tmp_path.iterdir()) == [busy], "its owner lives"
    held.path = busy
    held.remove()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    left, elsewhere = left_behind(tmp_path), tmp_path / "elsewhere"
    left.rename(elsewhere)
    left.symlink_to(elsewhere)
    PrivateFolder(tmp_path, "job-").remove()
    assert (elsewhere / "nodes" / "000.jsonl").exists()
