"""How much memory a host has left for processes that are started now.

Of the standard library alone, as the doctor's probe runs it on hosts that have nothing else.
"""

from __future__ import annotations

from pathlib import Path

from launch.cgroup import levels

_KIB = 1024


def memory_available(root: Path = Path("/")) -> int:
    """Bytes that the machine has to give, and every memory cgroup that this process is in.

    Args:
        root: where /proc and cgroups are; another one only in tests.
    """
    available = _kib(root / "proc/meminfo", "MemAvailable:") * _KIB
    left = [
        max(0, level.limit_bytes - level.used_bytes)
        for level in levels(root)
        if level.limit_bytes is not None and level.used_bytes is not None
    ]
    return min([available, *left])


def own_memory(root: Path = Path("/")) -> int:
    """Bytes that this process has and no other: its heap and stacks, not the files that it has mapped."""
    return _kib(root / "proc/self/status", "RssAnon:") * _KIB


def _kib(path: Path, key: str) -> int:
    """What stands behind ``key`` in a file of /proc; 0 where it does not stand there."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(key)), 0)
