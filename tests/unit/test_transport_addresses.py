"""Books: read back as written, or refused."""

from __future__ import annotations

import ipaddress
import random
from contextlib import suppress
from typing import Any

import msgpack
import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st
from zmq.utils import z85

from decentral.errors import WireError
from decentral.transports.addresses import Endpoint, Listen, check_endpoint, decode_book, encode_book
from decentral.transports.handshakes import Handshakes

KEY = b"rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"
PORTS = st.integers(1, 65_535)
FOUR = st.builds(lambda host, port: f"tcp://{host}:{port}", st.ip_addresses(v=4, network="10.0.0.0/8"), PORTS)
SIX = st.builds(lambda host, port: f"tcp://[{host}]:{port}", st.ip_addresses(v=6, network="fd00::/8"), PORTS)
KEYS = st.integers(0, 2**31 - 1).map(lambda seed: z85.encode(random.Random(seed).randbytes(32)))
BOOKS = st.lists(
    st.tuples(st.integers(0, 2000), st.one_of(FOUR, SIX), KEYS),
    max_size=12,
    unique_by=(lambda entry: entry[0], lambda entry: entry[1], lambda entry: entry[2]),
).map(lambda entries: {member: Endpoint(address, key) for member, address, key in entries})


@given(BOOKS)
def test_a_book_is_read_back(book: dict[int, Endpoint]) -> None:
    assert decode_book(encode_book(book)) == book


def test_a_book_of_a_thousand_is_small() -> None:
    book = {i: Endpoint(f"tcp://[fd00::{i:x}]:{40000 + i}", zmq.curve_keypair()[0]) for i in range(1000)}
    assert len(encode_book(book)) < 80_000


@pytest.mark.parametrize(
    "address",
    [
        "tcp://*:5",
        "tcp://0.0.0.0:5",
        "tcp://[::]:5",
        "tcp://[::ffff:0.0.0.0]:5",
        "tcp://localhost:5",
        "tcp://10.0.0.1",
        "tcp://10.0.0.1:",
        "tcp://10.0.0.1:0",
        "tcp://10.0.0.1:*",
        "tcp://10.0.0.1:65536",
        "tcp://10.0.0.1:+5",
        "tcp://10.0.0.1:05",
        "tcp://10.0.0.1:5\n",
        "tcp://10.0.0.1:5;tcp://10.0.0.2:5",
        "tcp://eth0;10.0.0.1:5",
        "tcp://10.0.0:5",
        "tcp://10.0.0.256:5",
        "tcp://fd00::1:5",
        "tcp://[fe80::1%eth0]:5",
        "tcp://[10.0.0.1]x:5",
        "tcp://239.1.1.1:5",
        "tcp://10.0.0.1:\N{ARABIC-INDIC DIGIT FIVE}",
        "ipc:///tmp/x",
        "inproc://x",
        "",
        b"tcp://10.0.0.1:5",
        None,
        7,
    ],
)
def test_addresses_are_explicit(address: Any) -> None:
    with pytest.raises(WireError) as error:
        check_endpoint(address, KEY)
    assert error.value.reason == "malformed"


@pytest.mark.parametrize("key", [KEY[:-1], KEY + b"0", KEY[:-1] + b"~", b"#" * 40, KEY.decode(), None, b""])
def test_keys_are_keys(key: Any) -> None:
    assert check_endpoint("tcp://10.0.0.1:5", KEY) == Endpoint("tcp://10.0.0.1:5", KEY)
    with pytest.raises(WireError) as error:
        check_endpoint("tcp://10.0.0.1:5", key)
    assert error.value.reason == "malformed"
    assert KEY.decode() not in str(error.value)


@given(KEYS, st.binary(min_size=40, max_size=40))
def test_a_key_is_what_zeromq_takes_for_one(key: bytes, other: bytes) -> None:
    context = zmq.Context()
    socket = context.socket(zmq.PUSH)
    for each in (key, other, key[:35] + b"%nSc0", key[:35] + b"%nSc1"):
        try:
            socket.setsockopt(zmq.CURVE_SERVERKEY, each)
            taken = True
        except zmq.ZMQError:
            taken = False
        try:
            check_endpoint("tcp://10.0.0.1:5", each)
            assert taken
        except WireError:
            assert not taken or b"\0" in each  # where ZeroMQ takes the string to end
    context.destroy(linger=0)


ONE = ["tcp://10.0.0.1:5", KEY]
TWO = ["tcp://10.0.0.1:6", b"0" * 40]


@pytest.mark.parametrize(
    "entries",
    [
        None,
        7,
        {},
        [7],
        [[]],
        [[1, *ONE, 4]],
        [["1", *ONE]],
        [[-1, *ONE]],
        [[True, *ONE]],
        [[1 << 16, *ONE]],
        [[1, *ONE], [1, *TWO]],
        [[1, *ONE], [2, ONE[0], TWO[1]]],
        [[1, *ONE], [2, TWO[0], ONE[1]]],
    ],
)
def test_books_are_checked(entries: Any) -> None:
    assert len(decode_book(msgpack.packb([[1, *ONE], [2, *TWO]]))) == 2
    with pytest.raises(WireError) as error:
        decode_book(msgpack.packb(entries))
    assert error.value.reason == "malformed"


@given(st.binary(max_size=200))
@settings(max_examples=300)
def test_any_bytes_are_a_book_or_refused(data: bytes) -> None:
    valid = encode_book({1: Endpoint("tcp://10.0.0.1:5", KEY)})
    at = data[0] % len(valid) if data else 0
    for each in (
        data,
        b"\x91\x93" + data,
        valid[:at] + data,
        valid + data,
        b"\xdd\xff\xff\xff\xff" * 50 + data,
    ):
        with suppress(WireError):
            decode_book(each)


@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3", "::1", "fd00::7"])
def test_a_host_as_it_stands_in_an_endpoint(address: str) -> None:
    listen = Listen(address, (5, 5))
    assert check_endpoint(f"tcp://{listen.host}:5", KEY).address.endswith(":5")
    assert listen.six == (ipaddress.ip_address(address).version == 6)


def test_failed_handshakes_are_counted_when_nothing_is_said_of_them() -> None:
    counts = Handshakes()
    counts.accept(1)
    counts.succeed()
    counts.accept(2)
    assert counts.close(2)
    counts.accept(2)
    counts.fail()
    assert counts.close(2)
    counts.accept(2)
    counts.refuse()
    assert not counts.close(2)
    assert not counts.close(1)


@given(
    st.lists(st.tuples(st.sampled_from(["good", "refused", "broken", "silent"]), st.randoms()), max_size=12)
)
def test_however_connections_overlap_the_sum_is_right(kinds: list[tuple[str, random.Random]]) -> None:
    """Every connection's events keep their order; those of different ones are mixed at will."""
    chance = kinds[0][1] if kinds else random.Random(0)
    lives = [
        ["accept", *{"good": ["succeed"], "refused": ["refuse"]}.get(kind, []), f"close {kind}"]
        for kind, _ in kinds
    ]
    counts = Handshakes()
    failures = 0
    while waiting := [number for number, life in enumerate(lives) if life]:
        number = chance.choice(waiting)
        match lives[number].pop(0):
            case "accept":
                counts.accept(number)
            case "succeed":
                counts.succeed()
            case "refuse":
                counts.refuse()
            case "close broken":
                counts.fail()
                failures += counts.close(number)
            case _:
                failures += counts.close(number)
    assert failures == sum(kind in {"broken", "silent"} for kind, _ in kinds)
