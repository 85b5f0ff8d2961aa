"""All processes of a run on this machine: a fleet of one agent."""

from __future__ import annotations

from launch.executors.fleet import Fleet
from launch.executors.starters import LocalStarter
from launch.hosts import Host, Hosts
from launch.own import NONE, OwnModules

LOCALHOST = Hosts(hosts=(Host(name="localhost", local=True),), source="this machine", kind="ssh")


class LocalExecutor(Fleet):
    """Runs all jobs of a session under one agent, a child process.

    Args:
        own: modules of the user's own.
    """

    def __init__(self, own: OwnModules = NONE) -> None:
        super().__init__(LOCALHOST, LocalStarter(own.folders))
