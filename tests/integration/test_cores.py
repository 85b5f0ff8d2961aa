"""Agents on one machine, as of several runs at once: no two of their members are pinned to one core."""

from __future__ import annotations

import os
from pathlib import Path

from launch.executors.base import Interruption, Job
from launch.executors.fleet import Fleet
from launch.executors.starters import LocalStarter
from launch.facts import usable_cores
from launch.hosts import Host, Hosts
from launch.paths import JobFolder
from tests.harness import SilentDisplay, arm, events

NODES = 3


class Bystander(SilentDisplay):
    """Looks where nodes may run while none of them has ended."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self.told: list[int | None] = []
        self.kept: list[set[int]] = []

    def progress(self, node: int, round: int, train_loss: float | None) -> None:
        if self.told:
            return
        for log in sorted((self._folder / "nodes").iterdir()):
            header = events(log)[0]
            self.told.append(header["core"])
            self.kept.append(os.sched_getaffinity(header["pid"]))


def test_agents_of_one_machine_pin_to_cores_of_their_own(tmp_path: Path) -> None:
    """Each has a core for each of its members as far as it knows; together they have more than there are."""
    hosts = tuple(Host(name=f"h{i}", bind=f"127.0.0.{i}", nodes=(i,)) for i in range(NODES))
    elsewhere = Host(name="rest", bind="127.0.0.9", share=0)
    settings = arm(nodes=NODES, topology={"name": "epidemic", "settings": {"degree": 1}})
    fleet = Fleet(Hosts(hosts=(*hosts, elsewhere), source="the test", kind="ssh"), LocalStarter())
    bystander = Bystander(tmp_path)
    try:
        with Interruption().installed() as interruption:
            outcome = fleet.run(Job(settings, 1, JobFolder(tmp_path)), bystander, interruption)
    finally:
        fleet.close()
    assert outcome.state == "done", outcome.cause
    everywhere = set(usable_cores())
    assert bystander.kept == [everywhere if core is None else {core} for core in bystander.told]
    assert len(bystander.told) == NODES
    pinned = [core for core in bystander.told if core is not None]
    assert len(set(pinned)) == len(pinned), "two on one core"
