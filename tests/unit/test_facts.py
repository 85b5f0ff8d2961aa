"""What an agent tells of its host, and how much memory it has left."""

from __future__ import annotations

import tempfile
from pathlib import Path

import msgpack
import pytest

from launch import facts as facts_module
from launch.facts import facts, free_bytes
from launch.memory import memory_available, own_memory

GIB = 1 << 30
MOUNT_1 = "36 25 0:31 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
MOUNT_2 = "35 25 0:30 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"


def test_facts_are_plain_values(tmp_path: Path) -> None:
    told = facts(tmp_path)
    assert msgpack.unpackb(msgpack.packb(told)) == told
    assert told["cores"] >= 1
    assert told["disk_free"] > 0
    assert told["versions"]["torch"]


def test_what_the_agent_itself_has_taken_counts_as_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facts_module, "memory_available", lambda: 5 * GIB)
    monkeypatch.setattr(facts_module, "own_memory", lambda: GIB)
    assert facts(tmp_path)["memory_available"] == 6 * GIB


def test_space_of_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    assert free_bytes(tmp_path / "a" / "b") > 0
    assert free_bytes(Path(tempfile.gettempdir())) > 0


class TestMemory:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        self.write(tmp_path, "proc/meminfo", f"MemTotal: {9 << 20} kB\nMemAvailable: {8 << 20} kB\n")
        return tmp_path

    def write(self, root: Path, name: str, text: str) -> None:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def group(
        self, root: Path, path: str, limit: str, *, used: int, active: int = 0, inactive: int = 0
    ) -> None:
        folder = f"sys/fs/cgroup{path}"
        self.write(root, "proc/self/mountinfo", MOUNT_2)
        self.write(root, "proc/self/cgroup", f"0::{path}\n")
        self.write(root, f"{folder}/memory.events", "oom 0\noom_kill 0\n")
        self.write(root, f"{folder}/memory.max", f"{limit}\n")
        self.write(root, f"{folder}/memory.current", f"{used}\n")
        self.write(root, f"{folder}/memory.stat", f"active_file {active}\ninactive_file {inactive}\n")

    def test_without_control_groups_the_machine_decides(self, root: Path) -> None:
        assert memory_available(root) == 8 * GIB

    def test_a_limit_decides_where_it_is_less(self, root: Path) -> None:
        self.group(root, "/job", str(3 * GIB), used=GIB)
        assert memory_available(root) == 2 * GIB
        self.group(root, "/job", "max", used=GIB)
        assert memory_available(root) == 8 * GIB
        self.group(root, "/job", str(GIB), used=2 * GIB)
        assert memory_available(root) == 0

    def test_a_limit_around_counts_too(self, root: Path) -> None:
        self.group(root, "/slurm", str(2 * GIB), used=GIB)
        self.group(root, "/slurm/step", "max", used=GIB // 2)
        assert memory_available(root) == GIB

    def test_cached_files_are_free(self, root: Path) -> None:
        # As after the packages of an environment have been unpacked.
        self.group(root, "/job", str(4 * GIB), used=3 * GIB, active=GIB, inactive=GIB)
        assert memory_available(root) == 3 * GIB

    @pytest.mark.parametrize(("limit", "left"), [(3 * GIB, 2 * GIB + GIB // 2), (1 << 63, 8 * GIB)])
    def test_version_1(self, root: Path, limit: int, left: int) -> None:
        folder = "sys/fs/cgroup/memory/job"
        self.write(root, "proc/self/mountinfo", MOUNT_1)
        self.write(root, "proc/self/cgroup", "4:memory:/job\n")
        self.write(root, f"{folder}/memory.limit_in_bytes", f"{limit}\n")
        self.write(root, f"{folder}/memory.usage_in_bytes", f"{GIB}\n")
        stat = f"active_file 7\ntotal_active_file {GIB // 4}\ntotal_inactive_file {GIB // 4}\n"
        self.write(root, f"{folder}/memory.stat", stat)
        assert memory_available(root) == left

    def test_here(self) -> None:
        assert memory_available() > 1 << 20
        assert own_memory() > 1 << 20
