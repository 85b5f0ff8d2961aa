"""A member that is slow to bind or to start, on one of two hosts: the others wait, and nothing is lost."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any, ClassVar

import psutil
import pytest

from launch.executors import fleet as fleet_module
from launch.executors.fleet import Fleet
from launch.executors.line import Line
from launch.executors.starters import LocalStarter
from tests.asynchronous import contender
from tests.fleets import loopback
from tests.harness import arm, run
from tests.integration.test_virtual_time import same
from tests.waiting import wait_for

HELD_S = 2.0
"""For how long the member is stopped while all others could go on."""


class Holding(Line):
    """Stops the first member of host h2 right after it is forked, or right before it is told to go."""

    before: ClassVar[str]
    held: ClassVar[list[psutil.Process]]
    timers: ClassVar[list[threading.Timer]]
    since_s: ClassVar[float]
    helpers: ClassVar[set[int]]

    def order(self, do: str, **fields: Any) -> None:
        if self.name == "h2" and do == "fork":
            Holding.helpers = {each.pid for each in psutil.Process(self.facts["pid"]).children()}
        if self.name != "h2" or do != Holding.before:
            super().order(do, **fields)
            return
        if do == "fork":
            super().order(do, **fields)
            self._hold()
        else:
            self._hold()
            super().order(do, **fields)

    def _hold(self) -> None:
        agent = psutil.Process(self.facts["pid"])

        def first() -> psutil.Process | None:
            return next((each for each in agent.children() if each.pid not in Holding.helpers), None)

        member = wait_for(first, 30.0, "a member")
        member.suspend()
        wait_for(lambda: member.status() == psutil.STATUS_STOPPED, 30.0)
        Holding.held.append(member)
        Holding.since_s = time.monotonic()
        Holding.timers.append(threading.Timer(HELD_S, os.kill, (member.pid, signal.SIGCONT)))
        Holding.timers[-1].start()


@pytest.mark.parametrize("before", ["fork", "go"])
@pytest.mark.parametrize("name", ["mosaic", "divshare"])
def test_who_joins_late_misses_nothing(
    name: str, before: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(fleet_module, "Line", Holding)
    Holding.before, Holding.held, Holding.timers = before, [], []
    settings = arm() if name == "mosaic" else contender("divshare", {"recipients": 3})
    fleet, folders = Fleet(loopback(2), LocalStarter()), (tmp_path / "hosts", tmp_path / "inline")
    try:
        hosts = run(settings, folders[0], executor=fleet)
        ended_s = time.monotonic()
    finally:
        fleet.close()
        for timer in Holding.timers:
            timer.join()
    assert len(Holding.held) == 1
    assert ended_s - Holding.since_s > HELD_S, "the others have waited for it"
    same(hosts, run(settings, folders[1]), folders)
