"""What a host is and has, as far as a run needs it."""

from __future__ import annotations

import getpass
import os
import platform
import resource
import shutil
import sys
import tempfile
from typing import Any

from launch.deploy.onhost.look import absolute
from launch.deploy.onhost.trust import distrust
from launch.doctor.probe_software import software
from launch.listening import listening
from launch.memory import memory_available


def facts(request: dict[str, Any]) -> dict[str, Any]:
    """Who and what this host is.

    Args:
        request: ``bind remote ports towards folder``, and what ``software`` takes.
    """
    folder = absolute(request["folder"])
    found = listening({**request, "sockets": None})
    _, descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)
    return {
        "name": platform.node(),
        "user": _user(),
        "python": platform.python_version(),
        "executable": sys.executable,
        **software(request, folder),
        "memory_available": memory_available(),
        "folder": folder,
        "disk_free": shutil.disk_usage(_nearest(folder)).free,
        "unwritable": _unwritable(folder),
        "unsafe": distrust(folder),
        "nofile_hard": -1 if descriptors == resource.RLIM_INFINITY else descriptors,
        "cores": len(os.sched_getaffinity(0)),
        "core_limit": _core_limit(),
        "address": found.address,
        "no_address": found.why,
        "ports_free": found.ports_free,
        "ports_taken": found.ports_taken,
    }


def _nearest(path: str) -> str:
    """``path``, or the innermost folder above it that exists."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def _unwritable(folder: str) -> str | None:
    """Why nothing can be written in ``folder``, which may be yet to be made."""
    try:
        with tempfile.TemporaryFile(dir=_nearest(folder)) as file:
            file.write(bytes(4096))
            file.flush()
    except OSError as error:
        return error.strerror or str(error)
    return None


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a number without a name
        return str(os.getuid())


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return None


def _core_limit() -> float | None:
    """Cores' worth of time that control groups allow; None: all there is."""
    limits = []
    for folder in _cgroups("cpu"):
        both = (_read(os.path.join(folder, "cpu.max")) or "").split()
        if not both:
            both = [_read(os.path.join(folder, f"cpu.cfs_{what}_us")) or "" for what in ("quota", "period")]
        if len(both) == 2 and all(word.isdigit() for word in both) and int(both[1]):
            limits.append(int(both[0]) / int(both[1]))
    return min(limits, default=None)


def _cgroups(controller: str) -> list[str]:
    """Folders of the control groups of this process, the innermost first, in either version."""
    folders = []
    for line in (_read("/proc/self/cgroup") or "").splitlines():
        _, names, path = line.split(":", 2)
        if names == "" or controller in names.split(","):
            root = "/sys/fs/cgroup" if names == "" else f"/sys/fs/cgroup/{names}"
            while True:
                folders.append(root + path.rstrip("/"))
                if path in ("", "/"):
                    break
                path = os.path.dirname(path)
    return folders
