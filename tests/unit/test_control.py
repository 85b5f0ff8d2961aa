"""What nodes and the timekeeper tell each other on the wire: read back as told, or refused."""

from __future__ import annotations

import random
import resource
import struct
from collections.abc import Callable
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decentral.control import (
    decode_from_node,
    decode_telling,
    encode_leave,
    encode_speech,
    encode_telling,
)
from decentral.errors import WireError
from decentral.network.links import Item
from decentral.network.model import INFINITE_NS
from decentral.speech import ANY, Answer, Gone, Notice, Put, Role, Served, Speech, Stop, Telling, Totals

TIME = st.integers(0, INFINITE_NS)
WORD = st.integers(-(2**63), 2**63 - 1)
SIZE = st.integers(0, 2**63 - 1)
NODE = st.integers(0, 10_000)
TOTALS = st.builds(Totals, TIME, TIME, TIME, TIME)
SERVED = st.lists(st.builds(Served, NODE, WORD, WORD, st.booleans()), max_size=4)
STARTED = st.lists(WORD, max_size=8)
TELLINGS: st.SearchStrategy[Telling] = st.one_of(
    st.builds(
        Answer,
        NODE,
        TIME,
        st.booleans(),
        st.lists(st.tuples(NODE, WORD), max_size=5),
        SERVED,
        STARTED,
        TOTALS,
    ),
    st.builds(Notice, NODE, SERVED, STARTED),
    st.builds(Stop, NODE, TIME, SERVED, STARTED, TOTALS),
    st.builds(Gone, NODE, NODE, TIME),
)


@st.composite
def puts(draw: st.DrawFn) -> Put:
    first, role = draw(TIME), draw(st.sampled_from(Role))
    entries = draw(st.lists(st.tuples(NODE, SIZE, WORD, WORD), max_size=5))
    items = [Item(to, size, first + k, tag, part, role) for k, (to, size, tag, part) in enumerate(entries)]
    return Put(draw(TIME), draw(st.booleans()), items)


SPEECHES = st.builds(
    Speech, NODE, TIME, st.lists(puts(), max_size=3), st.integers(-INFINITE_NS, INFINITE_NS), TIME, TIME, TIME
)


def speech() -> Speech:
    items = [Item(k % 7, 36_000, 300 + k, 4, k // 6, Role.LATEST) for k in range(60)]
    return Speech(3, 10**12, [Put(10**12, True, items)], ANY, 0, 10**12, 10**9)


def answer() -> Answer:
    arrived = [(k % 7, 1000 + k) for k in range(30)]
    return Answer(3, 10**12, True, arrived, [Served(1, 2, -1, False)], [300, 301, -4], Totals(5, 20, 1, 4))


@given(SPEECHES)
def test_a_speech_is_read_back(told: Speech) -> None:
    heard = decode_from_node(encode_speech(told))
    assert isinstance(heard, Speech)
    assert heard == told
    assert all(isinstance(item, Item) for put in heard.puts for item in put.items)


@given(NODE, TIME, st.booleans())
def test_a_leave_is_read_back(node: int, at_ns: int, drop: bool) -> None:
    heard = decode_from_node(encode_leave(node, at_ns, drop))
    assert heard == (node, at_ns, drop)
    assert not isinstance(heard, Speech)


@given(TELLINGS)
def test_a_telling_is_read_back(told: Telling) -> None:
    heard = decode_telling(told.node, encode_telling(told))
    assert heard == told
    assert type(heard) is type(told)


def test_a_speech_of_a_round_is_small() -> None:
    """60 messages at 40 bytes each, and not at what msgpack makes of tuples of them."""
    assert len(encode_speech(speech())) < 60 * 4 * 8 + 100
    assert len(encode_telling(answer())) < (60 + 4 + 3) * 8 + 100


@pytest.mark.parametrize(
    "items",
    [
        [Item(1, 4, 0, 0, 0, Role.LATEST), Item(1, 4, 2, 0, 0, Role.LATEST)],
        [Item(1, 4, 1, 0, 0, Role.LATEST), Item(1, 4, 0, 0, 0, Role.LATEST)],
        [Item(1, 4, 0, 0, 0, Role.LATEST), Item(1, 4, 1, 0, 0, Role.PING)],
    ],
)
def test_a_put_that_the_format_cannot_carry_is_not_sent(items: list[Item]) -> None:
    with pytest.raises(ValueError, match="numbered one after the other and have one role"):
        encode_speech(speech()._replace(puts=[Put(0, False, items)]))


def numbers(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}q", *values)


def put_fields(**changes: Any) -> list[Any]:
    names = ["at_ns", "flush", "first", "role", "destinations", "sizes", "tags", "fragments"]
    values = [5, False, 0, 0, numbers(1, 2), numbers(4, 4), numbers(0, 0), numbers(0, 1)]
    return [changes.get(name, value) for name, value in zip(names, values, strict=True)]


def speech_fields(**changes: Any) -> bytes:
    names = ["what", "node", "at_ns", "puts", "tag", "needed", "wake_ns", "then_ns"]
    values = [0, 3, 5, [put_fields()], -1, 0, 7, 0]
    return bytes(msgpack.packb([changes.get(name, value) for name, value in zip(names, values, strict=True)]))


def test_the_fields_of_these_tests_are_valid() -> None:
    heard = decode_from_node(speech_fields())
    assert heard == Speech(
        3, 5, [Put(5, False, [Item(1, 4, 0, 0, 0, 0), Item(2, 4, 1, 0, 1, 0)])], -1, 0, 7, 0
    )


@pytest.mark.parametrize("name", ["node", "at_ns", "needed", "wake_ns", "then_ns"])
@pytest.mark.parametrize("value", [-1, INFINITE_NS + 1, 2**64 - 1, True, 1.0, None, b"1", "1", []])
def test_times_and_numbers_are_whole_and_finite(name: str, value: object) -> None:
    with pytest.raises(WireError) as error:
        decode_from_node(speech_fields(**{name: value}))
    assert error.value.reason == "malformed"


@pytest.mark.parametrize(
    "changes",
    [
        {"role": 5},
        {"role": -1},
        {"role": None},
        {"role": "LATEST"},
        {"first": -1},
        {"first": None},
        {"at_ns": -1},
        {"destinations": numbers(1)},
        {"destinations": numbers(1, -2)},
        {"destinations": numbers(1, 2)[:-1]},
        {"destinations": [1, 2]},
        {"destinations": None},
        {"sizes": numbers(4, 4, 4)},
        {"sizes": numbers(4, -4)},
        {"tags": b""},
        {"fragments": 7},
    ],
)
def test_puts_are_checked(changes: dict[str, Any]) -> None:
    with pytest.raises(WireError):
        decode_from_node(speech_fields(puts=[put_fields(**changes)]))


def test_messages_are_for_nodes_of_the_run() -> None:
    assert decode_from_node(speech_fields(), 3)
    with pytest.raises(WireError) as error:
        decode_from_node(speech_fields(), 2)
    assert error.value.reason == "malformed"


def test_lists_that_say_they_are_long_take_no_memory() -> None:
    """A megabyte of lists in lists of a million entries each would take gigabytes if they were believed."""
    data = (b"\xdd" + (1 << 20).to_bytes(4, "big")) * 200_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for decode in (decode_from_node, lambda data: decode_telling(0, data)):
        with pytest.raises(WireError):
            decode(data)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"hello",
        msgpack.packb(None),
        msgpack.packb(7),
        msgpack.packb([]),
        msgpack.packb({}),
        msgpack.packb([9]),
        msgpack.packb([None, 1]),
        msgpack.packb([0]),
        msgpack.packb([0, 1, 2, 3, 4, 5, 6, 7]),
        msgpack.packb([1, 2]),
        msgpack.packb([1, "2", 3, True]),
        msgpack.packb([1, 2, 3.5, True]),
        msgpack.packb([1, 2, 3, True, 4]),
        speech_fields() + b"\x00",
        speech_fields()[:-1],
        speech_fields(puts=7),
        speech_fields(puts=[7]),
        speech_fields(puts=[[]]),
        speech_fields(puts={1: 2}),
        b"\x91" * 100_000,
        b"\xdd\xff\xff\xff\xff",
    ],
)
def test_everything_else_is_refused(data: bytes) -> None:
    for decode in (decode_from_node, lambda data: decode_telling(0, data)):
        with pytest.raises(WireError) as error:
            decode(data)
        assert error.value.reason == "malformed"


@pytest.mark.parametrize(
    "fields",
    [
        [2, 5, True, numbers(1), numbers(), numbers(), numbers(), [0, 0, 0, 0]],
        [2, 5, True, numbers(), numbers(), numbers(1, 2, 3), numbers(), [0, 0, 0, 0]],
        [2, 5, True, numbers(), numbers(), numbers(), b"odd", [0, 0, 0, 0]],
        [2, 5, True, numbers(), numbers(), numbers(), numbers(), [0, 0, 0]],
        [2, 5, True, numbers(), numbers(), numbers(), numbers(), [0, 0, 0, -1]],
        [2, 5, True, numbers(), numbers(), numbers(), numbers(), None],
        [2, None, True, numbers(), numbers(), numbers(), numbers(), [0, 0, 0, 0]],
        [3, numbers()],
        [3, None, None],
        [4, 5, numbers(), numbers()],
        [4, -5, numbers(), numbers(), [0, 0, 0, 0]],
    ],
)
def test_tellings_are_checked(fields: list[Any]) -> None:
    with pytest.raises(WireError) as error:
        decode_telling(0, msgpack.packb(fields))
    assert error.value.reason == "malformed"


def mutate(data: bytes, chance: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(out)) if out else 0
        match chance.randrange(4):
            case 0 if out:
                out[at] ^= 1 << chance.randrange(8)
            case 1:
                out[at:at] = chance.randbytes(chance.randint(1, 9))
            case 2:
                del out[at : at + chance.randint(1, 9)]
            case _:
                del out[at:]
    return bytes(out)


def outcome(decode: Callable[[bytes], object], data: bytes) -> bool:
    """Whether it was accepted; fails on anything but a refusal."""
    try:
        decode(data)
    except WireError as error:
        if error.reason != "malformed":
            raise
        return False
    return True


def test_mutated_words_are_valid_or_refused() -> None:
    chance = random.Random(1)
    originals = [
        (decode_from_node, encode_speech(speech())),
        (decode_from_node, encode_leave(3, 10**12, True)),
        (lambda data: decode_telling(3, data), encode_telling(answer())),
        (lambda data: decode_telling(3, data), encode_telling(Notice(3, [Served(1, 2, -3, True)], [4, 5]))),
        (lambda data: decode_telling(3, data), encode_telling(Stop(3, 9, [], [], Totals(1, 2, 3, 4)))),
    ]
    for decode, data in originals:
        results = [outcome(decode, mutate(data, chance)) for _ in range(4000)]
        assert True in results, "no mutation hit a plain number"
        assert False in results


@given(st.binary(max_size=200))
@settings(max_examples=300)
def test_random_bytes_are_valid_or_refused(data: bytes) -> None:
    for start in (b"", b"\x98\x00", b"\x94\x01", b"\x98\x02", b"\x93\x03", b"\x95\x04"):
        outcome(decode_from_node, start + data)
        outcome(lambda it: decode_telling(0, it), start + data)
