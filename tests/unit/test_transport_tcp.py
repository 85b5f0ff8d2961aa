"""Between hosts: CURVE or nothing, keys from the book only, senders bound to their keys, and nothing left."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import zmq

from decentral.errors import ConfigError, PreflightError
from decentral.messages import MAX_HEADER_BYTES, Kind, Message, encode_header
from decentral.transports import curve, guard
from decentral.transports.addresses import Book, Endpoint, Listen
from decentral.transports.zeromq import FOR_NODES, ZmqTransport, ipc_address

RUN = b"\x00runrunr"
MAP = b"mapmapma"
HERE = Listen("127.0.0.1")
LONG_S = 30.0

Make = Callable[..., ZmqTransport]
Push = Callable[..., zmq.Socket[bytes]]


@pytest.fixture
def folder() -> Iterator[Path]:
    """Not ``tmp_path``: a socket's path may have 107 bytes."""
    made = Path(tempfile.mkdtemp(prefix="tcp-"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def make(folder: Path) -> Iterator[Make]:
    """Members, each on a host (socket folder) of its own unless one is named."""
    made: list[ZmqTransport] = []

    def make(
        node: int,
        *,
        host: str | None = None,
        listen: Listen | None = HERE,
        run: bytes = RUN,
        max_payload_bytes: int = 4096,
        members: int | None = None,
    ) -> ZmqTransport:
        at = folder / (host or f"{len(made)}")
        at.mkdir(exist_ok=True)
        transport = ZmqTransport(
            node=node,
            run=run,
            folder=at,
            max_payload_bytes=max_payload_bytes,
            timeout_s=LONG_S,
            listen=listen,
            kinds=FOR_NODES,
            members=members,
        )
        made.append(transport)
        return transport

    yield make
    for transport in made:
        transport.close()


@pytest.fixture
def push() -> Iterator[Push]:
    """Sockets that send what they like and try once; with CURVE if they have a key pair."""
    context = zmq.Context()
    made: list[zmq.Socket[bytes]] = []

    def push(address: str, key: bytes = b"", pair: tuple[bytes, bytes] | None = None) -> zmq.Socket[bytes]:
        pushing = context.socket(zmq.PUSH)
        made.append(pushing)
        pushing.setsockopt(zmq.RECONNECT_IVL, -1)
        if pair is not None:
            pushing.curve_publickey, pushing.curve_secretkey = pair
            pushing.curve_serverkey = key
        pushing.connect(address)
        return pushing

    yield push
    context.destroy(linger=0)


def message(sender: int, round_: int = 0, size: int = 3, kind: Kind = Kind.FRAGMENT) -> Message:
    values = np.arange(size, dtype=np.float32) + 100 * sender + 10 * round_
    return Message(sender, round_, 0, values, MAP, 17, kind, sequence=round_)


def multipart(sender: int, batch: int = 1, **changes: object) -> list[bytes]:
    sent = message(sender, **changes)  # type: ignore[arg-type]
    return [encode_header(RUN, batch, [sent]), sent.values.tobytes()]


def attempt(pushing: zmq.Socket[bytes], frames: list[bytes]) -> None:
    """Send as somebody who is to be refused; that may have happened already, and a send would then wait."""
    with suppress(zmq.Again):
        pushing.send_multipart(frames, zmq.DONTWAIT)


def content(messages: list[Message]) -> list[tuple[int, int, bytes]]:
    return [(m.sender, m.round, m.values.tobytes()) for m in messages]


def words() -> str:
    return "messages"


def book_of(*members: tuple[int, ZmqTransport]) -> dict[int, Endpoint]:
    return {number: endpoint_of(transport) for number, transport in members}


def acquaint(**members: ZmqTransport) -> None:
    """Give all of them everybody's book; names are ``m0``, ``m1``, ..."""
    book = book_of(*((int(name[1:]), transport) for name, transport in members.items()))
    for transport in members.values():
        transport.connect(book)


def await_refusals(transport: ZmqTransport, expected: Counter[str]) -> None:
    """Strangers are counted by another thread, a little after they came; frames when they are read."""
    deadline = time.monotonic() + LONG_S
    while transport.refused != expected and time.monotonic() < deadline:
        transport.inbox.poll(10)
    assert transport.refused == expected


def endpoint_of(transport: ZmqTransport) -> Endpoint:
    assert transport.endpoint is not None
    return transport.endpoint


def port_of(transport: ZmqTransport) -> int:
    return int(endpoint_of(transport).address.rpartition(":")[2])


def test_messages_travel_both_ways(make: Make) -> None:
    a, b = make(0), make(1)
    acquaint(m0=a, m1=b)
    for t in range(20):
        a.send([(1, [message(0, t, size=1 + 50 * t)])])
        b.send([(0, [message(1, t)])])
    assert [content(b.receive(words)) for _ in range(20)] == [
        content([message(0, t, size=1 + 50 * t)]) for t in range(20)
    ]
    assert [content(a.receive(words)) for _ in range(20)] == [content([message(1, t)]) for t in range(20)]
    assert not a.refused
    assert not b.refused


def test_members_of_one_host_use_ipc_and_those_of_others_tcp(make: Make) -> None:
    a, b, c = make(0, host="x"), make(1, host="x"), make(2, host="y")
    for transport in (a, b):
        transport.connect(book_of((2, c)))
    c.connect(book_of((0, a), (1, b)))
    a.send([(1, [message(0)]), (2, [message(0)])])
    b.send([(0, [message(1)]), (2, [message(1)])])
    c.send([(0, [message(2)]), (1, [message(2)])])
    for transport, peers in ((a, {1, 2}), (b, {0, 2}), (c, {0, 1})):
        assert {transport.receive(words)[0].sender for _ in range(2)} == peers
        assert not transport.refused
    addresses = {
        member: peer.getsockopt(zmq.LAST_ENDPOINT).split(b":")[0]  # type: ignore[union-attr]
        for member, peer in a._peers.items()
    }
    assert addresses == {1: b"ipc", 2: b"tcp"}


def test_ipc_needs_no_key_and_tcp_does(make: Make, folder: Path, push: Push) -> None:
    receiver = make(0, host="x")
    receiver.connect({})
    push(ipc_address(folder / "x", 0)).send_multipart(multipart(5))
    assert content(receiver.receive(words)) == content([message(5)])
    attempt(push(endpoint_of(receiver).address), multipart(6))
    await_refusals(receiver, Counter(unauthenticated=1))
    assert receiver.receive_now() is None


def test_ipv6(make: Make) -> None:
    try:
        a, b = (make(node, listen=Listen("::1")) for node in range(2))
    except PreflightError:
        pytest.skip("this machine has no IPv6 loopback address")
    acquaint(m0=a, m1=b)
    assert endpoint_of(a).address.startswith("tcp://[::1]:")
    a.send([(1, [message(0)])])
    assert content(b.receive(words)) == content([message(0)])


def test_the_largest_payload_fits_through_encryption(make: Make) -> None:
    most = 4 * MAX_HEADER_BYTES
    a, b = make(0), make(1, max_payload_bytes=most)
    acquaint(m0=a, m1=b)
    a.send([(1, [message(0, size=most // 4)])])
    assert content(b.receive(words)) == content([message(0, size=most // 4)])
    a.send([(1, [message(0, 1, size=most // 4 + 1)]), (1, [message(0, 2)])])
    assert content(b.receive(words)) == content([message(0, 2)])
    assert b.refused == Counter(oversized=1)


def test_a_frame_beyond_the_limit_costs_its_sender_the_connection_only(make: Make, push: Push) -> None:
    pair = zmq.curve_keypair()
    receiver, honest = make(0), make(1)
    receiver.connect({**book_of((1, honest)), 2: Endpoint("tcp://127.0.0.1:9", pair[0])})
    honest.connect(book_of((0, receiver)))
    honest.send([(0, [message(1, 0)])])
    assert content(receiver.receive(words)) == content([message(1, 0)])
    raw = push(*endpoint_of(receiver), pair)
    events = raw.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    raw.send_multipart([encode_header(RUN, 1, [message(2)]), bytes(2 * MAX_HEADER_BYTES)])
    assert events.poll(int(1000 * LONG_S)), "the connection is closed"
    raw.disable_monitor()
    events.close()
    honest.send([(0, [message(1, 1)])])
    assert content(receiver.receive(words)) == content([message(1, 1)])
    assert receiver.receive_now() is None
    assert not receiver.refused


def test_a_peer_that_comes_before_the_book_waits_and_loses_nothing(make: Make) -> None:
    receiver, sender = make(0), make(1)
    sender.connect(book_of((0, receiver)))
    for t in range(200):
        sender.send([(0, [message(1, t)])])
    # The receiver's guard has been asked and does not answer.
    assert receiver.inbox.poll(300) == 0
    receiver.connect(book_of((1, sender)))
    assert [receiver.receive(words)[0].round for _ in range(200)] == list(range(200))
    assert receiver.receive_now() is None
    assert not receiver.refused


class Relay:
    """A port that nobody answers until ``open``, and a cable behind it that can be cut and healed."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._listening.close()
        self._whole = threading.Event()
        self._whole.set()
        self._ends: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def open(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", self.port))
        self._start(self._accept)

    def cut(self) -> None:
        self._whole.clear()

    def heal(self) -> None:
        self._whole.set()

    def close(self) -> None:
        self.heal()
        for end in (self._listening, *self._ends):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        for thread in self._threads:
            thread.join()

    def _start(self, target: Callable[..., None], *args: socket.socket) -> None:
        thread = threading.Thread(target=target, args=args)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._target))
            self._ends += [near, far]
            self._start(self._copy, near, far)
            self._start(self._copy, far, near)

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(4096):
                self._whole.wait()
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            return


@pytest.fixture
def relays() -> Iterator[list[Relay]]:
    made: list[Relay] = []
    yield made
    for relay in made:
        relay.close()


def test_a_peer_that_comes_before_anybody_listens_loses_nothing(make: Make, relays: list[Relay]) -> None:
    receiver, sender = make(0), make(1)
    relay = Relay(port_of(receiver))
    relays.append(relay)
    sender.connect({0: Endpoint(f"tcp://127.0.0.1:{relay.port}", endpoint_of(receiver).key)})
    for t in range(200):
        sender.send([(0, [message(1, t)])])
    assert receiver.inbox.poll(300) == 0
    relay.open()
    receiver.connect(book_of((1, sender)))
    assert [receiver.receive(words)[0].round for _ in range(200)] == list(range(200))
    assert receiver.receive_now() is None
    assert not receiver.refused


def test_a_peer_whose_handshake_times_out_before_the_book_comes_loses_nothing(make: Make) -> None:
    receiver, sender = make(0), make(1)
    sender.connect(book_of((0, receiver)))
    for t in range(200):
        sender.send([(0, [message(1, t)])])
    assert receiver.inbox.poll(curve.HANDSHAKE_MS + 2000) == 0
    receiver.connect(book_of((1, sender)))
    assert [receiver.receive(words)[0].round for _ in range(200)] == list(range(200))
    assert receiver.receive_now() is None
    assert not receiver.refused


def test_a_cable_that_is_cut_and_healed_loses_nothing(make: Make, relays: list[Relay]) -> None:
    receiver, sender = make(0), make(1)
    relay = Relay(port_of(receiver))
    relays.append(relay)
    relay.open()
    sender.connect({0: Endpoint(f"tcp://127.0.0.1:{relay.port}", endpoint_of(receiver).key)})
    receiver.connect(book_of((1, sender)))
    sender.send([(0, [message(1, 0)])])
    assert receiver.receive(words)[0].round == 0
    relay.cut()
    for t in range(1, 1000):
        sender.send([(0, [message(1, t, size=1000)])])
    while receiver.inbox.poll(500):  # what passed before the cut
        assert receiver.receive_now()
    relay.heal()
    last = 0
    while last < 999:
        last = receiver.receive(words)[0].round
    assert receiver.receive_now() is None
    assert not receiver.refused


def test_only_keys_of_the_book_enter(make: Make, push: Push, capfd: pytest.CaptureFixture[str]) -> None:
    receiver = make(0)
    known = zmq.curve_keypair()
    receiver.connect({1: Endpoint("tcp://127.0.0.1:9", known[0])})
    for _ in range(3):
        attempt(push(*endpoint_of(receiver), zmq.curve_keypair()), multipart(1))
    await_refusals(receiver, Counter(key=3))
    push(*endpoint_of(receiver), known).send_multipart(multipart(1))
    assert content(receiver.receive(words)) == content([message(1)])
    assert receiver.refused == Counter(key=3)
    said = capfd.readouterr().err
    assert said.count("node 0 refused a connection from 127.0.0.1, whose key is not in the run's book") == 3
    assert known[0].decode() not in said


def test_two_runs_that_know_each_others_ports(make: Make) -> None:
    ours, theirs = make(0), make(1, run=b"another!")
    other = make(0, run=b"another!")
    ours.connect({})
    theirs.connect(book_of((0, ours)))
    theirs.send([(0, [message(1)])])
    await_refusals(ours, Counter(key=1))
    assert not other.refused


def test_strangers_are_counted_and_harmless(
    make: Make, push: Push, capfd: pytest.CaptureFixture[str]
) -> None:
    receiver, honest = make(0), make(1)
    acquaint(m0=receiver, m1=honest)
    honest.send([(0, [message(1, 0)])])
    assert receiver.receive(words)[0].round == 0
    port = port_of(receiver)
    # Greetings: HTTP, an old ZMTP (no signature), ZMTP 3 with mechanism NULL, nothing at all.
    null = b"\xff" + bytes(8) + b"\x7f\x03\x01NULL" + bytes(48)
    curve = null.replace(b"NULL\0", b"CURVE")
    garbage = [b"GET / HTTP/1.1\r\n\r\n", b"\x01\x00" * 40, null, b"", b"\xff" * 100]
    garbage += [curve + b"\x04\xff" + bytes(255), curve + b"\x06" + b"\xff" * 8, curve + b"\x04\x05HELLO"]
    for count, data in enumerate(garbage, start=1):
        with socket.create_connection(("127.0.0.1", port)) as stranger:
            stranger.sendall(data)
            if not data or data == b"\xff" * 100:
                stranger.shutdown(socket.SHUT_WR)
            stranger.settimeout(1)
            try:
                while stranger.recv(4096):
                    pass
            except (TimeoutError, ConnectionResetError):
                pass
        await_refusals(receiver, Counter(unauthenticated=count))
    wrong = push(endpoint_of(receiver).address, zmq.curve_keypair()[0], zmq.curve_keypair())
    attempt(wrong, multipart(1))
    await_refusals(receiver, Counter(unauthenticated=len(garbage) + 1))
    honest.send([(0, [message(1, 1)])])
    assert content(receiver.receive(words)) == content([message(1, 1)])
    said = capfd.readouterr().err.splitlines()
    assert len(said) == len(garbage) + 1 <= guard.MAX_LINES
    assert all("node 0 refused a connection from " in line for line in said)
    assert any("127.0.0.1, port " in line for line in said)


def test_few_refusals_are_logged_and_all_are_counted(make: Make, capfd: pytest.CaptureFixture[str]) -> None:
    receiver = make(0)
    receiver.connect({})
    for _ in range(3 * guard.MAX_LINES):
        with socket.create_connection(("127.0.0.1", port_of(receiver))) as stranger:
            stranger.sendall(b"hello")
    await_refusals(receiver, Counter(unauthenticated=3 * guard.MAX_LINES))
    said = capfd.readouterr().err.splitlines()
    assert len(said) == guard.MAX_LINES
    assert said[-1].endswith("further ones are only counted")


def test_strangers_that_say_nothing_do_not_use_up_descriptors(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver, honest = make(0), make(1)
    acquaint(m0=receiver, m1=honest)
    assert receiver._tcp is not None
    receiver._tcp._guard._most_handshakes = 5
    silent = [socket.create_connection(("127.0.0.1", port_of(receiver))) for _ in range(25)]
    await_refusals(receiver, Counter(unauthenticated=20))
    for stranger in silent:
        stranger.close()
    await_refusals(receiver, Counter(unauthenticated=25))
    honest.send([(0, [message(1)])])
    assert content(receiver.receive(words)) == content([message(1)])


def test_a_sender_is_bound_to_its_key(make: Make, push: Push) -> None:
    receiver, pair = make(0, members=5), zmq.curve_keypair()
    receiver.connect({2: Endpoint("tcp://127.0.0.1:9", pair[0])})
    raw = push(*endpoint_of(receiver), pair)
    raw.send_multipart(multipart(1))
    raw.send_multipart(multipart(2))
    raw.send_multipart(multipart(0))
    raw.send_multipart(multipart(77))
    raw.send_multipart(multipart(2, 2, kind=Kind.SNAPSHOT))
    raw.send_multipart(multipart(2, 2))
    assert [receiver.receive(words)[0].sender for _ in range(2)] == [2, 2]
    assert receiver.refused == Counter(sender=3, kind=1)


def test_a_batch_has_no_more_frames_than_its_header_lists(make: Make, push: Push) -> None:
    receiver, pair = make(0), zmq.curve_keypair()
    receiver.connect({2: Endpoint("tcp://127.0.0.1:9", pair[0])})
    raw = push(*endpoint_of(receiver), pair)
    header, values = multipart(2)
    raw.send_multipart([header, *[values] * 20_000])
    raw.send_multipart([b"nonsense"] * 20_000)
    raw.send_multipart([header])
    raw.send_multipart([header, values])
    assert content(receiver.receive(words)) == content([message(2)])
    assert receiver.refused == Counter(malformed=3)
    assert receiver.receive_now() is None


def test_what_is_unread_is_bounded_and_the_rest_stays_with_its_sender(make: Make) -> None:
    sender, receiver = make(1, max_payload_bytes=1 << 20), make(0, max_payload_bytes=1 << 20)
    acquaint(m1=sender, m0=receiver)
    for t in range(80):
        sender.send([(0, [message(1, t, size=1 << 18)])])
    assert receiver.receive(words)[0].round == 0
    while receiver.inbox.getsockopt(zmq.EVENTS) != zmq.POLLIN:
        receiver.inbox.poll(100)
    sender.close()  # what is still its own goes with it
    rounds = []
    while receiver.inbox.poll(1000):
        rounds += [each.round for each in receiver.receive_now() or []]
    assert rounds == list(range(1, len(rounds) + 1))
    assert 0 < len(rounds) < 60


@pytest.mark.parametrize(
    "address", ["*", "0.0.0.0", "::", "::ffff:0.0.0.0", "", "eth0", "224.0.0.1", "fe80::1%lo"]
)
def test_nobody_listens_on_wildcards_or_names(address: str) -> None:
    with pytest.raises(ConfigError, match=r"give one IP address of the host, such as 10\.0\.0\.5"):
        Listen(address)


@pytest.mark.parametrize("ports", [(0, 10), (5, 4), (1, 65_536), (-1, 5)])
def test_a_range_of_ports_is_one(ports: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match="a range goes upwards and lies within 1-65535"):
        Listen("127.0.0.1", ports)


def test_only_the_declared_address_is_bound(make: Make) -> None:
    transport = make(0, listen=Listen("127.0.0.2"))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port_of(transport)))
    socket.create_connection(("127.0.0.2", port_of(transport))).close()


def free_range(count: int) -> tuple[int, int]:
    """``count`` ports that are free now."""
    for first in range(23_000, 60_000, count):
        try:
            for port in range(first, first + count):
                socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return first, first + count - 1
    pytest.fail("no free ports")


def test_occupied_ports_are_passed_over(make: Make) -> None:
    first, last = free_range(4)
    with socket.create_server(("127.0.0.1", first)), socket.create_server(("127.0.0.1", first + 2)):
        listen = Listen("127.0.0.1", (first, last))
        members = {node: make(node, listen=listen) for node in range(2)}
        assert [port_of(each) for each in members.values()] == [first + 1, first + 3]
        before = open_files()
        with pytest.raises(PreflightError) as error:
            make(2, listen=listen)
        assert str(error.value) == (
            f"cannot listen on 127.0.0.1: all ports from {first} to {last} are occupied; free some or give a "
            f"wider range"
        )
        assert open_files() == before


def test_an_address_of_another_host_is_refused(make: Make) -> None:
    before = (open_files(), threading.active_count())
    with pytest.raises(PreflightError, match=r"cannot listen on 192\.0\.2\.1: it is no address of this host"):
        make(0, listen=Listen("192.0.2.1"))
    assert (open_files(), threading.active_count()) == before


def test_the_book_comes_once_and_before_anything_is_sent(make: Make) -> None:
    a, b = make(0), make(1)
    with pytest.raises(RuntimeError, match="gets its book before it sends"):
        a.send([(1, [message(0)])])
    book: Book = book_of((1, b))
    a.connect(book)
    with pytest.raises(RuntimeError, match="once"):
        a.connect(book)
    with pytest.raises(RuntimeError, match="listens on this one only"):
        make(2, listen=None).connect(book)
    make(3, listen=None).connect({})


def test_no_key_is_shown(make: Make) -> None:
    transport = make(0)
    assert transport._tcp is not None
    assert transport.endpoint is not None
    secret = transport._tcp._secret.decode()
    shown = [repr(each) for each in (transport, transport._tcp, transport.endpoint, transport._tcp._guard)]
    assert not any(secret in text or transport.endpoint.key.decode() in text for text in shown)


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_nothing_is_left_after_closing(folder: Path) -> None:
    def use() -> None:
        made = []
        for node in range(3):
            (at := folder / str(node)).mkdir(exist_ok=True)
            made.append(
                ZmqTransport(
                    node=node, run=RUN, folder=at, max_payload_bytes=4096, timeout_s=LONG_S, listen=HERE
                )
            )
        acquaint(m0=made[0], m1=made[1], m2=made[2])
        for transport in made:
            transport.send([(node, [message(transport._node)]) for node in range(3)])
        for transport in made:
            for _ in range(3):
                transport.receive(words)
        for transport in made:
            transport.close()
            transport.close()

    use()  # libraries open what they keep for ever
    files, threads = open_files(), threading.active_count()
    for _ in range(3):
        use()
    assert (open_files(), threading.active_count()) == (files, threads)


def test_a_guard_that_waits_costs_nothing(make: Make) -> None:
    transport = make(0)
    transport.connect({})
    assert transport._tcp is not None
    status = Path(f"/proc/self/task/{transport._tcp._guard._thread.native_id}/status")

    def switches() -> list[str]:
        transport.inbox.poll(300)
        return [line for line in status.read_text().splitlines() if "ctxt_switches" in line]

    deadline = time.monotonic() + LONG_S
    before = switches()  # it may still be taking in the book
    while (now := switches()) != before and time.monotonic() < deadline:
        before = now
    assert now == before
