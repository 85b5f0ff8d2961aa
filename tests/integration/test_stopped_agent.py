"""An agent on another host that is stopped, where nobody can end it from here: nothing is left there."""

from __future__ import annotations

import signal
import subprocess
import tempfile
from pathlib import Path
from typing import BinaryIO

import psutil

from launch.executors.fleet import Fleet
from launch.executors.starters import LocalStarter
from launch.hosts import Host
from launch.scratch import PrivateFolder
from tests.harness import arm
from tests.integration.test_faults import LONG
from tests.integration.test_fleet import Struck, ended, loopback


class OutOfReach(LocalStarter):
    """Agents that cannot be killed from here, as those behind ssh."""

    def __init__(self) -> None:
        super().__init__()
        self.started: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, host: Host, log: BinaryIO) -> subprocess.Popen[bytes]:
        self.started[host.name] = super().start(host, log)
        return self.started[host.name]

    def abandon(self, process: subprocess.Popen[bytes]) -> None:
        pass


def family(pid: int) -> list[psutil.Process]:
    agent = psutil.Process(pid)
    return [agent, *agent.children(recursive=True)]


def test_a_stopped_agent_is_ended_on_its_host(tmp_path: Path) -> None:
    starter = OutOfReach()
    fleet = Fleet(loopback(2), starter)
    there: list[psutil.Process] = []

    class Stopped(Struck):
        def progress(self, node: int, round: int, train_loss: float | None) -> None:
            if self.at_s is None:
                there.extend(family(self._pid))
            super().progress(node, round, train_loss)

    try:
        struck = Stopped(fleet.meet()["h2"]["pid"], signal.SIGSTOP)
        outcome = ended(fleet, arm(run=LONG), tmp_path, struck)
        status = starter.started["h2"].wait(30)
        _, alive = psutil.wait_procs(there, timeout=10)
    finally:
        fleet.close()
        for process in starter.started.values():
            process.kill()
            process.wait()
        PrivateFolder(Path(tempfile.gettempdir()), "decentral-").remove()  # as the next agent there does
    assert outcome.cause == "agent on host h2 is lost: nothing has been heard of it for 6 s"
    assert status == -signal.SIGKILL
    assert len(there) > 3, "agent, watchdog, and members"
    assert alive == []
