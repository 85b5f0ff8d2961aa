"""Runs in real time on several hosts: paced links between processes of two agents, over TCP with CURVE."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from decentral.fidelity import NOT_TRUSTWORTHY, TRUSTWORTHY
from launch.executors.fleet import Fleet
from launch.executors.starters import LocalStarter
from tests.asynchronous import accounts, contender, star
from tests.harness import arm, events, run
from tests.integration.test_fleet import loopback

LATENCY_S = 0.01
SLOW = star(stragglers=2, sd_mbps=0.0, fast_mbps=0.2, latency_ms=LATENCY_S / 2 * 1e3)
"""Messages of some hundred bytes need milliseconds."""


@pytest.fixture
def two() -> Iterator[Fleet]:
    made = Fleet(loopback(2), LocalStarter())
    yield made
    made.close()


def test_synchronous_rounds_have_the_bits_of_emulated_time(two: Fleet, tmp_path: Path) -> None:
    """What nodes exchange does not depend on when it comes; all of it passes slow links."""
    wall = arm(network=SLOW, run={"max_rounds": 5, "test_after": 2, "clock": "wall"})
    emulated = arm(network=SLOW, run={"max_rounds": 5, "test_after": 2})
    hosts, inline = run(wall, tmp_path / "hosts", executor=two), run(emulated, tmp_path / "inline")
    assert hosts.models.tobytes() == inline.models.tobytes()
    for key in ("train_loss", "total_bytes", "sent", "received"):
        assert hosts.column("round", key) == inline.column("round", key), key
    # Real links are no faster than emulated ones, which are as fast as asked.
    for real, asked in zip(hosts.column("end", "time_s"), inline.column("end", "time_s"), strict=True):
        assert real[0] >= asked[0]


def test_asynchronous_accounts_and_fidelity(two: Fleet, tmp_path: Path) -> None:
    """Every message of every link has one fate, though sender and receiver are on different hosts."""
    data = {"name": "tests.integration.leisurely:Leisurely", "partition": {"name": "iid"}}
    made = contender("divshare", {"recipients": 3}, data=data, network=SLOW, run={"clock": "wall"})
    hosts = run(made, tmp_path, executor=two)
    assert hosts.column("end", "reason") == [["done"]] * made.nodes
    placed = {lines[0]["host"] for lines in hosts.nodes}
    assert placed == {"h1", "h2"}
    sums = accounts(tmp_path)
    assert len(sums) == made.nodes
    assert all(each["made"] > 0 for each in sums.values())
    assert sum(each["delivered"] for each in sums.values()) > 0
    fidelity = json.loads((tmp_path / "fidelity.json").read_text(encoding="utf-8"))
    assert fidelity["verdict"] in (TRUSTWORTHY, NOT_TRUSTWORTHY)
    assert hosts.outcome.distrust == tuple(fidelity["reasons"])
    measured = [link for link in fidelity["links"] if link["achieved_latency_s"] is not None]
    assert measured
    for link in measured:
        assert link["asked_latency_s"] == pytest.approx(LATENCY_S)
        assert link["achieved_latency_s"] >= LATENCY_S
    assert events(tmp_path / "network.jsonl")[-1]["reason"] == "done"
