"""How members come to stand still and save themselves at one moment; and the words for it."""

from __future__ import annotations

import random

import msgpack
import pytest

from decentral.checkpoint.leader import Leader
from decentral.checkpoint.words import Freeze, Frozen, Order, Present, Report, Save, Saved, Thaw
from decentral.control import decode_from_node, decode_telling, encode_word
from decentral.errors import WireError
from decentral.transports.numbers import BatchNumbers

WORDS: list[Order | Report] = [
    Freeze(3),
    Thaw(3),
    Save(3, [(0, 12), (7, 1)], 2),
    Save(1, [], 0),
    Present(2),
    Frozen(2, [(0, 1), (16, 5)]),
    Frozen(0, []),
    Saved(2, "node-002.ckpt", 1 << 40, "ab" * 32, 77),
]


def saved(member: int) -> Saved:
    return Saved(member, f"node-{member:03d}.ckpt", 10, "00", 5)


def test_one_checkpoint() -> None:
    leader = Leader([0, 1, 2])
    assert not leader.all_present
    for member in range(3):
        leader.hear(Present(member))
    assert leader.all_present
    assert leader.freeze() == [], "nobody has asked"
    leader.ask(4, 3)
    assert leader.holds
    assert not leader.freezing
    assert leader.freeze() == [(0, Freeze(4)), (1, Freeze(4)), (2, Freeze(4))]
    assert leader.freeze() == [], "once"
    assert leader.hear(Frozen(1, [(0, 3), (2, 1)])) == []
    assert leader.hear(Frozen(0, [(1, 2)])) == []
    assert leader.hear(Frozen(2, [])) == [
        (0, Save(4, [(1, 3)], 3)),
        (1, Save(4, [(0, 2)], 3)),
        (2, Save(4, [(1, 1)], 3)),
    ]
    for member in (2, 0):
        leader.hear(saved(member))
    assert not leader.complete
    leader.hear(saved(1))
    assert leader.complete
    assert [each.member for each in leader.saved.values()] == [2, 0, 1]
    assert leader.thaw() == [(0, Thaw(4)), (1, Thaw(4)), (2, Thaw(4))]
    assert not leader.holds
    leader.ask(5, 4)
    leader.freeze()
    assert leader.number == 5
    assert leader.saved == {}


def test_who_is_lost_ends_it() -> None:
    leader = Leader([0, 1, 2])
    for member in range(3):
        leader.hear(Present(member))
    leader.ask(1, 0)
    leader.freeze()
    assert leader.lose(1) == [(0, Thaw(1)), (2, Thaw(1))]
    leader.ask(2, 0)
    assert not leader.holds, "a checkpoint would lack a node"


def test_nobody_is_told_to_stand_still_before_all_can_hear_it() -> None:
    """The observer, say, is slower than all nodes: what it is told before it is present never reaches it."""
    leader = Leader([0, 1, 2])
    leader.hear(Present(0))
    leader.ask(1, 0)
    leader.hear(Present(1))
    assert leader.freeze() == []
    assert leader.holds
    assert not leader.freezing
    leader.hear(Present(2))
    assert leader.freeze() == [(member, Freeze(1)) for member in range(3)]


def test_who_is_lost_before_it_was_present_is_waited_for_no_longer() -> None:
    leader = Leader([0, 1])
    leader.hear(Present(0))
    leader.ask(1, 0)
    assert leader.lose(1) == [], "nobody stands still"
    assert leader.all_present
    assert not leader.holds


def test_a_second_request_waits_for_nobody() -> None:
    leader = Leader([0])
    leader.hear(Present(0))
    leader.ask(1, 0)
    leader.ask(2, 0)
    assert leader.number == 1
    assert leader.thaw() == [], "nobody stands still yet"
    assert not leader.holds
    leader.ask(2, 0)
    leader.freeze()
    assert leader.thaw() == [(0, Thaw(2))], "given up"
    assert leader.hear(Frozen(0, [])) == [], "too late"
    assert leader.hear(saved(0)) == []
    assert leader.saved == {}


@pytest.mark.parametrize("word", WORDS, ids=str)
def test_words_come_back(word: Order | Report) -> None:
    data = encode_word(word)
    came = decode_telling(0, data) if isinstance(word, Freeze | Save | Thaw) else decode_from_node(data)
    assert came == word
    assert type(came) is type(word)


@pytest.mark.parametrize(
    "fields",
    [
        ["freeze"],
        ["freeze", -1],
        ["freeze", "1"],
        ["save", 1, b""],
        ["save", 1, b"short", 0],
        ["save", 1, None, 0],
        ["save", 1, b"", -1],
        ["save", 1, (-1).to_bytes(8, "little", signed=True) + bytes(8), 0],
        ["thaw", 1, 2],
        ["melt", 1],
    ],
    ids=str,
)
def test_orders_that_are_none_are_refused(fields: list[object]) -> None:
    with pytest.raises(WireError, match="malformed"):
        decode_telling(0, msgpack.packb(fields))


@pytest.mark.parametrize(
    "fields",
    [
        ["present"],
        ["present", -1],
        ["frozen", 0, b"short"],
        ["frozen", 0, 5],
        ["saved", 0, "../../etc/passwd", 1, "ab", 0],
        ["saved", 0, "x" * 300, 1, "ab", 0],
        ["saved", 0, b"name", 1, "ab", 0],
        ["saved", 0, "name", -1, "ab", 0],
        ["saved", 0, "name", 1, 5, 0],
        ["saved", True, "name", 1, "ab", 0],
    ],
    ids=str,
)
def test_reports_that_are_none_are_refused(fields: list[object]) -> None:
    with pytest.raises(WireError, match="malformed"):
        decode_from_node(msgpack.packb(fields))


def test_random_frames_are_refused() -> None:
    chance = random.Random(1)
    for _ in range(2000):
        data = bytearray(encode_word(chance.choice(WORDS)))
        for _ in range(chance.randrange(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        for decode in (decode_from_node, lambda data: decode_telling(0, data)):
            try:
                decode(bytes(data[: chance.randrange(len(data) + 1)]))
            except WireError:
                continue


def test_batches_are_counted_on_from_a_checkpoint() -> None:
    numbers = BatchNumbers()
    assert [numbers.next(3), numbers.next(3), numbers.next(5)] == [1, 2, 1]
    assert numbers.sent == [(3, 2), (5, 1)]
    numbers.take(7, 2)
    assert not numbers.has([(7, 1)]), "the first is on its way"
    numbers.take(7, 1)
    assert numbers.has([(7, 2), (8, 0)])
    assert not numbers.has([(7, 2), (8, 1)])
    again = BatchNumbers()
    again.restore(numbers.state())
    assert again.next(3) == 3
    assert again.has([(7, 2)])
    with pytest.raises(WireError, match="replayed"):
        again.take(7, 2)
    again.take(7, 3)
