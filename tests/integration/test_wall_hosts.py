"""Runs in real time on several hosts: paced links between processes of two agents, over TCP with CURVE."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from decentral.fidelity import NOT_TRUSTWORTHY, TRUSTWORTHY
from launch.executors.fleet import Fleet
from launch.executors.starters import LocalStarter
from tests.asynchronous import accounts, contender, star
from tests.fleets import loopback
from tests.harness import SilentDisplay, arm, events, run

LATENCY_S = 0.01
SLOW = star(stragglers=2, sd_mbps=0.0, fast_mbps=0.2, latency_ms=LATENCY_S / 2 * 1e3)
"""Messages of some hundred bytes need milliseconds."""
ROUNDS = 5


class Placed(SilentDisplay):
    """Remembers which nodes are on which host."""

    members: Mapping[str, Sequence[int]]

    def hosts(self, members: Mapping[str, Sequence[int]]) -> None:
        self.members = members

    def host_of(self, node: int) -> str:
        (name,) = [name for name, there in self.members.items() if node in there]
        return name


@pytest.fixture
def two() -> Iterator[Fleet]:
    made = Fleet(loopback(2), LocalStarter())
    yield made
    made.close()


def clocks_apart_s(fleet: Fleet) -> float:
    """Most by which the clocks of a job's hosts, as its nodes read them, may differ."""
    return sum(facts["clock_error_s"] for facts in fleet.meet().values())


def test_synchronous_rounds_have_the_bits_of_emulated_time(two: Fleet, tmp_path: Path) -> None:
    """What nodes exchange does not depend on when it comes; all of it passes slow links."""
    tables = {"network": SLOW, "compute": {"time_per_round": 1e-5}}
    limits = {"max_rounds": ROUNDS, "test_after": 2}
    hosts = run(arm(**tables, run={**limits, "clock": "wall"}), tmp_path / "hosts", executor=two)
    inline = run(arm(**tables, run=limits), tmp_path / "inline")
    assert hosts.models.tobytes() == inline.models.tobytes()
    assert hosts.column("round", "train_loss") == inline.column("round", "train_loss")
    assert hosts.column("evaluation", "test_loss") == inline.column("evaluation", "test_loss")
    for key in ("received", "aggregated", "made", "made_bytes"):
        assert hosts.column("end", key) == inline.column("end", key), key
    # A late node may end before its own last messages have left; accounts are closed when all have ended.
    assert accounts(tmp_path / "hosts") == accounts(tmp_path / "inline")
    # Real links are no faster than emulated ones, which are as fast as asked.
    early_s = ROUNDS * clocks_apart_s(two)
    for real, asked in zip(hosts.column("end", "time_s"), inline.column("end", "time_s"), strict=True):
        assert asked[0] > ROUNDS * LATENCY_S
        assert real[0] >= asked[0] - early_s


def test_asynchronous_accounts_and_fidelity(two: Fleet, tmp_path: Path) -> None:
    """Every message of every link has one fate, though sender and receiver are on different hosts."""
    data = {"name": "tests.integration.leisurely:Leisurely", "partition": {"name": "iid"}}
    run_ = {"clock": "wall"}
    made = contender("divshare", {"recipients": 3}, rounds=16, data=data, network=SLOW, run=run_)
    placed = Placed()
    hosts = run(made, tmp_path, executor=two, display=placed)
    assert hosts.column("end", "reason") == [["done"]] * made.nodes
    sums = accounts(tmp_path)
    assert len(sums) == made.nodes
    assert all(each["made"] > 0 for each in sums.values())
    told = {
        (line["node"], to): (line["made"][k], line["delivered"][k])
        for line in events(tmp_path / "network.jsonl")
        if line["event"] == "links"
        for k, to in enumerate(line["to"])
    }
    arrived = {pair for pair, (_, delivered) in told.items() if delivered}
    assert [pair for pair in arrived if placed.host_of(pair[0]) != placed.host_of(pair[1])]

    fidelity = json.loads((tmp_path / "fidelity.json").read_text(encoding="utf-8"))
    # All nodes have told, and of many messages: it was checked, whatever came of it on this machine.
    assert fidelity["verdict"] == (NOT_TRUSTWORTHY if fidelity["reasons"] else TRUSTWORTHY)
    assert hosts.outcome.distrust == tuple(fidelity["reasons"])
    links = {(link["node"], link["to"]): link for link in fidelity["links"]}
    assert len(links) == len(fidelity["links"])
    assert arrived <= set(links) <= {pair for pair, (queued, _) in told.items() if queued}
    early_s = clocks_apart_s(two)
    for pair in arrived:
        assert links[pair]["asked_latency_s"] == pytest.approx(LATENCY_S), pair
        assert links[pair]["achieved_latency_s"] >= LATENCY_S - early_s, pair
    assert events(tmp_path / "network.jsonl")[-1]["reason"] == "done"
