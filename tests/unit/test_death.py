"""What a process died of: only what the kernel says is claimed."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from launch.cgroup import levels
from launch.death import Deaths, Memory, failure, how, out_of_memory, size

SIGKILL = -9
V1_MOUNT = "35 31 0:32 {top} /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
V2_MOUNT = "31 23 0:26 {top} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"


class Machine:
    """The files of a machine below ``root``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.write("proc/vmstat", "nr_free_pages 1\noom_kill 0\n")

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def version_1(
        self, group: str, *, top: str = "/", kills: int = 0, limit: int = 1 << 63, hits: int = 0
    ) -> None:
        """A process in ``group`` (as its container, if any, sees it below ``top``)."""
        self.write("proc/self/cgroup", f"5:cpu:/other\n4:memory:{group}\n0::/\n")
        self.write("proc/self/mountinfo", V1_MOUNT.format(top=top) + V2_MOUNT.format(top="/"))
        folder = "sys/fs/cgroup/memory" + group.removeprefix(top.rstrip("/"))
        self.write(f"{folder}/memory.oom_control", f"oom_kill_disable 0\nunder_oom 0\noom_kill {kills}\n")
        self.write(f"{folder}/memory.limit_in_bytes", f"{limit}\n")
        self.write(f"{folder}/memory.failcnt", f"{hits}\n")

    def version_2(self, group: str, *, kills: int = 0, limit: str = "max", oom: int = 0) -> None:
        """A process in ``group``."""
        self.write("proc/self/cgroup", f"0::{group}\n")
        self.write("proc/self/mountinfo", V2_MOUNT.format(top="/"))
        events = f"low 0\nhigh 0\nmax 7\noom {oom}\noom_kill {kills}\noom_group_kill 0\n"
        self.write(f"sys/fs/cgroup{group}/memory.events", events)
        self.write(f"sys/fs/cgroup{group}/memory.max", f"{limit}\n")

    def kernel_log(self, pid: int, ago_s: float = 0.0) -> None:
        """The kernel says that it killed ``pid``."""
        at_us = int((time.monotonic() - ago_s) * 1e6)
        (self.root / "proc/self/ns").mkdir(parents=True, exist_ok=True)
        (self.root / "proc/self/ns/pid").symlink_to("pid:[4026531836]")
        self.write("dev/kmsg", f"6,1,{at_us},-;Out of memory: Killed process {pid} (python) total-vm:1kB\n")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_version_1_names_the_limit(machine: Machine) -> None:
    machine.version_1("/job", limit=512 << 20, hits=3)
    deaths = Deaths(machine.root)
    machine.version_1("/job", limit=512 << 20, hits=9, kills=1)
    assert deaths.how(7, SIGKILL) == "ran out of memory (the kernel killed it; cgroup limit 512 MiB reached)"


def test_version_2_names_the_limit_around(machine: Machine) -> None:
    machine.version_2("/slurm/step")
    machine.version_2("/slurm", limit=str(3 << 29))
    machine.version_2("/slurm/step")
    deaths = Deaths(machine.root)
    machine.version_2("/slurm", limit=str(3 << 29), oom=1, kills=1)
    machine.version_2("/slurm/step", kills=1)
    assert deaths.how(7, SIGKILL) == "ran out of memory (the kernel killed it; cgroup limit 1.5 GiB reached)"


def test_a_full_machine_is_no_cgroup_limit(machine: Machine) -> None:
    machine.version_2("/job", limit=str(1 << 40))
    deaths = Deaths(machine.root)
    machine.version_2("/job", limit=str(1 << 40), kills=1)
    assert deaths.how(7, SIGKILL) == "ran out of memory (the kernel killed it; the machine had none left)"


def test_each_count_explains_one_death(machine: Machine) -> None:
    machine.version_1("/job")
    deaths = Deaths(machine.root)
    machine.version_1("/job", kills=2)
    machine.write("proc/vmstat", "oom_kill 2\n")
    told = [deaths.how(pid, SIGKILL).split(" (")[0] for pid in (7, 8, 9)]
    assert told == ["ran out of memory", "ran out of memory", "was killed by SIGKILL"]


def test_somebody_elses_kill_is_not_taken_for_memory(machine: Machine) -> None:
    machine.version_2("/job", limit=str(512 << 20), kills=4, oom=4)
    text = Deaths(machine.root).how(7, SIGKILL)
    assert text == "was killed by SIGKILL (somebody else's kill: the kernel counts none for want of memory)"


def test_a_kill_somewhere_on_the_machine_is_a_maybe(machine: Machine) -> None:
    deaths = Deaths(machine.root)
    machine.write("proc/vmstat", "oom_kill 1\n")
    text = deaths.how(7, SIGKILL)
    assert text.startswith(
        "was killed by SIGKILL (probably for want of memory: the kernel killed 1 process of"
    )


def test_an_old_record_is_of_another_process_with_that_pid(machine: Machine) -> None:
    machine.kernel_log(7, ago_s=3600)
    assert "somebody else's kill" in Deaths(machine.root).how(7, SIGKILL)


def test_the_kernel_log_is_certain(machine: Machine) -> None:
    deaths = Deaths(machine.root)
    machine.kernel_log(7)
    assert deaths.how(70, SIGKILL).startswith("was killed by SIGKILL (somebody else's kill")
    assert deaths.how(7, SIGKILL).startswith("ran out of memory (the kernel killed it;")


def test_nothing_is_known(tmp_path: Path) -> None:
    text = Deaths(tmp_path).how(7, SIGKILL)
    assert text == "was killed by SIGKILL (if nobody killed it, the kernel may have run out of memory)"


def test_a_container_sees_its_group_at_the_top(machine: Machine) -> None:
    machine.version_1("/docker/abc", top="/docker/abc", limit=1 << 30, kills=3)
    assert [level.kills for level in levels(machine.root)] == [3]
    assert [level.limit_bytes for level in levels(machine.root)] == [1 << 30]


def test_a_group_without_the_controller_is_passed_over(machine: Machine) -> None:
    machine.version_2("/user", limit="1024", kills=2)
    machine.write("proc/self/cgroup", "0::/user/leaf\n")
    assert [level.limit_bytes for level in levels(machine.root)] == [1024]


@pytest.mark.parametrize("text", ["", "nonsense\n", "0::/x\n"])
def test_damaged_or_absent_files_are_no_cgroup(text: str, machine: Machine) -> None:
    machine.write("proc/self/cgroup", text)
    assert list(levels(machine.root)) == []
    machine.write("proc/self/mountinfo", "nonsense\n")
    assert list(levels(machine.root)) == []


def test_this_machine_can_be_read() -> None:
    memory = Memory.now()
    assert memory.machine_kills is None or memory.machine_kills >= 0
    assert all(level.limit_bytes is None or level.limit_bytes > 0 for level in memory.levels)


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (0, "exited early with code 0"),
        (3, "exited early with code 3"),
        (-15, "was killed by SIGTERM"),
        (-7, "was killed by SIGBUS (a file that it had mapped was cut short, or its disk is full)"),
        (-24, "was killed by SIGXCPU (its limit of CPU time was reached, ulimit -t)"),
        (-63, "was killed by signal 63"),
    ],
)
def test_other_ends(status: int, text: str) -> None:
    assert how(status) == text


@pytest.mark.parametrize(
    ("error", "memory"),
    [
        (MemoryError(), True),
        (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."), True),
        (RuntimeError("the memory of a goldfish"), False),
        (ValueError("out of memory"), False),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), False),
    ],
)
def test_which_exceptions_mean_memory(error: BaseException, memory: bool) -> None:
    assert out_of_memory(error) is memory
    assert failure(error).startswith("ran out of memory") is memory


@pytest.mark.parametrize(
    "how", ["numpy.zeros(1 << 40, dtype=numpy.int8)", "torch.empty(1 << 40)", "bytes(1 << 40)"]
)
def test_real_exceptions_under_a_limit(how: str) -> None:
    """What numpy, torch and Python raise where ``ulimit -v`` says no, with the limit."""
    program = f"""
import numpy, resource, torch
from launch.death import failure
resource.setrlimit(resource.RLIMIT_AS, (1 << 34, 1 << 34))
try:
    {how}
except Exception as error:
    print(failure(error))
"""
    done = subprocess.run(
        [sys.executable, "-P", "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.stdout.startswith("ran out of memory (its address space is limited to 16 GiB, ulimit -v): ")


def test_numpys_error_is_a_memory_error() -> None:
    with pytest.raises(MemoryError) as caught:
        np.zeros(1 << 60, dtype=np.int8)
    assert "Unable to allocate" in failure(caught.value)


def test_size() -> None:
    assert [size(count) for count in (5, 2048, 3 << 19, 512 << 20, 3 << 29)] == [
        *("5 bytes", "2 KiB", "1.5 MiB", "512 MiB", "1.5 GiB")
    ]
