"""What emulated hosts need of the machine, and what is missing of it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

SEARCH = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"
"""Daemons lie where only root looks."""

COMMANDS = {
    "ip": "iproute2",
    "tc": "iproute2",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "setsid": "util-linux",
    "pivot_root": "util-linux",
    "mount": "mount",
    "sshd": "openssh-server",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "rsync": "rsync",
}
"""Command -> Debian package."""
SLURM_COMMANDS = {"slurmctld": "slurmctld", "slurmd": "slurmd", "srun": "slurm-client", "munged": "munge"}
CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21}
"""Name -> bit, linux/capability.h."""


def find(command: str) -> str | None:
    """The path of ``command``, also if it is a daemon's."""
    return shutil.which(command, path=SEARCH)


def effective_capabilities() -> int:
    """The bit mask of this process's effective capabilities."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(next(line for line in status.splitlines() if line.startswith("CapEff:")).split()[1], 16)


def compiler() -> str | None:
    """A C compiler, which clocks that are off need (clock.py)."""
    return find("cc") or find("gcc") or find("tcc")


def unmet(
    *,
    slurm: bool = False,
    platform: str = sys.platform,
    uid: int | None = None,
    capabilities: int | None = None,
    which: Callable[[str], str | None] = find,
) -> str | None:
    """Why there can be no emulated hosts here, as one sentence; None where there can.

    Args:
        slurm: whether Slurm is to run on them.
        platform, uid, capabilities, which: what the machine is and has; by default what it really does.
    """
    if platform != "linux":
        return f"emulated hosts need Linux namespaces; this is {platform}"
    uid = os.geteuid() if uid is None else uid
    if uid != 0:
        return f"emulated hosts need root; this is user {uid}"
    held = effective_capabilities() if capabilities is None else capabilities
    lacking = [name for name, bit in CAPABILITIES.items() if not held >> bit & 1]
    if lacking:
        return f"emulated hosts need {' and '.join(lacking)}; this container has a root without"
    commands = {**COMMANDS, **(SLURM_COMMANDS if slurm else {})}
    missing = [command for command in commands if which(command) is None]
    if missing:
        packages = " ".join(sorted({commands[command] for command in missing}))
        return f"emulated hosts need {', '.join(missing)}; apt-get install {packages}"
    return None
