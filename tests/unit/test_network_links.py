"""The emulated links against closed forms. At 8 Mbit/s a byte takes 1 us, 1000 bytes 1 ms."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest

from decentral.errors import DecentralError
from decentral.network.ledger import Ledger
from decentral.network.links import Arrival, Item, Links, Transfer
from decentral.network.model import INFINITE_NS, NetworkModel
from decentral.seeding import Seeds

MS = 1_000_000
RATE = 8e6


def network(
    n: int = 4, up: float | Sequence[float] = RATE, down: float | Sequence[float] = RATE, **settings: Any
) -> NetworkModel:
    settings.setdefault("latency_ns", np.array([[0]]))
    settings.setdefault("seeds", Seeds(1))
    uplink, downlink = np.broadcast_to(up, n), np.broadcast_to(down, n)
    return NetworkModel(n=n, uplink_bps=uplink, downlink_bps=downlink, **settings)


def to(*destinations: int, nbytes: int = 1000, first: int = 0) -> list[Item]:
    return [Item(j, nbytes, first + s, 0, 0, 0) for s, j in enumerate(destinations)]


class Put(NamedTuple):
    at_ns: int
    sender: int
    items: list[Item]
    flush: bool = False


class Outcome(NamedTuple):
    links: Links
    arrivals: list[Arrival]
    transfers: list[Transfer]

    @property
    def arrived(self) -> dict[tuple[int, int], int]:
        """Time of arrival by (sender, sequence)."""
        return {(arrival.sender, arrival.item.sequence): arrival.at_ns for arrival in self.arrivals}


def drive(model: NetworkModel, puts: Iterable[Put], until_ns: int = INFINITE_NS) -> Outcome:
    """Puts come at their times, as class 2; the accounts are checked after every event."""
    transfers: list[Transfer] = []
    links = Links(model, Ledger(model.n), transfers.append)
    arrivals: list[Arrival] = []

    def go_to(bound: tuple[int, int]) -> None:
        while (event := links.next_event()) < bound:
            arrived = links.step()
            assert all(arrival.at_ns == event[0] for arrival in arrived)
            arrivals.extend(arrived)
            links.ledger.check()

    for put in puts:
        go_to((put.at_ns, 1))
        links.put(put.at_ns, put.sender, put.items, flush=put.flush)
        links.ledger.check()
    go_to((until_ns, 0))
    return Outcome(links, arrivals, transfers)


# One setting for each way of sharing links: the first two behave alike where nothing competes.
WAYS = [
    {"contention": "uplink", "concurrency": 1},
    {"contention": "uplink", "concurrency": 2},
    {"contention": "both", "concurrency": 1},
    {"contention": "both", "concurrency": None},
]
ways = pytest.mark.parametrize("way", WAYS, ids=lambda way: f"{way['contention']}-{way['concurrency']}")


@ways
def test_one_transfer(way: dict[str, Any]) -> None:
    model = network(latency_ns=np.array([[5 * MS]]), **way)
    links = Links(model, Ledger(4))
    assert links.next_event() == (INFINITE_NS, 0)
    links.put(3 * MS, 0, to(2), flush=False)
    assert links.started == {0: [0]}
    assert links.next_event() == (4 * MS, 3)
    assert links.step() == []
    assert links.next_event() == (9 * MS, 0)
    assert links.step() == [Arrival(9 * MS, 0, to(2)[0])]
    assert (links.sent[0], links.sent_bytes[0], links.sent_bits[0], links.busy_ns[0]) == (1, 1000, 8000, MS)
    assert links.next_event() == (INFINITE_NS, 0)


@ways
def test_without_latency_a_message_arrives_with_the_end_of_its_transfer(way: dict[str, Any]) -> None:
    outcome = drive(network(**way), [Put(0, 0, to(1))])
    assert outcome.arrivals == [Arrival(MS, 0, to(1)[0])]
    assert outcome.transfers == [Transfer(0, to(1)[0], 0, MS, "delivered")]


@ways
def test_an_end_is_the_first_nanosecond_at_which_nothing_remains(way: dict[str, Any]) -> None:
    outcome = drive(network(up=3e9, down=9e9, **way), [Put(0, 0, to(1, nbytes=1))])
    assert outcome.arrived == {(0, 0): 3}  # 8 bits / 3 Gbit/s = 2.67 ns


@ways
def test_overheads_take_the_slot_and_the_wire(way: dict[str, Any]) -> None:
    model = network(overhead_ns=2 * MS, overhead_bytes=500, **way)
    outcome = drive(model, [Put(0, 0, to(1, 1))])
    assert outcome.arrived == {(0, 0): 3_500_000, (0, 1): 7 * MS}
    assert outcome.links.sent_bytes[0] == 2000
    assert outcome.links.sent_bits[0] == 24_000
    assert outcome.links.busy_ns[0] == 7 * MS


@ways
def test_a_pair_has_its_cap(way: dict[str, Any]) -> None:
    caps = np.full((4, 4), np.inf)
    caps[0, 1] = 2e6
    outcome = drive(network(pair_bps=caps, **way), [Put(0, 0, to(1)), Put(0, 3, to(1))], 5 * MS)
    ends = {sender: at for (sender, _), at in outcome.arrived.items()}
    # On a shared downlink node 3 takes the 6 Mbit/s that the capped transfer leaves.
    assert ends == {0: 4 * MS, 3: 1_333_334 if way["contention"] == "both" else MS}


@ways
def test_every_ordered_pair_has_its_latency(way: dict[str, Any]) -> None:
    matrix = np.arange(16).reshape(4, 4) * MS
    outcome = drive(network(latency_ns=matrix, **way), [Put(0, 0, to(1)), Put(0, 1, to(0))])
    assert outcome.arrived == {(0, 0): 2 * MS, (1, 0): 5 * MS}


@ways
def test_infinite_rates_and_empty_messages_take_no_time(way: dict[str, Any]) -> None:
    endless = drive(network(up=np.inf, down=np.inf, **way), [Put(7, 0, to(1, 1, 2)), Put(7, 3, to(1))])
    assert [(a.at_ns, a.sender) for a in endless.arrivals] == [(7, 0), (7, 0), (7, 0), (7, 3)]
    assert endless.links.busy_ns == [0, 0, 0, 0]
    empty = drive(network(**way), [Put(7, 0, to(1, nbytes=0)), Put(8, 0, to(1))])
    assert empty.arrived == {(0, 0): 8 + MS}
    late = drive(network(up=np.inf, down=np.inf, overhead_ns=MS, **way), [Put(7, 0, to(1, 1))])
    assert [arrival.at_ns for arrival in late.arrivals] == [7 + MS, 7 + 2 * MS]


@pytest.mark.parametrize("contention", ["uplink", "both"])
def test_a_queue_is_sent_one_after_the_other(contention: str) -> None:
    outcome = drive(
        network(contention=contention), [Put(0, 0, to(1, 2, 1, 3)), Put(MS // 2, 0, to(2, first=9))]
    )
    assert [(a.at_ns // MS, a.item.sequence) for a in outcome.arrivals] == [
        (1, 0),
        (2, 1),
        (3, 2),
        (4, 3),
        (5, 9),
    ]
    assert outcome.links.started == {0: [0, 1, 2, 3, 9]}
    assert outcome.links.busy_ns[0] == 5 * MS


def test_receivers_do_not_limit_under_uplink_contention() -> None:
    outcome = drive(network(down=1e6), [Put(0, i, to(3)) for i in range(3)])
    assert set(outcome.arrived.values()) == {MS}


@pytest.mark.parametrize("concurrency", [1, 2, None])
class TestSharedDownlink:
    def test_equal_shares(self, concurrency: int | None) -> None:
        model = network(contention="both", concurrency=concurrency)
        outcome = drive(model, [Put(0, i, to(3)) for i in (2, 0, 1)])
        assert [(a.at_ns, a.sender) for a in outcome.arrivals] == [(3 * MS, 0), (3 * MS, 1), (3 * MS, 2)]

    def test_unequal_uplinks(self, concurrency: int | None) -> None:
        model = network(up=[2e6, 8e6, 8e6, 8e6], contention="both", concurrency=concurrency)
        outcome = drive(model, [Put(0, 0, to(3)), Put(0, 1, to(3))])
        assert outcome.arrived == {(0, 0): 4 * MS, (1, 0): 1_333_334}

    def test_the_rest_is_shared_anew_at_starts_and_ends(self, concurrency: int | None) -> None:
        model = network(contention="both", concurrency=concurrency)
        outcome = drive(model, [Put(0, 0, to(3)), Put(MS // 2, 1, to(3))])
        assert outcome.arrived == {(0, 0): 3 * MS // 2, (1, 0): 2 * MS}

    def test_a_cut_transfer_releases_its_share(self, concurrency: int | None) -> None:
        model = network(contention="both", concurrency=concurrency, abort_on_flush=True)
        outcome = drive(model, [Put(0, 0, to(3)), Put(0, 1, to(3)), Put(MS, 0, [], flush=True)])
        assert outcome.arrived == {(1, 0): 3 * MS // 2}
        assert outcome.transfers[0] == Transfer(0, to(3)[0], 0, MS, "aborted")
        assert (outcome.links.sent_bits[0], outcome.links.busy_ns[0]) == (4000, MS)

    def test_overheads_need_no_share(self, concurrency: int | None) -> None:
        model = network(contention="both", concurrency=concurrency, overhead_ns=MS, abort_on_flush=True)
        puts = [Put(0, 0, to(3)), Put(MS, 1, to(3)), Put(3 * MS // 2, 1, [], flush=True)]
        outcome = drive(model, puts)
        assert outcome.arrived == {(0, 0): 2 * MS}
        assert outcome.links.sent_bits[1] == 0


def test_a_slow_receiver_blocks_the_head_of_line() -> None:
    slow = network(down=[8e6, 2e6, 8e6, 8e6], contention="both")
    assert drive(slow, [Put(0, 0, to(1, 2))]).arrived == {(0, 0): 4 * MS, (0, 1): 5 * MS}
    # With two at a time the second passes: it gets what the first leaves of the uplink, 6 Mbit/s.
    two = network(down=[8e6, 2e6, 8e6, 8e6], contention="both", concurrency=2)
    assert drive(two, [Put(0, 0, to(1, 2))]).arrived == {(0, 0): 4 * MS, (0, 1): 1_333_334}


def test_transfers_of_one_sender_share_its_uplink() -> None:
    for contention in ("uplink", "both"):
        outcome = drive(network(concurrency=2, contention=contention), [Put(0, 0, to(1, 2, 3))])
        assert outcome.arrived == {(0, 0): 2 * MS, (0, 1): 2 * MS, (0, 2): 3 * MS}


@pytest.mark.parametrize(
    ("concurrency", "started"), [(1, [0]), (2, [0, 2]), (3, [0, 2, 3]), (None, [0, 2, 3])]
)
@pytest.mark.parametrize("contention", ["uplink", "both"])
def test_at_most_one_transfer_per_pair(contention: str, concurrency: int | None, started: list[int]) -> None:
    model = network(concurrency=concurrency, contention=contention)
    links = Links(model, Ledger(4))
    links.put(0, 0, to(1, 1, 2, 3, 1), flush=False)
    assert links.started == {0: started}
    arrivals = []
    while links.next_event()[0] < INFINITE_NS:
        arrivals += links.step()
    assert len(arrivals) == 5
    assert [a.item.sequence for a in arrivals if a.item.destination == 1] == [0, 1, 4]


def test_a_flush_drops_what_has_not_started() -> None:
    outcome = drive(network(), [Put(0, 0, to(1, 2, 3)), Put(MS // 2, 0, to(3, first=7), flush=True)])
    assert outcome.arrived == {(0, 0): MS, (0, 7): 2 * MS}
    assert (outcome.links.dropped[0], outcome.links.dropped_bytes[0]) == (2, 2000)
    assert outcome.links.ledger.dropped["flush"].columns(0).tolist() == [[0, 0, 1, 1], [0, 0, 1000, 1000]]


@ways
def test_an_aborting_flush_cuts_what_is_in_progress(way: dict[str, Any]) -> None:
    model = network(abort_on_flush=True, **way)
    outcome = drive(model, [Put(0, 0, to(1, 1)), Put(MS // 2, 0, to(3, first=7), flush=True)])
    assert outcome.arrived == {(0, 7): 3 * MS // 2}
    assert [(t.item.sequence, t.end_ns, t.outcome) for t in outcome.transfers] == [
        (0, MS // 2, "aborted"), (7, 3 * MS // 2, "delivered")
    ]  # fmt: skip
    links = outcome.links
    assert links.started == {0: [7]}
    assert (links.sent[0], links.sent_bytes[0], links.sent_bits[0]) == (1, 1000, 12_000)
    assert (links.dropped[0], links.dropped_bytes[0], links.busy_ns[0]) == (2, 2000, 3 * MS // 2)
    assert links.ledger.dropped["abort"].columns(0)[0].tolist() == [0, 1, 0, 0]


@ways
def test_events_of_one_instant_come_by_class_and_sender(way: dict[str, Any]) -> None:
    latencies = np.zeros((7, 7), dtype=np.int64)
    latencies[2] = MS
    model = network(n=7, latency_ns=latencies, **way)
    outcome = drive(model, [Put(0, 2, to(6)), Put(MS, 5, to(0)), Put(MS, 1, to(3)), Put(MS, 4, to(2))])
    # Node 2's message left at 1 ms; the others' transfers end when it arrives.
    assert [(a.at_ns, a.sender) for a in outcome.arrivals] == [(2 * MS, s) for s in (2, 1, 4, 5)]


def test_a_queue_operation_sees_arrivals_of_its_instant_but_precedes_ends() -> None:
    links = Links(network(), Ledger(4))
    links.put(0, 0, to(1, 2), flush=False)
    assert links.next_event() == (MS, 3)
    links.put(MS, 0, to(3, first=7), flush=True)
    while links.next_event()[0] < INFINITE_NS:
        links.step()
    assert links.started == {0: [0, 7]}


@ways
def test_close_leaves_in_flight_what_is_under_way(way: dict[str, Any]) -> None:
    model = network(latency_ns=np.array([[10 * MS]]), **way)
    outcome = drive(model, [Put(0, 0, to(1, 1, 1))], 3 * MS // 2)
    links = outcome.links
    links.close(3 * MS // 2)
    links.close(3 * MS // 2)
    assert links.next_event() == (INFINITE_NS, 0)
    assert links.ledger.in_flight(0)[0].tolist() == [0, 2, 0, 0]
    assert links.ledger.dropped["end"].columns(0)[0].tolist() == [0, 1, 0, 0]
    assert (links.sent_bits[0], links.busy_ns[0]) == (12_000, 3 * MS // 2)
    links.ledger.check()


def test_the_past_and_missing_events_are_refused() -> None:
    links = Links(network(), Ledger(4))
    with pytest.raises(DecentralError, match="no event is left"):
        links.step()
    links.put(5, 0, to(1), flush=False)
    with pytest.raises(DecentralError, match="event at 4 ns, expected none before 5 ns"):
        links.put(4, 1, to(0), flush=False)
    links.put(2 * MS, 1, to(0), flush=False)
    with pytest.raises(DecentralError, match="in order of time"):
        links.step()
