"""ZeroMQ between sockets of one process: intact, counted, harmless, and gone when closed."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import zmq

from decentral.errors import PreflightError, StalledError
from decentral.messages import MAX_HEADER_BYTES, Message, encode_header
from decentral.transports import zeromq
from decentral.transports.zeromq import ZmqTransport, ipc_address

RUN = b"\x00runrunr"
MAP = b"mapmapma"
LONG_S = 20.0
SHORT_S = 0.05

Make = Callable[..., ZmqTransport]


@pytest.fixture
def folder() -> Iterator[Path]:
    """Not ``tmp_path``: a socket's path may have 107 bytes."""
    made = Path(tempfile.mkdtemp(prefix="zmq-"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def make(folder: Path) -> Iterator[Make]:
    made: list[ZmqTransport] = []

    def make(node: int, *, timeout_s: float = LONG_S, max_payload_bytes: int = 4096) -> ZmqTransport:
        transport = ZmqTransport(
            node=node, run=RUN, folder=folder, max_payload_bytes=max_payload_bytes, timeout_s=timeout_s
        )
        made.append(transport)
        return transport

    yield make
    for transport in made:
        transport.close()


@pytest.fixture
def raw(folder: Path) -> Iterator[zmq.Socket[bytes]]:
    """A socket that sends what it likes to node 0."""
    context = zmq.Context()
    socket = context.socket(zmq.PUSH)
    socket.connect(ipc_address(folder, 0))
    yield socket
    context.destroy(linger=0)


def message(sender: int, round_: int = 0, fragment: int = 0, size: int = 3) -> Message:
    values = np.arange(size, dtype=np.float32) + 100 * sender + 10 * round_ + fragment
    return Message(sender, round_, fragment, values, MAP, 17, sequence=7 * round_ - fragment)


def content(messages: list[Message]) -> list[tuple[int, int, int, bytes]]:
    return [(m.sender, m.round, m.fragment, m.values.tobytes()) for m in messages]


def words() -> str:
    return "2 messages of round 3 from nodes 1, 2"


def test_messages_arrive_intact_and_in_order(make: Make) -> None:
    sender, receiver = make(0), make(1)
    batches = [[message(0, t, k, size=1 + 7 * k) for k in range(1 + t % 3)] for t in range(50)]
    for batch in batches:
        sender.send([(1, batch)])
    got = [receiver.receive(words) for _ in batches]
    assert [content(batch) for batch in got] == [content(batch) for batch in batches]
    (first, *_) = got[0]
    assert (first.map_hash, first.time_ns) == (MAP, 17)
    assert [[one.sequence for one in batch] for batch in got] == [
        [one.sequence for one in batch] for batch in batches
    ]
    assert first.values.dtype == np.float32
    assert not receiver.refused


def test_the_empty_and_the_largest_payload(make: Make) -> None:
    sender, receiver = make(0), make(1, max_payload_bytes=8 << 20)
    for size in (0, 1, 2 << 20):
        sender.send([(1, [message(0, size=size)])])
        assert content(receiver.receive(words)) == content([message(0, size=size)])


def test_one_send_reaches_many_destinations(make: Make) -> None:
    sender = make(0)
    receivers = {node: make(node) for node in range(1, 9)}
    shared, own = message(0, 1, 0, size=200), message(0, 1, 1)
    spent = sender.send([(node, [shared, own] if node % 2 else [shared]) for node in receivers])
    spent += sender.send([])
    for node, receiver in receivers.items():
        expected = [shared, own] if node % 2 else [shared]
        assert content(receiver.receive(words)) == content(expected)
    both, one = (len(encode_header(RUN, 1, batch)) for batch in ([shared, own], [shared]))
    assert spent == 4 * both + 4 * one


def test_what_was_sent_is_a_copy(make: Make) -> None:
    sender, receiver = make(0), make(1)
    sent = message(0, size=1000)
    before = content([sent])
    sender.send([(1, [sent])])
    sent.values[:] = -1
    assert content(receiver.receive(words)) == before


def test_a_node_may_be_sent_to_before_it_listens(make: Make) -> None:
    sender = make(0)
    sender.send([(1, [message(0)])])
    assert content(make(1).receive(words)) == content([message(0)])


def test_many_senders_are_kept_apart(make: Make) -> None:
    receiver = make(0)
    for node in range(1, 6):
        sender = make(node)
        for t in range(4):
            sender.send([(0, [message(node, t)])])
    got = [item for _ in range(20) for item in receiver.receive(words)]
    for node in range(1, 6):
        assert [item.round for item in got if item.sender == node] == [0, 1, 2, 3]
    assert not receiver.refused


def test_waiting_in_vain_is_a_stall_that_says_for_whom(make: Make) -> None:
    with pytest.raises(StalledError) as error:
        make(4, timeout_s=SHORT_S).receive(words)
    assert str(error.value).startswith(
        "node 4 heard nothing for 0.05 s while it waited for 2 messages of round 3 from nodes 1, 2;"
    )
    assert "run.liveness_timeout_s" in str(error.value)


def test_receive_now_does_not_wait(make: Make) -> None:
    sender, receiver = make(0), make(1)
    assert receiver.receive_now() is None
    sender.send([(1, [message(0, 1)]), (1, [message(0, 2)])])
    assert receiver.inbox.poll(int(1000 * LONG_S))
    got: list[Message] = []
    while len(got) < 2:
        batch = receiver.receive_now()
        if batch is None:
            assert receiver.inbox.poll(int(1000 * LONG_S)), "the second is on its way"
        else:
            got += batch
    assert content(got) == content([message(0, 1), message(0, 2)])
    assert receiver.receive_now() is None


def test_receive_now_skips_and_counts_what_it_refuses(make: Make, raw: zmq.Socket[bytes]) -> None:
    receiver = make(0)
    raw.send(b"GET / HTTP/1.1")
    assert receiver.inbox.poll(int(1000 * LONG_S))
    assert receiver.receive_now() is None
    assert receiver.refused == Counter(malformed=1)


def test_foreign_frames_are_counted_and_harmless(make: Make, raw: zmq.Socket[bytes]) -> None:
    receiver = make(0)
    good, body = encode_header(RUN, 1, [message(1)]), message(1).values.tobytes()
    raw.send_multipart([encode_header(b"another!", 1, [message(1)]), body])
    raw.send(b"GET / HTTP/1.1")
    raw.send(b"")
    raw.send_multipart([good])
    raw.send_multipart([good, body[:-1]])
    raw.send_multipart([good, body, body])
    raw.send_multipart([b"\x92\x03\x00", body])
    raw.send_multipart([b"\x92\x02" * 10])
    raw.send_multipart([bytes(MAX_HEADER_BYTES), body])
    raw.send_multipart([good, body])
    raw.send_multipart([good, body])
    raw.send_multipart([encode_header(RUN, 2, [message(1, 1)]), message(1, 1).values.tobytes()])
    # A refused batch does not use up its sequence number: number 1 counts when it comes whole.
    assert content(receiver.receive(words)) == content([message(1)])
    assert content(receiver.receive(words)) == content([message(1, 1)])
    assert receiver.refused == Counter(foreign=1, malformed=7, version=1, replayed=1)


def test_a_header_beyond_its_limit_is_counted(make: Make, raw: zmq.Socket[bytes]) -> None:
    receiver = make(0, max_payload_bytes=4 * MAX_HEADER_BYTES)
    raw.send_multipart([bytes(MAX_HEADER_BYTES + 1), b""])
    raw.send_multipart([encode_header(RUN, 1, [message(1)]), message(1).values.tobytes()])
    assert content(receiver.receive(words)) == content([message(1)])
    assert receiver.refused == Counter(oversized=1)


def test_a_frame_beyond_the_model_never_enters_memory(make: Make, raw: zmq.Socket[bytes]) -> None:
    """ZeroMQ drops the connection of who sends it; others are not disturbed and nothing arrives of it."""
    receiver, other = make(0), make(1)
    huge = message(9, size=MAX_HEADER_BYTES // 4 + 1)
    raw.send_multipart([encode_header(RUN, 1, [huge]), huge.values.tobytes()])
    other.send([(0, [message(1)])])
    assert content(receiver.receive(words)) == content([message(1)])
    assert receiver.inbox.poll(500) == 0
    assert not receiver.refused


@pytest.mark.parametrize("cap", [1, 2])
def test_the_cap_on_connections_loses_nothing(make: Make, monkeypatch: pytest.MonkeyPatch, cap: int) -> None:
    monkeypatch.setattr(zeromq, "MAX_CONNECTIONS", cap)
    sender = make(0)
    receivers = {node: make(node) for node in range(1, 6)}
    rounds = 12
    for t in range(rounds):
        sender.send([(node, [message(0, t, node, size=500)]) for node in receivers])
        assert len(sender._peers) == cap
    for node, receiver in receivers.items():
        got = [item for _ in range(rounds) for item in receiver.receive(words)]
        # A connection that is opened anew may overtake the one that is closing; rounds tell them apart.
        in_order = sorted(got, key=lambda item: item.round)
        assert content(in_order) == content([message(0, t, node, size=500) for t in range(rounds)])
        assert not receiver.refused


def test_the_least_recently_used_connection_is_closed(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zeromq, "MAX_CONNECTIONS", 2)
    sender, _, _, _ = (make(node) for node in range(4))
    for destination in (1, 2, 1, 3):
        sender.send([(destination, [message(0)])])
    assert list(sender._peers) == [1, 3]


def test_closing_twice_is_fine(make: Make) -> None:
    transport = make(0)
    transport.send([(1, [message(0)])])
    transport.close()
    transport.close()


def test_closing_does_not_wait_for_who_never_listened(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither for open connections nor, beyond the liveness timeout, for those closed at the cap."""
    monkeypatch.setattr(zeromq, "MAX_CONNECTIONS", 1)
    transport = make(0, timeout_s=SHORT_S)
    for destination in (1, 2, 3):
        transport.send([(destination, [message(0)])])
    closing = threading.Thread(target=transport.close, daemon=True)
    closing.start()
    closing.join(LONG_S)
    assert not closing.is_alive()


@pytest.mark.parametrize("letter", ["x", "é"])
def test_a_path_too_long_for_a_socket_is_refused_before_anything_is_opened(folder: Path, letter: str) -> None:
    room = 107 - len(str(folder)) - len("//0.sock")
    fits = folder / (letter * (room // len(letter.encode())))
    fits.mkdir()
    ZmqTransport(node=0, run=RUN, folder=fits, max_payload_bytes=4, timeout_s=SHORT_S).close()
    long = folder / (letter * (room // len(letter.encode()) + 1))
    long.mkdir()
    before = open_files()
    with pytest.raises(
        PreflightError, match=r"Unix sockets allow 107; set TMPDIR to a shorter folder"
    ) as error:
        ZmqTransport(node=0, run=RUN, folder=long, max_payload_bytes=4, timeout_s=SHORT_S)
    assert str(long) in str(error.value)
    assert open_files() == before


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_nothing_is_left_after_closing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zeromq, "MAX_CONNECTIONS", 2)

    def use() -> None:
        transports = [
            ZmqTransport(node=node, run=RUN, folder=folder, max_payload_bytes=4096, timeout_s=LONG_S)
            for node in range(4)
        ]
        for transport in transports[1:]:
            transport.send([(node, [message(transport._node)]) for node in range(4)])
        for transport in transports:
            for _ in range(3):
                transport.receive(words)
        for transport in transports:
            transport.close()

    use()  # libraries open what they keep for ever
    files, threads = open_files(), threading.active_count()
    for _ in range(3):
        use()
    assert (open_files(), threading.active_count()) == (files, threads)


def test_sending_starts_no_python_thread(make: Make) -> None:
    before = threading.active_count()
    sender, receiver = make(0), make(1, max_payload_bytes=4 << 20)
    sender.send([(1, [message(0, size=1 << 20)])])
    receiver.receive(words)
    assert threading.active_count() == before


def test_what_is_refused_is_read_while_it_is_counted(make: Make) -> None:
    """Under the wall clock one thread receives, and another logs; a reason may be new at any time."""
    transport = make(0)
    reasons = [f"reason {number}" for number in range(20_000)]
    switch_s = sys.getswitchinterval()
    counting = threading.Thread(target=lambda: [transport._refused.count(each) for each in reasons])
    sys.setswitchinterval(1e-6)
    try:
        counting.start()
        while counting.is_alive():
            refused = transport.refused + Counter({"a connection": 1})
            assert set(refused.values()) == {1}
        counting.join()
    finally:
        sys.setswitchinterval(switch_s)
    assert transport.refused == Counter(reasons)
