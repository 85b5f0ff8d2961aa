"""Private folders: private, removed by their owner, and by the next one where the owner was killed."""

from __future__ import annotations

import os
import signal
import stat
from pathlib import Path

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
    (tmp_path / "job-without-lock").mkdir()
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
