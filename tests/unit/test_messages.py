"""The wire format: what is sent is read back, and nothing else is accepted."""

from __future__ import annotations

import random
import struct
import tracemalloc
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decentral.errors import WireError
from decentral.messages import (
    MAX_FRAGMENTS,
    MAX_HEADER_BYTES,
    WIRE_VERSION,
    Header,
    Kind,
    Message,
    SequenceWindow,
    decode_header,
    decode_payload,
    encode_header,
)

RUN = b"\x01runrun\xff"
MAP = b"mapmap\x00\xfe"
PARTS = struct.pack("<IIqIIq", 0, 12, 2**40, 1, 16, -3)
REASONS = {"oversized", "malformed", "version", "foreign"}
COUNT = st.integers(0, 2**63 - 1)
SEQUENCE = st.integers(-(2**63), 2**63 - 1)


@st.composite
def batches(draw: st.DrawFn) -> list[Message]:
    sender, round_, time_ns, age = draw(COUNT), draw(COUNT), draw(COUNT), draw(COUNT)
    kind = draw(st.sampled_from(Kind))
    parts = draw(
        st.lists(
            st.tuples(st.integers(0, 2**32 - 1), st.binary(max_size=40), SEQUENCE), min_size=1, max_size=6
        )
    )
    values = [np.frombuffer(raw[: len(raw) // 4 * 4], dtype="<f4") for _, raw, _ in parts]
    return [
        Message(sender, round_, k, each, MAP, time_ns, kind, sequence, age)
        for (k, _, sequence), each in zip(parts, values, strict=True)
    ]


def batch(parts: int = 2) -> list[Message]:
    return [
        Message(5, 70_000, k, np.arange(3 + k, dtype=np.float32), MAP, 123_456_789_012) for k in range(parts)
    ]


def fields(**changes: Any) -> list[Any]:
    """A valid header as a list, with some of its fields changed."""
    names = ["version", "run", "kind", "sender", "round", "time_ns", "map_hash", "age", "batch", "parts"]
    values = [WIRE_VERSION, RUN, 0, 5, 70_000, bytes(8), MAP, 4, 9, PARTS]
    return [changes.get(name, value) for name, value in zip(names, values, strict=True)]


def refusal(data: bytes) -> str:
    with pytest.raises(WireError) as error:
        decode_header(data, RUN)
    return error.value.reason


@given(batches(), COUNT)
def test_round_trip(messages: list[Message], number: int) -> None:
    first = messages[0]
    data = encode_header(RUN, number, messages)
    header = decode_header(data, RUN)
    assert header == Header(
        first.kind,
        first.sender,
        first.round,
        first.time_ns,
        MAP,
        first.age,
        number,
        tuple((m.fragment, m.values.nbytes, m.sequence) for m in messages),
    )
    assert isinstance(header.kind, Kind)
    assert decode_header(memoryview(data), RUN) == header
    decoded = decode_payload(header, [b"".join(m.values.tobytes() for m in messages)])
    assert len(decoded) == len(messages)
    for got, sent in zip(decoded, messages, strict=True):
        assert got.values.dtype == np.float32
        assert got.values.tobytes() == sent.values.tobytes()  # NaN payloads included
        assert got._replace(values=sent.values) == sent._replace(values=sent.values)


@given(st.integers(0, 2**64 - 1))
def test_a_header_is_as_long_under_any_clock(time_ns: int) -> None:
    values = np.zeros(1, dtype=np.float32)
    data = encode_header(RUN, 1, [Message(1, 2, 0, values, MAP, time_ns)])
    assert len(data) == len(encode_header(RUN, 1, [Message(1, 2, 0, values, MAP, 0)]))
    assert decode_header(data, RUN).time_ns == time_ns


def test_payloads_are_views_not_copies() -> None:
    header = decode_header(encode_header(RUN, 1, batch(1)), RUN)
    buffer = bytearray(12)
    (message,) = decode_payload(header, [memoryview(buffer)])
    buffer[:4] = np.float32(2.5).tobytes()
    assert message.values[0] == 2.5
    assert message.nbytes == 12


def test_the_largest_batch_fits() -> None:
    values = np.zeros(1, dtype=np.float32)
    messages = [Message(1, 2**31, k, values, MAP, 2**62) for k in range(MAX_FRAGMENTS)]
    data = encode_header(RUN, 2**40, messages)
    assert len(data) <= MAX_HEADER_BYTES
    assert len(decode_header(data, RUN).parts) == MAX_FRAGMENTS
    more = [Message(1, 2**31, 0, values, MAP, 2**62)] * (MAX_FRAGMENTS + 1)
    assert refusal(encode_header(RUN, 1, more)) == "malformed"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "malformed"),
        (b"\xc1", "malformed"),
        (b"hello world", "malformed"),
        (bytes(MAX_HEADER_BYTES + 1), "oversized"),
        (msgpack.packb(None), "malformed"),
        (msgpack.packb({}), "malformed"),
        (msgpack.packb([]), "malformed"),
        (msgpack.packb([WIRE_VERSION]), "malformed"),
        (msgpack.packb([WIRE_VERSION + 1, "another layout"]), "version"),
        (msgpack.packb(fields(version=True)), "version"),
        (msgpack.packb(fields(version=1.0)), "version"),
        (msgpack.packb(fields(version=-1)), "version"),
        (msgpack.packb([*fields(), 0]), "malformed"),
        (msgpack.packb(fields()[:-1]), "malformed"),
        (msgpack.packb(fields()) + b"\x00", "malformed"),
        (msgpack.packb(fields())[:-1], "malformed"),
        (msgpack.packb(fields(run=b"another!")), "foreign"),
        (msgpack.packb(fields(run=b"short")), "malformed"),
        (msgpack.packb(fields(run="textrun!")), "malformed"),
        (msgpack.packb(fields(run=RUN + b"x")), "malformed"),
        (msgpack.packb(fields(map_hash=b"")), "malformed"),
        (msgpack.packb(fields(map_hash=None)), "malformed"),
        (msgpack.packb(fields(time_ns=123)), "malformed"),
        (msgpack.packb(fields(time_ns=bytes(7))), "malformed"),
        (msgpack.packb(fields(time_ns=None)), "malformed"),
        (msgpack.packb(fields(kind=len(Kind))), "malformed"),
        (msgpack.packb(fields(parts=b"")), "malformed"),
        (msgpack.packb(fields(parts=PARTS[:-1])), "malformed"),
        (msgpack.packb(fields(parts=struct.pack("<IIq", 0, 13, 0))), "malformed"),
        (msgpack.packb(fields(parts=[[0, 12]])), "malformed"),
        (msgpack.packb(fields(parts=None)), "malformed"),
        (msgpack.packb(fields(parts=12)), "malformed"),
        (msgpack.packb(fields(parts={0: 4})), "malformed"),
    ],
)
def test_everything_else_is_refused_with_its_reason(data: bytes, reason: str) -> None:
    assert refusal(data) == reason


@pytest.mark.parametrize("name", ["kind", "sender", "round", "age", "batch"])
@pytest.mark.parametrize("value", [-1, -(2**63), 2**63, 2**64 - 1, True, False, 1.0, None, b"1", [], [[[]]]])
def test_counts_are_integers_of_63_bits(name: str, value: object) -> None:
    assert decode_header(msgpack.packb(fields()), RUN)[5:7] == (4, 9)
    assert refusal(msgpack.packb(fields(**{name: value}))) == "malformed"


def mutate(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(out)) if out else 0
        match rng.randrange(5):
            case 0 if out:
                out[at] ^= 1 << rng.randrange(8)
            case 1 if out:
                out[at] = rng.randrange(256)
            case 2:
                out[at:at] = rng.randbytes(rng.randint(1, 9))
            case 3:
                del out[at : at + rng.randint(1, 9)]
            case _:
                del out[at:]
    return bytes(out)


def decode_or_reason(data: bytes) -> Header | str:
    """Fails on anything that is neither a header nor a refusal for a documented reason."""
    try:
        header = decode_header(data, RUN)
    except WireError as error:
        if error.reason not in REASONS:
            raise
        return error.reason
    parts = [
        Message(header.sender, header.round, k, np.zeros(0, np.float32), MAP) for k, _, _ in header.parts
    ]
    assert all(0 <= part.fragment < 2**32 for part in parts)
    canonical = (WIRE_VERSION, RUN, int(header.kind), header.sender, header.round)
    time_ns = header.time_ns.to_bytes(8, "little")
    packed = b"".join(struct.pack("<IIq", *part) for part in header.parts)
    again = msgpack.packb((*canonical, time_ns, header.map_hash, header.age, header.batch, packed))
    assert decode_header(again, RUN) == header
    return header


def test_mutated_headers_are_valid_or_refused() -> None:
    rng = random.Random(1)
    original = encode_header(RUN, 300, batch())
    outcomes = [decode_or_reason(mutate(original, rng)) for _ in range(20_000)]
    reasons = {outcome for outcome in outcomes if isinstance(outcome, str)}
    assert {"malformed", "version", "foreign"} <= reasons
    assert any(isinstance(outcome, Header) for outcome in outcomes), "no mutation hit a plain number"


@given(st.binary(max_size=400))
@settings(max_examples=300)
def test_random_bytes_are_valid_or_refused(data: bytes) -> None:
    decode_or_reason(data)
    decode_or_reason(b"\x9a\x02\xc4\x08" + RUN + data)


def nested(prefix: bytes, element: bytes, depth: int) -> bytes:
    return prefix + element * depth


BOMBS = {
    "long arrays": nested(b"", b"\xdd\x00\x00\xff\xff", 5000),
    "array of 2^32": b"\xdd\xff\xff\xff\xff",
    "array 16": nested(b"", b"\xdc\xff\xff", 20_000),
    "pairs": nested(b"", b"\x92", MAX_HEADER_BYTES),
    "nines": nested(b"", b"\x9a\x02", MAX_HEADER_BYTES // 2),
    "bytes of 2^32": b"\x9a\x02\xc6\xff\xff\xff\xff",
    "text of 2^32": b"\x9a\x02\xdb\xff\xff\xff\xff",
    "table of 2^32": b"\x9a\x02\xdf\xff\xff\xff\xff",
    "extension of 2^32": b"\x9a\x02\xc9\xff\xff\xff\xff\x05",
    "parts of 2^32": msgpack.packb(fields(parts=b""))[:-2] + b"\xdd\xff\xff\xff\xff",
    "parts nested": msgpack.packb(fields(parts=b""))[:-2] + b"\xdc\xff\xff" + b"\x92" * 100_000,
    "many fields": b"\x9a\x02" + b"\xdc\xff\xff" * 1000,
}


@pytest.mark.parametrize("name", BOMBS)
def test_declared_lengths_cost_no_memory(name: str) -> None:
    data = BOMBS[name]
    tracemalloc.start()
    try:
        assert refusal(data) == "malformed"
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * len(data) + 1_000_000


@pytest.mark.parametrize(
    "lengths",
    [[], [0], [12], [16], [27], [29], [32], [56], [12, 15], [12, 20], [16, 12], [0, 28], [12, 16, 0]],
)
def test_the_payload_must_match_the_header(lengths: list[int]) -> None:
    header = decode_header(msgpack.packb(fields()), RUN)
    assert [m.values.size for m in decode_payload(header, [bytes(28)])] == [3, 4]
    assert [m.values.size for m in decode_payload(header, [bytes(12), bytes(16)])] == [3, 4]
    with pytest.raises(WireError) as error:
        decode_payload(header, [bytes(length) for length in lengths])
    assert error.value.reason == "malformed"


@given(st.integers(0, 60).flatmap(lambda n: st.permutations(range(1, n + 1))), st.data())
def test_each_batch_number_is_accepted_once_in_any_order(order: list[int], data: st.DataObject) -> None:
    window = SequenceWindow()
    seen: list[int] = []
    for number in order:
        assert window.accept(number)
        seen.append(number)
        assert not window.accept(data.draw(st.sampled_from(seen)))
    assert not any(window.accept(number) for number in order)
    assert window.accept(len(order) + 1)


def test_batch_numbers_start_at_one() -> None:
    assert not SequenceWindow().accept(0)


def test_an_orderly_sender_costs_no_memory() -> None:
    window = SequenceWindow()
    assert all(window.accept(number) for number in range(1, 10_001))
    assert window._above == set()


def test_a_sender_that_leaves_gaps_costs_a_bounded_amount_of_memory() -> None:
    window = SequenceWindow()
    numbers = range(2, 40_000, 2)
    assert all(window.accept(number) for number in numbers)
    assert len(window._above) <= SequenceWindow.WINDOW
    assert not any(window.accept(number) for number in numbers)
    assert window.accept(39_997), "a late one that is within the window"
    assert not window.accept(3), "one that is far too late"
    assert window.accept(1 << 62)
    assert window.accept(40_000)
