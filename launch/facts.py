"""What an agent tells of its host, and which of its addresses the other hosts are to use."""

from __future__ import annotations

import ipaddress
import os
import platform
import resource
import shutil
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from decentral.errors import PreflightError

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
        "memory_available": psutil.virtual_memory().available,
        "disk_free": free_bytes(folder),
        "nofile_hard": -1 if descriptors == resource.RLIM_INFINITY else descriptors,
        "executable": sys.executable,
        "versions": python_and_packages(),
        "unix_s": time.time(),
    }


def data_address(bind: str | None, environ: Mapping[str, str], towards: Sequence[str]) -> str:
    """The IP address of this host that its data sockets bind and other hosts connect to.

    Args:
        bind: declared in the hosts file; taken as it is.
        environ: of this process: ssh tells there by which address the launcher came.
        towards: names or addresses of the other hosts; the way to the first that can be resolved decides
            where neither is known.

    Raises:
        PreflightError: none of them tells.
    """
    if bind is not None:
        return bind
    connection = environ.get("SSH_CONNECTION", "").split()
    own = {each.address for addresses in psutil.net_if_addrs().values() for each in addresses}
    if len(connection) == 4 and connection[2] in own:  # else it came with the environment of another host
        return connection[2]
    for other in towards:
        try:
            family, _, _, _, where = socket.getaddrinfo(other, 9, type=socket.SOCK_DGRAM)[0]
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect(where)  # sends nothing: it only asks the kernel for the way
                address: str = probe.getsockname()[0]
        except OSError:
            continue
        if not ipaddress.ip_address(address).is_loopback or ipaddress.ip_address(where[0]).is_loopback:
            return address
    raise PreflightError(
        f"host {platform.node()} cannot tell by which address the others ({', '.join(towards)}) reach it; "
        f'give it bind = "its IP address" in the hosts file'
    )
