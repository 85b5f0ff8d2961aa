"""Emulated time over real processes: the same bits as inline for every algorithm, under any load."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from launch.executors.local import LocalExecutor
from tests.asynchronous import accounts, contender, star
from tests.harness import Result, SilentDisplay, arm, events, run
from tests.integration.test_faults import outcome_of

SLOW = star(stragglers=4, sd_mbps=0.0, latency_ms=0.005)
UNEVEN = {"compute": {"time_per_round": 5e-5, "jitter": 0.4, "slow_nodes": 2, "slow_factor": 3.0}}
ARMS: dict[str, dict[str, Any]] = {
    "divshare": {"settings": {"recipients": 3}},
    "divshare, no flush": {"name": "divshare", "settings": {"recipients": 3, "flush": False}},
    "divshare, resampled": {"name": "divshare", "settings": {"recipients": 3, "resample": True}},
    "swift_push": {"settings": {"recipients": 3}},
    "adpsgd": {},
    "adpsgd, overlap": {"name": "adpsgd", "settings": {"overlap": True}},
    "adpsgd_pingpong": {"settings": {"pings": 2}},
    "swift": {},
    "swarm": {},
    "gossip": {"settings": {"period_s": 6e-5}},
}
LOGGED = (
    "time_s",
    "train_s",
    "wait_s",
    "train_loss",
    "staleness",
    "total_bytes",
    "made_bytes",
    "sent",
    "received",
    "aggregated",
    "replaced",
    "discarded",
    "dropped",
)


@pytest.fixture(scope="module")
def executor() -> Iterator[LocalExecutor]:
    """One agent for all tests of this file."""
    made = LocalExecutor()
    made.start()
    yield made
    made.close()


def same(one: Result, two: Result, folders: tuple[Path, Path]) -> None:
    """Models, node logs, observer and network log agree to the bit, but for real times and ids."""
    assert one.models.tobytes() == two.models.tobytes()
    for key in LOGGED:
        assert one.column("round", key) == two.column("round", key), key
    assert one.metrics[1:] == two.metrics[1:]
    first, second = (events(folder / "network.jsonl") for folder in folders)
    assert first[1:-1] == second[1:-1]


@pytest.mark.parametrize("name", ARMS)
def test_processes_and_inline_agree_to_the_bit(name: str, executor: LocalExecutor, tmp_path: Path) -> None:
    asked = dict(ARMS[name])
    limits = {"max_rounds": None, "time_limit_s": 8e-4, "test_after": 4}
    settings = contender(asked.pop("name", name), asked.get("settings"), network=SLOW, run=limits, **UNEVEN)
    folders = tmp_path / "processes", tmp_path / "inline"
    same(run(settings, folders[0], executor=executor), run(settings, folders[1]), folders)
    assert accounts(folders[0])


@pytest.mark.parametrize("contention", ["uplink", "both"])
def test_synchronous_rounds_on_slow_links(contention: str, executor: LocalExecutor, tmp_path: Path) -> None:
    network = star(stragglers=4, sd_mbps=0.0, latency_ms=0.005, contention=contention, concurrency=2)
    settings = arm(network=network, compute={"time_per_round": 5e-5, "jitter": 0.4})
    folders = tmp_path / "processes", tmp_path / "inline"
    inline = run(settings, folders[1])
    same(run(settings, folders[0], executor=executor), inline, folders)
    waited = [value for column in inline.column("round", "wait_s") for value in column]
    assert max(waited) > 0


def test_a_loaded_machine_changes_nothing(executor: LocalExecutor, tmp_path: Path) -> None:
    """Twice with processes, once beside two that eat all CPU they can get."""
    data = {"name": "digits", "partition": {"name": "dirichlet", "settings": {"alpha": 0.5}}}
    settings = contender(
        "divshare",
        {"recipients": 3},
        data=data,
        network=star(stragglers=4, latency_ms=0.1),
        compute={"time_per_round": "match_comm", "recipients": 3, "jitter": 0.2},
        train={"lr": 0.05, "batch": 8, "local_steps": 4},
        run={"max_rounds": 6, "test_after": 3},
        evaluate={"samples": 50},
    )
    folders = tmp_path / "quiet", tmp_path / "loaded"
    quiet = run(settings, folders[0], executor=executor)
    hogs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        loaded = run(settings, folders[1], executor=executor)
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()
    same(quiet, loaded, folders)


@pytest.mark.parametrize("name", ["divshare", "adpsgd"])
def test_a_killed_node_ends_the_run_and_accounts_stay_exact(name: str, tmp_path: Path) -> None:
    """Killed in the middle of an exchange: its cause is told, nobody hangs, and the network log is whole."""
    settings = contender(name, network=SLOW, run={"max_rounds": 100_000, "test_after": 100_000}, **UNEVEN)
    outcome = outcome_of(settings, tmp_path, display=Killer(node=3, round=5))
    assert (outcome.state, outcome.exit_code) == ("failed", 4)
    assert outcome.cause is not None
    assert outcome.cause.startswith("node 3 on host localhost was killed by SIGKILL (")
    assert accounts(tmp_path)
    log = events(tmp_path / "network.jsonl")
    assert log[-1]["event"] == "end"
    assert log[-1]["time_s"] > 0


class Killer(SilentDisplay):
    """Kills one node when it reports a round.

    Args:
        node: its id.
        round: the first round after which it dies.
    """

    def __init__(self, *, node: int, round: int) -> None:
        super().__init__()
        self._node, self._round = node, round

    def progress(self, node: int, round: int, train_loss: float | None) -> None:
        """Kill the process whose log is that of the node."""
        if node == self._node and round >= self._round:
            self._round = 1 << 60
            kill_node(self._node)


def kill_node(node: int) -> None:
    """SIGKILL to the process that has node ``node``'s log open."""
    for process in psutil.Process().children(recursive=True):
        if any(opened.path.endswith(f"/nodes/{node:03d}.jsonl") for opened in process.open_files()):
            process.kill()
            return
    raise AssertionError(f"no process of node {node}")
