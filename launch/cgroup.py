"""The memory cgroup of this process, version 1 or 2, and those around it: limits, use and kills."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_UNLIMITED = 1 << 62
"""Version 1 writes the largest multiple of a page below 2**63 where there is no limit."""


@dataclass(frozen=True)
class Level:
    """One cgroup.

    Args:
        limit_bytes: of memory; None: unlimited.
        kills: processes that the kernel has killed in it for want of memory; None: unknown.
        hits: how often its limit was met, in version 2 by an allocation that failed; None: unknown.
        used_bytes: of memory, less what merely holds contents of files and is given back where it is needed;
            None: unknown.
    """

    limit_bytes: int | None
    kills: int | None
    hits: int | None
    used_bytes: int | None = None


def levels(root: Path = Path("/")) -> Iterator[Level]:
    """Those of this process, innermost first; none where it has no memory cgroup or cannot see it."""
    try:
        group = _group(root)
    except (OSError, ValueError):
        return
    if group is None:
        return
    mount, inside, version = group
    for path in (inside, *inside.parents):
        folder = mount / path.relative_to("/")
        level = _version_1(folder) if version == 1 else _version_2(folder)
        if level is not None:
            yield level


def _group(root: Path) -> tuple[Path, PurePosixPath, int] | None:
    """Where the hierarchy is mounted, this process's group below that, and the version."""
    named: dict[int, str] = {}
    for line in (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines():
        number, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            named[1] = path
        elif number == "0" and not controllers:
            named[2] = path
    for line in (root / "proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        left, _, right = line.partition(" - ")
        top, mount = left.split()[3:5]
        kind, _, options = right.split()[:3]
        version = 1 if kind == "cgroup" and "memory" in options.split(",") else 2 if kind == "cgroup2" else 0
        # With both, the hierarchy of version 2 has no memory controller.
        if version not in named or (version == 2 and 1 in named):
            continue
        group = PurePosixPath(named[version])
        inside = group.relative_to(top) if group.is_relative_to(top) else PurePosixPath()
        return root / mount.lstrip("/"), PurePosixPath("/") / inside, version
    return None


def _version_1(folder: Path) -> Level | None:
    kills, limit = (
        _number(folder / "memory.oom_control", "oom_kill"),
        _number(folder / "memory.limit_in_bytes"),
    )
    if kills is None and limit is None:
        return None
    return Level(
        None if limit is None or limit >= _UNLIMITED else limit,
        kills,
        _number(folder / "memory.failcnt"),
        _used(folder, "memory.usage_in_bytes", "total_"),
    )


def _version_2(folder: Path) -> Level | None:
    events = folder / "memory.events"
    kills = _number(events, "oom_kill")
    if kills is None:
        return None  # the root, or the controller is not handed down to here: what is above counts
    used = _used(folder, "memory.current", "")
    return Level(_number(folder / "memory.max"), kills, _number(events, "oom"), used)


def _used(folder: Path, name: str, prefix: str) -> int | None:
    used = _number(folder / name)
    if used is None:
        return None
    lists = (_number(folder / "memory.stat", f"{prefix}{kind}_file") or 0 for kind in ("active", "inactive"))
    return max(0, used - sum(lists))


def _number(path: Path, key: str | None = None) -> int | None:
    """The number in a file, or that of the line ``key number``; None where there is none (or ``max``)."""
    try:
        words = path.read_text(encoding="ascii").split()
    except OSError:
        return None
    place = 0 if key is None else words.index(key) + 1 if key in words[::2] else len(words)
    return int(words[place]) if place < len(words) and words[place].isdecimal() else None
