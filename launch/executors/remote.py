"""Which starter a hosts file asks for."""

from __future__ import annotations

from pathlib import Path

from launch.executors.slurm import SlurmStarter
from launch.executors.ssh import SshStarter
from launch.executors.starters import Starter
from launch.hosts import Hosts
from launch.own import NONE, OwnModules


def starter_for(hosts: Hosts, *, send: Path | None = None, own: OwnModules = NONE) -> Starter:
    """How the agents of ``hosts`` are started.

    Args:
        hosts: of the run.
        send: folder of data sets that is copied to those that name none; None: none is copied.
        own: modules of the user's own.
    """
    return (SlurmStarter if hosts.kind == "slurm" else SshStarter)(send=send, own=own)
