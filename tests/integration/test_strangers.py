"""Strangers who knock at a running experiment on several hosts: refused, counted in its logs, no effect."""

from __future__ import annotations

import socket
from pathlib import Path

import psutil
import pytest

from launch.executors.fleet import Fleet
from launch.executors.starters import LocalStarter
from tests.harness import SilentDisplay, arm, events, run
from tests.integration.leisurely import braked
from tests.integration.test_fleet import loopback

WAIT_S = 60.0
SECURE_NULL_GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
"""ZMTP 3.0 of a client without CURVE."""


class Knocking(SilentDisplay):
    """Knocks once at every TCP port that processes of this test listen at, when the run is under way."""

    def __init__(self, brake: Path) -> None:
        super().__init__()
        self._brake = brake
        self.knocked: list[tuple[str, int]] = []

    def progress(self, node: int, round: int, train_loss: float | None) -> None:
        super().progress(node, round, train_loss)
        if self.knocked:
            return
        for process in psutil.Process().children(recursive=True):
            for connection in process.net_connections("tcp"):
                if connection.status == psutil.CONN_LISTEN:
                    self.knocked.append(connection.laddr)
        for address in self.knocked:
            _knock(address)
        self._brake.touch()


def _knock(address: tuple[str, int]) -> None:
    """Greet without keys, and wait until the other end has hung up."""
    with socket.create_connection(address, WAIT_S) as stranger:
        stranger.sendall(SECURE_NULL_GREETING)
        try:
            while stranger.recv(4096):
                pass
        except ConnectionResetError:
            pass


@pytest.mark.parametrize("checkpoints", [False, True])
def test_everybody_refuses_and_counts_strangers(checkpoints: bool, tmp_path: Path) -> None:
    """Nodes, observer and timekeeper on two hosts; the models are those of a run without strangers."""
    brake = tmp_path / "brake"
    tables = {
        "run": {"max_rounds": 20, "test_after": 10},
        "checkpoint": {"every": 10} if checkpoints else {},
    }
    made = arm(**tables, data=braked(brake, hold_at=5))
    fleet, display = Fleet(loopback(2), LocalStarter()), Knocking(brake)
    try:
        hosts = run(made, tmp_path / "hosts", executor=fleet, display=display)
    finally:
        fleet.close()
    alone = run(arm(**tables), tmp_path / "inline")
    assert hosts.models.tobytes() == alone.models.tobytes()
    assert hosts.metrics[1:-1] == alone.metrics[1:-1]
    # Nodes and the observer listen at one port each, the timekeeper at one for all.
    assert len(display.knocked) == made.nodes + 2
    logs = [f"nodes/{node:03}.jsonl" for node in range(made.nodes)] + ["metrics.jsonl", "network.jsonl"]
    ends = {log: events(tmp_path / "hosts" / log)[-1] for log in logs}
    assert {log: end["event"] for log, end in ends.items()} == dict.fromkeys(logs, "end")
    assert {log: end.get("refused_unauthenticated") for log, end in ends.items()} == dict.fromkeys(logs, 1)
