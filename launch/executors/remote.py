"""Which starter a hosts file asks for."""

from __future__ import annotations

from pathlib import Path

from launch.executors.slurm import SlurmStarter
from launch.executors.ssh import SshStarter
from launch.executors.starters import Starter
from launch.hosts import Hosts


def starter_for(hosts: Hosts, *, send: Path | None = None) -> Starter:
    """How the agents of ``hosts`` are started.

    Args:
        hosts: of the run.
        send: folder of data sets that is copied to those that name none; None: none is copied.
    """
    return SlurmStarter(send=send) if hosts.kind == "slurm" else SshStarter(send=send)
