"""The timekeeper's socket: a word counts as the node's whose connection, and key, it came by."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from socket import AF_UNIX, MSG_DONTWAIT, SOCK_SEQPACKET, socketpair
from typing import Any, cast

import msgpack
import numpy as np
import pytest
import zmq

from decentral.checkpoint.words import Present
from decentral.control import (
    decode_telling,
    encode_leave,
    encode_speech,
    encode_word,
    split_word,
)
from decentral.errors import PreflightError, RunFailed
from decentral.messages import Message
from decentral.network.links import Item
from decentral.speech import ANY, Answer, Gone, Notice, Put, Role, Speech, Stop, Telling, Totals
from decentral.timekeeper import Timekeeper
from decentral.transports.addresses import Endpoint, Listen
from decentral.transports.wire import ZmqWire, timekeeper_address
from decentral.transports.zeromq import ZmqTransport
from launch.timekeeper import Terminated, TimekeeperSocket
from tests.emulated import keep, network, until

RUN = b"\x00runrunr"
HERE = Listen("127.0.0.1")
NODES = 3
OBSERVER, TIMEKEEPER = NODES, NODES + 1
LONG_S = 30.0


class Told:
    """In place of a timekeeper: notes what it is told, answers with notices, ends with the last node."""

    def __init__(self) -> None:
        self.speeches: list[Speech] = []
        self.left: list[int] = []
        self._tellings: list[Telling] = []

    @property
    def over(self) -> bool:
        return len(self.left) == NODES

    def speak(self, speech: Speech) -> None:
        self.speeches.append(speech)
        self._tellings.append(Notice(speech.node, [], [speech.at_ns]))

    def leave(self, node: int, at_ns: int, *, drop: bool) -> None:
        self.left.append(node)

    def advance(self) -> list[Telling]:
        tellings, self._tellings = self._tellings, []
        if self.over:
            tellings += [Stop(node, 9, [], [], Totals(0, 0, 0, 0)) for node in range(NODES)]
        return tellings


class Keeping:
    """A socket that keeps time in a thread of its own."""

    def __init__(self, endpoint: TimekeeperSocket) -> None:
        self.endpoint = endpoint
        self.told = Told()
        self.failure: BaseException | None = None
        self._terminated = Terminated()
        self._thread = threading.Thread(target=self._keep)
        self._thread.start()

    def wait(self) -> None:
        """Until it ends by itself."""
        self._thread.join(LONG_S)
        assert not self._thread.is_alive()

    def close(self) -> None:
        self._terminated._handle(15, None)
        self.wait()
        self.endpoint.close()
        self._terminated._read.close()
        self._terminated._write.close()

    def _keep(self) -> None:
        try:
            self.endpoint.keep(cast("Timekeeper", self.told), self._terminated)
        except RunFailed as failure:
            self.failure = failure


Dial = Callable[..., zmq.Socket[bytes]]


@pytest.fixture
def folder() -> Iterator[Path]:
    """Not ``tmp_path``: a socket's path may have 107 bytes."""
    made = Path(tempfile.mkdtemp(prefix="tk-"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def keeping(folder: Path) -> Iterator[Keeping]:
    made = Keeping(TimekeeperSocket(folder, HERE, NODES))
    yield made
    made.close()


@pytest.fixture
def dial(keeping: Keeping, folder: Path) -> Iterator[Dial]:
    """Connections that say they are node ``routing``; by tcp with a key pair, by ipc without."""
    context = zmq.Context()
    made: list[zmq.Socket[bytes]] = []

    def dial(routing: bytes | int, pair: tuple[bytes, bytes] | None = None) -> zmq.Socket[bytes]:
        socket = context.socket(zmq.DEALER)
        made.append(socket)
        name = routing.to_bytes(4, "little") if isinstance(routing, int) else routing
        if name:
            socket.setsockopt(zmq.ROUTING_ID, name)
        if pair is None:
            socket.connect(timekeeper_address(folder))
        else:
            socket.curve_publickey, socket.curve_secretkey = pair
            assert keeping.endpoint.endpoint is not None
            socket.curve_serverkey = keeping.endpoint.endpoint.key
            socket.connect(keeping.endpoint.endpoint.address)
        return socket

    yield dial
    context.destroy(linger=0)


@pytest.fixture
def keys(keeping: Keeping) -> dict[int, tuple[bytes, bytes]]:
    """Of all members, in the timekeeper's book."""
    pairs = {member: zmq.curve_keypair() for member in (*range(NODES), OBSERVER)}
    keeping.endpoint.connect(
        {member: Endpoint(f"tcp://127.0.0.1:{1 + member}", pair[0]) for member, pair in pairs.items()}
    )
    return pairs


def speech(node: int, at_ns: int = 5, destination: int = 1) -> Speech:
    return Speech(
        node, at_ns, [Put(at_ns, False, [Item(destination, 4, 0, 0, 0, Role.LATEST)])], ANY, 0, at_ns + 1, 0
    )


def test_words_of_both_kinds_of_connection_count(
    keeping: Keeping, dial: Dial, keys: dict[int, tuple[bytes, bytes]]
) -> None:
    sockets = [dial(0), dial(1, keys[1]), dial(2, keys[2])]
    for node, socket in enumerate(sockets):
        socket.send(encode_speech(speech(node)))
        assert socket.poll(int(1000 * LONG_S))
        assert msgpack.unpackb(socket.recv())[0] == 3
        socket.send(encode_leave(node, 7, False))
    keeping.wait()
    assert [told.node for told in keeping.told.speeches] == [0, 1, 2]
    assert sorted(keeping.told.left) == [0, 1, 2]
    assert keeping.failure is None
    assert not keeping.endpoint.refused


@pytest.mark.parametrize("by", ["ipc", "tcp"])
def test_a_long_word_comes_in_frames(
    keeping: Keeping, dial: Dial, keys: dict[int, tuple[bytes, bytes]], by: str
) -> None:
    items = [Item(2, 4, sequence, 0, 0, Role.LATEST) for sequence in range(100_000)]
    told = Speech(1, 5, [Put(5, False, items)], ANY, 0, 6, 0)
    frames = split_word(encode_speech(told))
    assert len(frames) == 4
    socket = dial(1, keys[1] if by == "tcp" else None)
    socket.send_multipart(frames)
    assert socket.poll(int(1000 * LONG_S))
    assert keeping.told.speeches == [told]


def await_refusals(keeping: Keeping, expected: Counter[str]) -> None:
    deadline = time.monotonic() + LONG_S
    while keeping.endpoint.refused != expected and time.monotonic() < deadline:
        time.sleep(0.01)
    assert keeping.endpoint.refused == expected
    assert keeping.failure is None


def test_nobody_speaks_for_another(
    keeping: Keeping, dial: Dial, keys: dict[int, tuple[bytes, bytes]]
) -> None:
    dial(1, keys[1]).send(encode_speech(speech(2)))  # another's name in the word
    dial(2, keys[1]).send(encode_speech(speech(2)))  # another's routing id
    dial(0, keys[1]).send(b"nonsense")  # which is not held against node 0
    dial(OBSERVER, keys[OBSERVER]).send(encode_speech(speech(2)))  # no node
    dial(b"", keys[1]).send(encode_leave(1, 5, True))
    dial(b"node 1", keys[1]).send(encode_leave(1, 5, True))
    await_refusals(keeping, Counter(sender=6))
    assert not keeping.told.speeches
    assert not keeping.told.left


def test_nobody_of_this_host_speaks_for_another_by_mistake(keeping: Keeping, dial: Dial) -> None:
    dial(0).send(encode_leave(2, 5, True))
    dial(77).send(encode_leave(77, 5, True))
    dial(b"").send(encode_leave(1, 5, True))
    dial(b"").send(b"nonsense")  # of nobody, so it ends nothing
    await_refusals(keeping, Counter(sender=4))
    assert not keeping.told.left


def test_strangers_never_get_a_word_in(keeping: Keeping, dial: Dial, keys: dict[int, object]) -> None:
    for node in range(NODES):
        dial(node, zmq.curve_keypair()).send(b"nonsense")
    await_refusals(keeping, Counter(key=3))


@pytest.mark.parametrize("by", ["ipc", "tcp"])
@pytest.mark.parametrize(
    "word",
    [
        [b"nonsense"],
        [b""],
        [encode_speech(speech(1)), b""],
        [b"\xdd\xff\xff\xff\xff" * 1000],
        [encode_speech(speech(1, destination=NODES))],
        [b"x"] * 50_000,
    ],
    ids=["nonsense", "empty", "two frames", "greedy", "no such node", "many frames"],
)
def test_a_broken_node_ends_the_run_with_its_name(
    keeping: Keeping, dial: Dial, keys: dict[int, tuple[bytes, bytes]], by: str, word: list[bytes]
) -> None:
    dial(1, keys[1] if by == "tcp" else None).send_multipart(word)
    keeping.wait()
    assert isinstance(keeping.failure, RunFailed)
    assert str(keeping.failure).startswith("node 1 told the timekeeper what it cannot read: malformed: ")


def test_a_wire_reaches_the_timekeeper_wherever_it_is(keeping: Keeping, folder: Path) -> None:
    made = []
    for node, host in ((0, folder), (1, folder / "a"), (2, folder / "a")):
        host.mkdir(exist_ok=True)
        transport = ZmqTransport(
            node=node, run=RUN, folder=host, max_payload_bytes=64, timeout_s=LONG_S, listen=HERE
        )
        wire = ZmqWire(
            node=node,
            observer=OBSERVER,
            transport=transport,
            folder=host,
            batch_bytes=64,
            timeout_s=LONG_S,
        )
        made.append((transport, wire))
    endpoints = {node: transport.endpoint for node, (transport, _) in enumerate(made)}
    endpoints[TIMEKEEPER] = keeping.endpoint.endpoint
    here = {0: (1, 2), 1: (0, TIMEKEEPER), 2: (0, TIMEKEEPER)}
    books = {node: {other: endpoints[other] for other in others} for node, others in here.items()}
    keeping.endpoint.connect(cast("dict[int, Endpoint]", {1: endpoints[1], 2: endpoints[2]}))
    try:
        for node, (_, wire) in enumerate(made):
            wire.connect(cast("dict[int, Endpoint]", books[node]))
            wire.speak(speech(node, at_ns=5 + node))
        for node, (_, wire) in enumerate(made):
            assert wire.next(True, lambda: "an answer") == Notice(node, [], [5 + node])
        for node, (_, wire) in enumerate(made):
            message = Message(node, 0, 0, np.ones(2, dtype=np.float32), bytes(8))
            wire.push([((node + 1) % NODES, message)])
        for node, (_, wire) in enumerate(made):
            heard = wire.next(True, lambda: "a payload")
            assert isinstance(heard, list)
            assert heard[0].sender == (node - 1) % NODES
            wire.leave(node, 9, False)
        for _, wire in made:
            assert isinstance(wire.next(True, lambda: "the end"), Stop)
        keeping.wait()
        assert keeping.failure is None
        assert not keeping.endpoint.refused
    finally:
        for transport, wire in made:
            assert not wire.refused
            transport.close()


def test_books_and_addresses_are_refused_where_they_are_no_use(folder: Path) -> None:
    with pytest.raises(PreflightError, match=r"cannot listen on 192\.0\.2\.1"):
        TimekeeperSocket(folder, Listen("192.0.2.1"), NODES)
    before = len(os.listdir("/proc/self/fd"))
    alone = TimekeeperSocket(folder)
    assert alone.endpoint is None
    alone.connect({})
    with pytest.raises(RuntimeError, match="listens on this one only"):
        alone.connect({1: Endpoint("tcp://127.0.0.1:9", bytes(40))})
    alone.close()
    alone.close()
    assert len(os.listdir("/proc/self/fd")) == before


# The launcher's orders


class Line:
    """What the launcher says, one order after the other, and hears."""

    def __init__(self) -> None:
        self._ours, self._theirs = socketpair(AF_UNIX, SOCK_SEQPACKET)
        self.told: list[tuple[Any, ...]] = []

    def order(self, *words: Any) -> None:
        self._ours.send(msgpack.packb(words))

    def fileno(self) -> int:
        return self._theirs.fileno()

    def read(self) -> Any:
        try:
            return msgpack.unpackb(self._theirs.recv(1 << 16, MSG_DONTWAIT))
        except BlockingIOError:
            return None

    def tell(self, *message: Any) -> None:
        self.told.append(message)

    def close(self) -> None:
        self._ours.close()
        self._theirs.close()


def test_everybody_hears_of_a_lost_node_whenever_it_connects(folder: Path) -> None:
    """Node 1 is lost before anybody has connected; the other two and the observer hear of it all the same."""
    endpoint, line, terminated = TimekeeperSocket(folder, None, NODES), Line(), Terminated()
    timekeeper, _, _ = keep(network(NODES), patience_ns=40)
    kept: list[bool] = []
    thread = threading.Thread(target=lambda: kept.append(endpoint.keep(timekeeper, terminated, line)))
    thread.start()
    context = zmq.Context()
    try:
        line.order("gone", 1)
        sockets = {}
        for member in (*(node for node in range(NODES) if node != 1), OBSERVER):
            made = sockets[member] = context.socket(zmq.DEALER)
            made.setsockopt(zmq.ROUTING_ID, member.to_bytes(4, "little"))
            made.setsockopt(zmq.RCVTIMEO, int(LONG_S * 1000))
            made.connect(timekeeper_address(folder))
            word = encode_word(Present(member)) if member == OBSERVER else encode_speech(until(member, 0, 10))
            made.send(word)
        for member, made in sockets.items():
            gone = decode_telling(member, made.recv())
            assert isinstance(gone, Gone)
            assert gone.peer == 1
            if member != OBSERVER:
                assert gone.at_ns == 40
                assert isinstance(decode_telling(member, made.recv()), Answer)
        assert line.told == [("lost", 1, 0.0)]
    finally:
        terminated._handle(15, None)
        thread.join(LONG_S)
        context.destroy(linger=0)
        endpoint.close()
        line.close()
        terminated._read.close()
        terminated._write.close()
    assert kept == [False]
