"""Exact accounts: at any moment, for any network, made = delivered + replaced + dropped + in flight."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decentral.errors import DecentralError
from decentral.network.ledger import REASONS, Ledger
from decentral.network.links import Arrival, Item, Links, Transfer
from decentral.network.model import INFINITE_NS, NetworkModel
from decentral.seeding import Seeds

N = 4


def network(**settings: Any) -> NetworkModel:
    values: dict[str, Any] = {"uplink_bps": np.full(N, 8e6), "downlink_bps": np.full(N, 8e6)}
    values |= {"latency_ns": np.array([[500]]), "seeds": Seeds(3)}
    return NetworkModel(n=N, **(values | settings))


def message(destination: int, nbytes: int = 10, sequence: int = 0) -> Item:
    return Item(destination, nbytes, sequence, 0, 0, 0)


def finish(links: Links) -> list[Arrival]:
    arrivals = []
    while links.next_event()[0] < INFINITE_NS:
        arrivals += links.step()
    return arrivals


def test_rows_for_the_log() -> None:
    links = Links(network(), Ledger(N))
    links.put(0, 1, [message(3, 10, 0), message(0, 20, 1), message(3, 30, 2), message(3, 40, 3)], flush=False)
    for _ in range(3):  # end, arrival, end
        links.step()
    links.put(30_000, 1, [message(0, 5, 9)], flush=True)
    links.ledger.replace(1, 3, 10)
    links.ledger.check()
    rows = list(links.ledger.rows())
    assert [row["node"] for row in rows] == [0, 1, 2, 3]
    assert rows[0]["to"] == rows[0]["made"] == []
    expected = {
        "node": 1, "to": [0, 3],
        "made": [2, 3], "made_bytes": [25, 80],
        "delivered": [0, 0], "delivered_bytes": [0, 0],
        "replaced": [0, 1], "replaced_bytes": [0, 10],
        "dropped_flush": [0, 1], "dropped_flush_bytes": [0, 40],
        "dropped_abort": [0, 0], "dropped_abort_bytes": [0, 0],
        "dropped_loss": [0, 0], "dropped_loss_bytes": [0, 0],
        "dropped_end": [0, 0], "dropped_end_bytes": [0, 0],
        "dropped_lost_node": [0, 0], "dropped_lost_node_bytes": [0, 0],
        "in_flight": [2, 1], "in_flight_bytes": [25, 30],
    }  # fmt: skip
    assert rows[1] == expected
    assert all(type(value) is int for value in rows[1]["made_bytes"])


def test_only_delivered_messages_are_replaced() -> None:
    links = Links(network(), Ledger(N))
    with pytest.raises(
        DecentralError, match="link 0 -> 1: 10 bytes to replace, expected a delivered message"
    ):
        links.ledger.replace(0, 1, 10)
    links.put(0, 0, [message(1)], flush=False)
    finish(links)
    with pytest.raises(DecentralError, match="11 bytes to replace"):
        links.ledger.replace(0, 1, 11)
    links.ledger.replace(0, 1, 10)
    with pytest.raises(DecentralError, match="replace a message once"):
        links.ledger.replace(0, 1, 10)
    links.ledger.check()


@pytest.mark.parametrize("tally", ["made", "delivered", "replaced", *REASONS])
def test_check_finds_a_wrong_entry(tally: str) -> None:
    links = Links(network(), Ledger(N))
    links.put(0, 2, [message(1)], flush=False)
    links.ledger.check()
    wrong = links.ledger.dropped[tally] if tally in REASONS else getattr(links.ledger, tally)
    wrong.add(2, 3, 0)
    with pytest.raises(
        DecentralError, match=r"link 2 -> 3: -?1 messages of 0 bytes in flight by the accounts"
    ):
        links.ledger.check()


def test_check_without_links_expects_nothing_in_flight() -> None:
    ledger = Ledger(N)
    ledger.check()
    ledger.made.add(0, 1, 7)
    with pytest.raises(
        DecentralError, match="1 messages of 7 bytes in flight by the accounts, expected the 0 of 0"
    ):
        ledger.check()


def test_stop_drops_the_queue_and_lets_transfers_go_on() -> None:
    links = Links(network(), Ledger(N))
    links.put(0, 0, [message(1), message(2), message(3)], flush=False)
    links.stop(5_000, 0)
    assert finish(links) == [Arrival(10_500, 0, message(1))]
    assert links.ledger.dropped["end"].columns(0).tolist() == [[0, 0, 1, 1], [0, 0, 10, 10]]
    assert (links.dropped[0], links.dropped_bytes[0]) == (2, 20)
    links.ledger.check()


def test_lost_messages_use_the_link_and_never_arrive() -> None:
    transfers: list[Transfer] = []
    links = Links(network(loss=0.25), Ledger(N), transfers.append)
    links.put(0, 0, [message(1 + s % 3, 10, s - 500) for s in range(1000)], flush=False)
    arrived = [arrival.item.sequence for arrival in finish(links)]
    lost = [transfer.item.sequence for transfer in transfers if transfer.outcome == "lost"]
    assert 190 < len(lost) < 310
    assert sorted(arrived + lost) == list(range(-500, 500))
    assert links.started == {0: arrived}
    assert (links.sent, links.sent_bytes, links.dropped) == ([1000, 0, 0, 0], [10_000, 0, 0, 0], [0, 0, 0, 0])
    assert links.ledger.dropped["loss"].columns(0).sum(axis=1).tolist() == [len(lost), 10 * len(lost)]
    assert links.busy_ns[0] == 1000 * 10_000
    links.ledger.check()


def test_draws_depend_on_the_message_and_the_seed_only() -> None:
    def fates(seed: int, sequences: list[int]) -> dict[int, int]:
        links = Links(
            network(loss=0.3, jitter_ns=10**6, latency_ns=np.array([[0]]), seeds=Seeds(seed)), Ledger(N)
        )
        ends: dict[int, int] = {}
        for k, sequence in enumerate(sequences):
            at_ns = k * 10**9
            links.put(at_ns, 0, [message(1, 0, sequence)], flush=False)
            ends |= {arrival.item.sequence: arrival.at_ns - at_ns for arrival in finish(links)}
        return ends

    sequences = [-(10**30), -1, *range(100), 1 << 63]
    fate = fates(1, sequences)
    assert fate == fates(1, sequences[::-1])
    assert fate != fates(2, sequences)
    assert all(0 <= jitter <= 10**6 for jitter in fate.values())
    assert 300_000 < np.mean(list(fate.values())) < 700_000


def test_jitter_does_not_let_messages_of_a_pair_overtake() -> None:
    links = Links(network(jitter_ns=10**6, overhead_bytes=1), Ledger(N))
    links.put(0, 0, [message(1 + s % 2, 99, s) for s in range(200)], flush=False)
    arrivals = finish(links)
    assert [a.at_ns for a in arrivals] == sorted(a.at_ns for a in arrivals)
    # A message every 0.1 ms and up to 1 ms of jitter: many would overtake, and those of other pairs do.
    assert [a.item.sequence for a in arrivals] != list(range(200))
    for j in (1, 2):
        of_pair = [a for a in arrivals if a.item.destination == j]
        assert [a.item.sequence for a in of_pair] == list(range(j - 1, 200, 2))
        assert all(500 <= a.at_ns - (a.item.sequence + 1) * 100_000 <= 500 + 10**6 for a in of_pair)


CONTENTIONS = st.sampled_from(["uplink", "both"])
OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "put", "flush", "stop", "step", "step"]),
        st.integers(0, N - 1),
        st.lists(st.tuples(st.integers(1, N - 1), st.sampled_from([0, 1, 10, 1000])), max_size=6),
        st.integers(0, 400_000),
    ),
    max_size=25,
)


@st.composite
def models(draw: st.DrawFn) -> NetworkModel:
    rates = st.lists(st.sampled_from([1e6, 8e6, 60e6, np.inf]), min_size=N, max_size=N)
    return network(
        uplink_bps=np.array(draw(rates)),
        downlink_bps=np.array(draw(rates)),
        latency_ns=np.array([[draw(st.sampled_from([0, 1, 100_000]))]]),
        jitter_ns=draw(st.sampled_from([0, 300_000])),
        loss=draw(st.sampled_from([0.0, 0.3])),
        concurrency=draw(st.sampled_from([1, 2, None])),
        contention=draw(CONTENTIONS),
        abort_on_flush=draw(st.booleans()),
        overhead_bytes=draw(st.sampled_from([0, 7])),
        overhead_ns=draw(st.sampled_from([0, 1000])),
    )


def play(
    model: NetworkModel, operations: list[Any], *, to_the_end: bool = False
) -> tuple[Links, list[Arrival], list[Transfer]]:
    """Play, checking the accounts after everything that happens."""
    transfers: list[Transfer] = []
    arrivals: list[Arrival] = []
    links = Links(model, Ledger(N), transfers.append)
    now_ns = sequence = 0
    for kind, sender, queue, pause_ns in operations:
        if kind == "step":
            if links.next_event()[0] < INFINITE_NS:
                now_ns = links.next_event()[0]
                arrivals += links.step()
        else:
            now_ns = min(now_ns + pause_ns, links.next_event()[0])
            items = [message((sender + k) % N, b, sequence + s) for s, (k, b) in enumerate(queue)]
            sequence += len(items)
            if kind == "stop":
                links.stop(now_ns, sender)
            else:
                links.put(now_ns, sender, items, flush=kind == "flush")
        links.ledger.check()
    while to_the_end and links.next_event()[0] < INFINITE_NS:
        now_ns = links.next_event()[0]
        arrivals += links.step()
        links.ledger.check()
    links.close(now_ns)
    links.ledger.check()
    return links, arrivals, transfers


@given(models(), OPERATIONS)
@settings(max_examples=150)
def test_accounts_are_exact_at_every_moment(model: NetworkModel, operations: list[Any]) -> None:
    links, arrivals, transfers = play(model, operations)
    ledger = links.ledger
    made = np.array([ledger.made.columns(i).sum(axis=1) for i in range(N)])
    active = [(i, flow.item) for i in range(N) for flow in links._active[i].values()]
    for i in range(N):
        under_way = [item.nbytes for sender, item in active if sender == i]
        assert made[i, 0] == links.sent[i] + links.dropped[i] + len(under_way)
        assert made[i, 1] == links.sent_bytes[i] + links.dropped_bytes[i] + sum(under_way)
    assert sum(transfer.outcome == "lost" for transfer in transfers) == sum(
        int(ledger.dropped["loss"].columns(i)[0].sum()) for i in range(N)
    )
    assert len(arrivals) == sum(int(ledger.delivered.columns(i)[0].sum()) for i in range(N))


@given(models(), OPERATIONS)
@settings(max_examples=100)
def test_pairs_keep_their_order_and_runs_repeat(model: NetworkModel, operations: list[Any]) -> None:
    links, arrivals, transfers = play(model, operations, to_the_end=True)
    assert not any(links.ledger.in_flight(i).any() for i in range(N))
    for i in range(N):
        for j in range(N):
            of_pair = [a for a in arrivals if (a.sender, a.item.destination) == (i, j)]
            assert of_pair == sorted(of_pair, key=lambda a: (a.at_ns, a.item.sequence))
            assert of_pair == sorted(of_pair, key=lambda a: a.item.sequence)
    assert [arrival.at_ns for arrival in arrivals] == sorted(arrival.at_ns for arrival in arrivals)
    _, again, same = play(model, operations, to_the_end=True)
    assert (again, same) == (arrivals, transfers)


@given(models(), OPERATIONS)
@settings(max_examples=100)
def test_no_uplink_carries_more_than_its_rate(model: NetworkModel, operations: list[Any]) -> None:
    links, _, transfers = play(model, operations)
    elapsed_s = links._now_ns / 1e9
    for i in range(N):
        if np.isfinite(model.uplink_bps[i]):
            assert links.sent_bits[i] <= model.uplink_bps[i] * elapsed_s + 1
        assert links.busy_ns[i] <= links._now_ns
    for transfer in transfers:
        if transfer.outcome != "aborted":
            bits = 8 * (transfer.item.nbytes + model.overhead_bytes)
            least_s = bits / model.uplink_bps[transfer.sender]
            assert transfer.end_ns - transfer.start_ns >= least_s * 1e9 + model.overhead_ns - 1e-3
