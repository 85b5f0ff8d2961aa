"""How long a member stands still for a checkpoint that others do not finish."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from decentral.checkpoint.words import Freeze, Frozen, Order, Present, Save, Saved, Thaw
from decentral.control import decode_from_node, encode_telling, encode_word
from decentral.errors import StalledError
from decentral.speech import Gone
from decentral.transports.wire import ZmqWire, timekeeper_address
from decentral.transports.zeromq import ZmqTransport

LONG_S = 30.0
TIMEOUT_S = 0.3


class Member:
    """One member, and the socket of a timekeeper that says what a test wants."""

    def __init__(self, folder: Path) -> None:
        self.context = zmq.Context()
        self.timekeeper = self.context.socket(zmq.ROUTER)
        self.timekeeper.bind(timekeeper_address(folder))
        self.transport = ZmqTransport(
            node=0, run=bytes(8), folder=folder, max_payload_bytes=64, timeout_s=TIMEOUT_S
        )
        self.wire = ZmqWire(
            node=0,
            observer=2,
            transport=self.transport,
            folder=folder,
            batch_bytes=64,
            timeout_s=TIMEOUT_S,
        )
        self.wire.saves(lambda save, pending: Saved(0, "node-000.ckpt", 1, "00", 0))
        assert self.told() == Present(0)

    def order(self, *orders: Order) -> None:
        for order in orders:
            self.timekeeper.send_multipart([bytes(4), encode_word(order)])

    def told(self) -> object:
        """What the member told next."""
        assert self.timekeeper.poll(int(1000 * LONG_S))
        return decode_from_node(self.timekeeper.recv_multipart()[1])

    def close(self) -> None:
        self.transport.close()
        self.context.destroy(linger=0)


@pytest.fixture
def member() -> Iterator[Member]:
    folder = Path(tempfile.mkdtemp(prefix="still-"))  # not tmp_path: a socket's path may have 107 bytes
    made = Member(folder)
    yield made
    made.close()
    shutil.rmtree(folder)


def test_others_that_never_stand_still(member: Member) -> None:
    member.order(Freeze(1))
    with pytest.raises(
        StalledError, match=r"node 0 heard nothing for 0\.3 s while it waited for all others to"
    ):
        member.wire.next(True, lambda: "an answer")
    assert member.told() == Frozen(0, [])


@pytest.mark.parametrize("patient", [False, True])
def test_others_that_never_finish_a_checkpoint(member: Member, patient: bool) -> None:
    """Even who has all the time in the world waits for trainings, not for files."""
    member.order(Freeze(1), Save(1, [], 0))
    with pytest.raises(StalledError, match="while it waited for a checkpoint that others make"):
        member.wire.next(True, lambda: "the end of the other nodes", patient=patient)
    assert [type(member.told()) for _ in range(2)] == [Frozen, Saved]


def test_who_only_serves_others_waits_however_long_they_train(member: Member) -> None:
    trained = threading.Event()

    def lead() -> None:
        assert member.told() == Frozen(0, [])
        trained.wait(4 * TIMEOUT_S)
        member.order(Save(1, [], 0))
        assert isinstance(member.told(), Saved)
        member.order(Thaw(1))
        member.timekeeper.send_multipart([bytes(4), encode_telling(Gone(0, 1, 7))])

    member.order(Freeze(1))
    leading = threading.Thread(target=lead)
    leading.start()
    assert member.wire.next(True, lambda: "the end of the other nodes", patient=True) == Gone(0, 1, 7)
    leading.join()
