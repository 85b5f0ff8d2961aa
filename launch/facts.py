"""What an agent tells of its host."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from launch.memory import memory_available, own_memory

PACKAGES = ("torch", "numpy", "pyzmq", "msgpack", "networkx", "scikit-learn")


def usable_cores() -> list[int]:
    """Cores that this process may run on."""
    return sorted(os.sched_getaffinity(0))


def cpu_model() -> str:
    """Name of the processor."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def python_and_packages() -> dict[str, str]:
    """Versions of Python and of what results may depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def free_bytes(folder: Path) -> int:
    """Space on the disk of ``folder``, which need not exist yet."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def facts(folder: Path) -> dict[str, Any]:
    """Plain values: who this host is and what it has.

    Args:
        folder: on whose disk this host would write.
    """
    _, descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)
    return {
        "pid": os.getpid(),
        "name": platform.node(),
        "cores": len(usable_cores()),
        "cpu": cpu_model(),
        "kernel": platform.release(),
        "memory_bytes": psutil.virtual_memory().total,
        # With what this process has taken already: who asks counts an agent among what is needed.
        "memory_available": memory_available() + own_memory(),
        "disk_free": free_bytes(folder),
        "nofile_hard": -1 if descriptors == resource.RLIM_INFINITY else descriptors,
        "executable": sys.executable,
        "versions": python_and_packages(),
        "unix_s": time.time(),
    }
