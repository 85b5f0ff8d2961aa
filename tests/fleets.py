"""Several agents as if on several hosts: loopback addresses, one agent each, and what a killed one leaves."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from decentral.config import Arm
from launch.executors.base import Interruption, Job, Outcome
from launch.executors.fleet import Fleet
from launch.executors.line import Line
from launch.hosts import Host, Hosts
from launch.paths import JobFolder
from launch.scratch import PrivateFolder
from tests.harness import SilentDisplay

GONE_S = 10.0
"""What is promised of the members of an agent that was killed."""


class Elsewhere(Line):
    """A line whose agent does not find the run folder."""

    def order(self, do: str, **fields: Any) -> None:
        if do == "load":
            fields["probe"] = {**fields["probe"], "text": "another"}
        super().order(do, **fields)


def loopback(count: int, **keys: Any) -> Hosts:
    """``count`` hosts of different cores, at 127.0.0.1 and after."""
    return Hosts(
        hosts=tuple(Host(name=f"h{i}", bind=f"127.0.0.{i}", cores=i, **keys) for i in range(1, count + 1)),
        source="the test",
        kind="ssh",
    )


def ended(fleet: Fleet, settings: Arm, folder: Path, display: SilentDisplay) -> Outcome:
    """How ``settings`` end there."""
    with Interruption().installed() as interruption:
        return fleet.run(Job(settings, 1, JobFolder(folder)), display, interruption)


def tidy_up_after_a_killed_agent() -> None:
    """As the next agent on that host does, once the kernel has ended the members of the killed one."""
    folder = Path(tempfile.gettempdir())
    deadline = time.monotonic() + GONE_S
    while left := sorted(folder.glob("decentral-*")):
        assert time.monotonic() < deadline, f"somebody still holds {left}"
        PrivateFolder(folder, "decentral-").remove()
        time.sleep(0.05)
