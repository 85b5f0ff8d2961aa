"""What asynchronous algorithms hold on every network, and what a flush does (algorithms.md 13, 14.9)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decentral.arrays import FloatArray
from decentral.inline import Scheduler
from decentral.medium import Outgoing
from decentral.messages import Kind, Message
from decentral.node import Node
from decentral.queues import OutQueue
from tests.asynchronous import ROUND_S, accounts, contender, star, transfers
from tests.harness import events, run

IMPATIENT = {"request_timeout_s": 4 * ROUND_S}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "divshare": ("divshare", {}),
    "divshare-resample": ("divshare", {"resample": True, "recipients": 4}),
    "swift_push": ("swift_push", {}),
    "adpsgd": ("adpsgd", IMPATIENT),
    "adpsgd-overlap": ("adpsgd", {"overlap": True, "roles": "parity", **IMPATIENT}),
    "pingpong": ("adpsgd_pingpong", {}),
    "swift": ("swift", {}),
    "swift-s1": ("swift", {"comm_set": 1, "weights": "mh", "broadcast": "on_average", "flush": True}),
    "gossip": ("gossip", {"merge": "limited"}),
    "swarm": ("swarm", {"steps_dist": "geometric", **IMPATIENT}),
}
NETWORKS: dict[str, dict[str, Any]] = {
    "stragglers": star(stragglers=4),
    "latency": star(stragglers=2, latency_ms=0.04, jitter_ms=0.03),
    "uplink-4": star(stragglers=4, concurrency=4, overhead_bytes=20),
    "both-1": star(stragglers=4, contention="both"),
    "both-all": star(stragglers=4, contention="both", concurrency="all", abort_on_flush=True),
    "loss": star(stragglers=2, loss=0.2, latency_ms=0.01),
}
each_variant = pytest.mark.parametrize("variant", VARIANTS)


@pytest.mark.parametrize("network", NETWORKS)
@each_variant
def test_runs_are_equal_to_the_bit_and_accounts_are_exact(variant: str, network: str, tmp_path: Path) -> None:
    """With slow links, slow nodes and jitter: made = delivered + replaced + dropped + in flight, per link.

    Of a message that its receiver's newer one replaced, only the newer one is aggregated (B9).
    """
    name, settings = VARIANTS[variant]
    compute = {"time_per_round": ROUND_S, "slow_nodes": 2, "slow_factor": 3.0, "jitter": 0.2}
    made = contender(name, settings, network=NETWORKS[network], compute=compute, rounds=6)
    first, again = run(made, tmp_path / "a"), run(made, tmp_path / "b")
    assert first.models.tobytes() == again.models.tobytes()
    logs = [
        [line for line in events(tmp_path / each / "network.jsonl") if line["event"] != "header"]
        for each in "ab"
    ]
    assert logs[0] == logs[1]
    sums = accounts(tmp_path / "a")
    for node, end in enumerate(lines[-1] for lines in first.nodes):
        assert end["received"] == end["aggregated"] + end["replaced"] + end["discarded"]
        assert (end["made"], end["made_bytes"]) == (sums[node]["made"], sums[node]["made_bytes"])
    arrived = sum(each["delivered"] + each["replaced"] for each in sums.values())
    received = sum(lines[-1]["received"] for lines in first.nodes)
    assert 0 < received <= arrived, "what arrived after a node had left is not received"
    lost = sum(each["dropped_loss"] for each in sums.values())
    assert (lost > 0) == (network == "loss")


@each_variant
def test_a_message_is_what_the_model_was_when_it_was_made(
    variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the network keeps it (13: snapshots by copy; B12: one object for all)."""
    name, settings = VARIANTS[variant]
    counted, deliver = OutQueue.count, Scheduler.deliver
    made: dict[int, tuple[FloatArray, bytes]] = {}
    late: list[int] = []

    def count(queue: OutQueue, outgoing: list[Outgoing]) -> None:
        for _, message in outgoing:
            made.setdefault(id(message.values), (message.values, message.values.tobytes()))
        counted(queue, outgoing)

    def delivered(scheduler: Scheduler, node: int, messages: list[Message]) -> None:
        for message in messages:
            values, before = made[id(message.values)]
            assert values is message.values
            assert values.tobytes() == before
            late.append(scheduler.timekeeper.now_ns - message.time_ns)
        deliver(scheduler, node, messages)

    monkeypatch.setattr(OutQueue, "count", count)
    monkeypatch.setattr(Scheduler, "deliver", delivered)
    slow = star(fast_mbps=10.0, stragglers=4, latency_ms=0.02)
    run(contender(name, settings, network=slow, train={"lr": 0.1}), tmp_path)
    assert len(late) > 20
    assert max(late) > ROUND_S * 1e9, "some messages are older than a round"


def rounds_end_s(lines: list[dict[str, Any]]) -> list[float]:
    """When the rounds of a node end; the start is 0."""
    return [0.0] + [line["time_s"] for line in lines if line["event"] == "round"]


def stale_starts(folder: Path, nodes: list[list[dict[str, Any]]]) -> int:
    """Transfers of messages of round k that begin after round k + 1 has ended."""
    stale = 0
    for transfer in transfers(folder):
        ends = rounds_end_s(nodes[transfer["node"]])
        k, start_s = transfer["tag"], transfer["start_s"]
        assert start_s >= ends[k + 1] - 1e-12, "not before it was made"
        stale += k + 2 < len(ends) and start_s > ends[k + 2] + 1e-12
    return stale


@pytest.mark.parametrize("name", ["divshare", "swift_push", "swift"])
def test_after_a_flush_no_older_message_starts(name: str, tmp_path: Path) -> None:
    """14.9, B7: while queues overflow; without the flush older ones do start."""
    slow = star(fast_mbps=20.0, stragglers=4)
    flushed = run(contender(name, {"flush": True}, network=slow), tmp_path / "a")
    backlog = run(contender(name, {"flush": False}, network=slow), tmp_path / "b")
    assert sum(each["dropped_flush"] for each in accounts(tmp_path / "a").values()) > 50
    assert sum(each["dropped_flush"] for each in accounts(tmp_path / "b").values()) == 0
    assert stale_starts(tmp_path / "a", flushed.nodes) == 0
    assert stale_starts(tmp_path / "b", backlog.nodes) > 0


@pytest.mark.parametrize("name", ["divshare", "swift_push", "adpsgd_pingpong", "swift"])
def test_only_without_a_flush_a_slow_senders_queue_grows(name: str, tmp_path: Path) -> None:
    """B12: and what it sends gets ever staler; with a flush at most the last round's messages are left."""
    slow = star(fast_mbps=12.0)
    left, age = {}, {}
    for flush in (False, True):
        for rounds in (8, 24):
            folder = tmp_path / f"{flush}-{rounds}"
            result = run(contender(name, {"flush": flush}, network=slow, rounds=rounds), folder)
            left[flush, rounds] = sum(each["dropped_end"] for each in accounts(folder).values())
            ages = [line["staleness"] for lines in result.nodes for line in lines if line["event"] == "round"]
            age[flush, rounds] = np.mean([each for each in ages if each is not None])
    assert left[False, 24] > 2.5 * left[False, 8]
    assert left[True, 24] < 1.5 * left[True, 8]
    assert age[False, 24] > 1.5 * age[True, 24]


def test_a_straggler_delivers_its_share_of_random_fragments(tmp_path: Path) -> None:
    """2.6: a link at 1/5 delivers 1/5 of the bytes, not always of the same fragments: queues are shuffled."""
    made = contender("divshare", {}, network=star(stragglers=4, sd_mbps=0.0), rounds=40)
    run(made, tmp_path)
    shares = {}
    for node, sums in accounts(tmp_path).items():
        shares[node] = (sums["delivered"] + sums["replaced"]) / sums["made"]
    slow, fast = sorted(shares.values())[:4], sorted(shares.values())[4:]
    # 24 fragments of 16 bytes a round at 12 Mbit/s: 5e-5 s are enough for 4.7 of them.
    assert slow == pytest.approx([4.7 / 24] * 4, abs=0.02)
    assert min(fast) > 0.95
    slow_nodes = sorted(shares, key=shares.__getitem__)[:4]
    begun = [each for each in transfers(tmp_path) if each["node"] in slow_nodes]
    assert {each["fragment"] for each in begun} == {0, 1, 2, 3}
    assert len({each["to"] for each in begun}) == 8


@pytest.mark.parametrize("variant", ["divshare", "divshare-resample", "swift_push", "pingpong", "swift"])
def test_nobody_waits_for_anybody(variant: str, tmp_path: Path) -> None:
    """13: with one node almost silent and nine of ten messages lost all others go on without a wait."""
    name, settings = VARIANTS[variant]
    compute = {"time_per_round": ROUND_S, "slow_nodes": 1, "slow_factor": 1000.0, "slow_which": "first"}
    limit = {"time_limit_s": 10 * ROUND_S, "max_rounds": None}
    result = run(contender(name, settings, network=star(loss=0.9), compute=compute, run=limit), tmp_path)
    rounds = [sum(line["event"] == "round" for line in lines) for lines in result.nodes]
    assert rounds == [1] + [10] * 7
    assert not any(line["wait_s"] for lines in result.nodes for line in lines if line["event"] == "round")


def test_every_ping_is_answered_once_and_no_pong_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """B12: kinds do not change on the way: a node makes its pings and one pong per ping that came."""
    pinged = {"asked": 0, "answered": 0}
    serve, count = Node._serve, OutQueue.count

    def served(node: Node, requester: int, request: Message | None) -> Message:
        assert request is None
        pinged["answered"] += 1
        reply = serve(node, requester, request)
        assert (reply.sender, reply.kind) == (node.id, Kind.FRAGMENT)
        return reply

    def counted(queue: OutQueue, outgoing: list[Any]) -> None:
        pinged["asked"] += len(outgoing)
        count(queue, outgoing)

    monkeypatch.setattr(Node, "_serve", served)
    monkeypatch.setattr(OutQueue, "count", counted)
    run(contender("adpsgd_pingpong", {"pings": 2}, rounds=10), tmp_path)
    sums = accounts(tmp_path).values()
    assert sum(each["made"] for each in sums) == pinged["asked"]
    assert pinged["asked"] == 8 * 10 * 2 + pinged["answered"]
    assert 8 * 9 * 2 <= pinged["answered"] <= 8 * 10 * 2
