"""Which starter a hosts file asks for."""

from __future__ import annotations

from launch.executors.slurm import SlurmStarter
from launch.executors.ssh import SshStarter
from launch.executors.starters import Starter
from launch.hosts import Hosts


def starter_for(hosts: Hosts) -> Starter:
    """How the agents of ``hosts`` are started."""
    return SlurmStarter() if hosts.kind == "slurm" else SshStarter()
