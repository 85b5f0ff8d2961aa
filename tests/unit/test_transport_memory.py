"""The ideal network between threads of one process."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from decentral.errors import Deadlock
from decentral.inline import Scheduler
from decentral.messages import Message, encode_header
from decentral.transports.memory import MemoryNetwork, MemoryTransport

RUN = b"runrunru"


def message(sender: int, round_: int = 0, fragment: int = 0) -> Message:
    values = np.full(3, 100 * sender + 10 * round_ + fragment, dtype=np.float32)
    return Message(sender, round_, fragment, values, b"mapmapma", 17)


def run(bodies: list[Callable[[MemoryTransport], None]], scheduler: Scheduler | None = None) -> MemoryNetwork:
    scheduler = scheduler or Scheduler()
    network = MemoryNetwork(scheduler, RUN)
    for node, body in enumerate(bodies):
        scheduler.add(node, lambda node=node, body=body: body(network.endpoint(node)))  # type: ignore[misc]
    scheduler.run()
    return network


def test_batches_arrive_in_order_and_intact() -> None:
    got: list[Message] = []
    sent = [message(0, t, k) for t in range(3) for k in range(2)]

    def sender(transport: MemoryTransport) -> None:
        for t in range(3):
            transport.send([(1, sent[2 * t : 2 * t + 2])])

    def receiver(transport: MemoryTransport) -> None:
        for _ in range(3):
            got.extend(transport.receive(lambda: "batches"))

    run([sender, receiver])
    assert [id(item) for item in got] == [id(item) for item in sent]


def test_a_receiver_that_waits_is_woken() -> None:
    got: list[int] = []

    def receiver(transport: MemoryTransport) -> None:
        got.extend(item.sender for _ in range(2) for item in transport.receive(lambda: "both"))

    def sender(node: int) -> Callable[[MemoryTransport], None]:
        def body(transport: MemoryTransport) -> None:
            transport.send([(0, [message(node)])])

        return body

    run([receiver, sender(1), sender(2)])
    assert got == [1, 2]


def test_one_send_serves_many_destinations_and_costs_its_headers() -> None:
    got: dict[int, list[Message]] = {}
    spent: list[int] = []
    shared = message(0)

    def sender(transport: MemoryTransport) -> None:
        spent.append(transport.send([(node, [shared]) for node in (1, 2, 3)]))
        spent.append(transport.send([]))

    def receiver(node: int) -> Callable[[MemoryTransport], None]:
        def body(transport: MemoryTransport) -> None:
            got[node] = transport.receive(lambda: "the model")

        return body

    run([sender, *(receiver(node) for node in (1, 2, 3))])
    assert all(items[0] is shared for items in got.values())
    assert sorted(got) == [1, 2, 3]
    assert spent == [3 * len(encode_header(RUN, 1, [shared])), 0]


def test_headers_are_counted_with_their_sequence_numbers() -> None:
    spent: list[int] = []

    def sender(transport: MemoryTransport) -> None:
        spent.extend(transport.send([(1, [message(0)])]) for _ in range(130))

    run([sender, lambda transport: None])
    expected = [len(encode_header(RUN, sequence, [message(0)])) for sequence in range(1, 131)]
    assert spent == expected
    assert spent[-1] > spent[0]


def test_waiting_for_what_nobody_sends_is_a_deadlock() -> None:
    def receiver(transport: MemoryTransport) -> None:
        transport.receive(lambda: "2 messages of round 3 from nodes 1")

    with pytest.raises(Deadlock, match="node 0 waits for 2 messages of round 3 from nodes 1"):
        run([receiver, lambda transport: None])


def test_a_closed_transport_forgets_and_may_be_closed_again() -> None:
    def sender(transport: MemoryTransport) -> None:
        transport.send([(1, [message(0)])])

    def leaver(transport: MemoryTransport) -> None:
        transport.close()
        transport.close()

    network = run([sender, leaver])
    assert not network.boxes[1]
    assert not network.endpoint(1).refused
