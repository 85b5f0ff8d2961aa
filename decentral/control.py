"""Wire format of what nodes and the timekeeper tell each other: msgpack arrays, columns packed as integers.

A speech of 60 messages takes about 1.3 kB. Frames come from the run's own processes only, but they are
checked like any other: what does not fit raises ``WireError``.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import repeat
from typing import Any, TypeAlias

import msgpack

from decentral.checkpoint import words
from decentral.columns import column, listed, whole
from decentral.errors import Deadlock, WireError
from decentral.network.model import INFINITE_NS, Item
from decentral.speech import Answer, Gone, Notice, Put, Role, Served, Speech, Stop, Telling, Totals

Leave: TypeAlias = tuple[int, int, bool]
"""(node, at_ns, drop)."""

_SPEECH, _LEAVE, _ANSWER, _NOTICE, _STOP, _DEADLOCK, _GONE = range(7)
_MAX_LIST = 1 << 16
"""Most changes of a queue in one speech."""
WORD_FRAME_BYTES = 1 << 20
"""Longer words of nodes take several frames, all but the last of this length."""
MAX_WORD_FRAMES = 64
"""Of one word: a million messages put into a queue in one round take 40 MB."""
_FAILURES = (ValueError, TypeError, OverflowError, struct.error, msgpack.UnpackException, RecursionError)


def encode_speech(speech: Speech) -> bytes:
    """One node's speech."""
    puts = [_encode_put(put) for put in speech.puts]
    node, at_ns, _, tag, count, wake_ns, then_ns = speech
    packed: bytes = msgpack.packb((_SPEECH, node, at_ns, puts, tag, count, wake_ns, then_ns))
    return packed


def encode_leave(node: int, at_ns: int, drop: bool) -> bytes:
    """One node's leaving."""
    packed: bytes = msgpack.packb((_LEAVE, node, at_ns, drop))
    return packed


def encode_word(word: words.Order | words.Report) -> bytes:
    """A word about a checkpoint, in either direction."""
    packed: bytes = msgpack.packb(words.encode(word))
    return packed


def split_word(word: bytes) -> list[bytes]:
    """The frames in which a node tells ``word``."""
    return [word[at : at + WORD_FRAME_BYTES] for at in range(0, max(1, len(word)), WORD_FRAME_BYTES)]


def join_word(frames: Sequence[bytes]) -> bytes:
    """The word that came in ``frames``.

    Raises:
        WireError: reason ``malformed``.
    """
    lengths = [len(frame) for frame in frames]
    if not 0 < len(frames) <= MAX_WORD_FRAMES or set(lengths[:-1]) - {WORD_FRAME_BYTES} or not lengths[-1]:
        raise WireError("malformed", "a word that is not cut into frames as words are")
    return frames[0] if len(frames) == 1 else b"".join(frames)


def decode_from_node(data: bytes, n: int = INFINITE_NS) -> Speech | Leave | words.Report:
    """What a node told.

    Args:
        data: what came.
        n: number of nodes; messages may be for these only.

    Raises:
        WireError: reason ``malformed``.
    """
    try:
        what, *fields = _fields(data)
        if (report := words.decode_report([what, *fields])) is not None:
            return report
        if what == _LEAVE:
            node, at_ns, drop = fields
            return whole(node), whole(at_ns), bool(drop)
        if what == _SPEECH:
            node, at_ns, puts, tag, count, wake_ns, then_ns = fields
            queued = [_decode_put(put, n) for put in puts]
            tag = whole(tag, least=-INFINITE_NS)
            numbers = map(whole, (count, wake_ns, then_ns))
            return Speech(whole(node), whole(at_ns), queued, tag, *numbers)
    except _FAILURES as error:
        raise WireError("malformed", f"a node's word to the timekeeper: {error}") from error
    raise WireError("malformed", f"a node told something of unknown kind {what!r}")


def encode_telling(telling: Telling) -> bytes:
    """What the timekeeper tells one node; the node itself is in the address."""
    fields: tuple[Any, ...]
    match telling:
        case Answer():
            fields = (
                _ANSWER,
                telling.at_ns,
                telling.complete,
                column(sender for sender, _ in telling.arrived),
                column(sequence for _, sequence in telling.arrived),
                *_common(telling.served, telling.started),
                tuple(telling.totals),
            )
        case Notice():
            fields = (_NOTICE, *_common(telling.served, telling.started))
        case Gone():
            fields = (_GONE, telling.peer, telling.at_ns)
        case Stop():
            fields = (
                _STOP,
                telling.at_ns,
                *_common(telling.served, telling.started),
                tuple(telling.totals),
            )
    packed: bytes = msgpack.packb(fields)
    return packed


def encode_deadlock(deadlock: Deadlock) -> bytes:
    """To the node that waits longest: everybody waits, and nothing is under way."""
    packed: bytes = msgpack.packb((_DEADLOCK, str(deadlock), column(deadlock.senders)))
    return packed


def decode_telling(node: int, data: bytes) -> Telling | words.Order:
    """What the timekeeper told ``node``.

    Raises:
        WireError: reason ``malformed``.
        Deadlock: that is what it told.
    """
    try:
        what, *fields = _fields(data)
        if (order := words.decode_order([what, *fields])) is not None:
            return order
        if what == _ANSWER:
            at_ns, complete, senders, sequences, served, started, totals = fields
            arrived = list(zip(listed(senders), listed(sequences), strict=True))
            about = (_served(served), listed(started), _totals(totals))
            return Answer(node, whole(at_ns), bool(complete), arrived, *about)
        if what == _DEADLOCK:
            text, senders = fields
            raise Deadlock(str(text), node, listed(senders))
        if what == _NOTICE:
            served, started = fields
            return Notice(node, _served(served), listed(started))
        if what == _GONE:
            peer, at_ns = fields
            return Gone(node, whole(peer), whole(at_ns))
        if what == _STOP:
            at_ns, served, started, totals = fields
            return Stop(node, whole(at_ns), _served(served), listed(started), _totals(totals))
    except _FAILURES as error:
        raise WireError("malformed", f"the timekeeper's word to node {node}: {error}") from error
    raise WireError("malformed", f"the timekeeper told something of unknown kind {what!r}")


def _encode_put(put: Put) -> tuple[Any, ...]:
    items = put.items
    if not items:
        return put.at_ns, put.flush, 0, 0, b"", b"", b"", b""
    destinations, sizes, sequences, tags, fragments, roles = zip(*items, strict=True)
    first = sequences[0]
    if sequences != tuple(range(first, first + len(items))) or len(set(roles)) > 1:
        raise ValueError("messages of one put are numbered one after the other and have one role")
    return (
        put.at_ns,
        put.flush,
        first,
        int(roles[0]),
        column(destinations),
        column(sizes),
        column(tags),
        column(fragments),
    )


def _decode_put(fields: Sequence[Any], n: int) -> Put:
    at_ns, flush, first, role, destinations, sizes, tags, fragments = fields
    to, nbytes = listed(destinations), listed(sizes)
    sequences = range(whole(first), first + len(to))
    columns = (to, nbytes, sequences, listed(tags), listed(fragments))
    if len({len(each) for each in columns}) != 1:
        raise ValueError("columns of different lengths")
    if min((*to, *nbytes), default=0) < 0 or max(to, default=0) >= n:
        raise ValueError("a negative size, or a destination that is no node")
    return Put(whole(at_ns), bool(flush), list(map(Item, *columns, repeat(Role(whole(role))))))


def _fields(data: bytes) -> Any:
    # msgpack makes room for as many entries as a list says that it has, at any depth of nesting, before it
    # sees that they are not there.
    return msgpack.unpackb(data, max_array_len=_MAX_LIST, max_map_len=0, max_ext_len=0)


def _common(served: Sequence[Served], started: Sequence[int]) -> tuple[bytes, bytes]:
    return column(number for each in served for number in each), column(started)


def _served(data: bytes) -> list[Served]:
    numbers = iter(listed(data))
    return [
        Served(requester, request, reply, bool(ping))
        for requester, request, reply, ping in zip(numbers, numbers, numbers, numbers, strict=True)
    ]


def _totals(numbers: Sequence[int]) -> Totals:
    return Totals(*map(whole, numbers))
