"""Messages and their wire format: a bounded msgpack header and one raw float32 buffer.

One multipart message carries all fragments that travel together to one destination::

    frame 0    msgpack array [version, run, kind, sender, round, time_ns, map_hash, age, batch, parts]
               parts: per fragment its number and its length in bytes, 4 bytes each, and its sequence
               number, 8 bytes, signed; little-endian
    frame 1..  the listed fragments' values, float32 little-endian: back to back in one frame, or one each

Nothing is ever unpickled or evaluated; whatever does not fit this format exactly raises ``WireError`` with
a one-word reason and changes nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import Any, NamedTuple

import msgpack
import numpy as np

from decentral.arrays import FloatArray
from decentral.errors import WireError

WIRE_VERSION = 2
RUN_ID_BYTES = 8
MAP_HASH_BYTES = 8
TIME_BYTES = 8
"""Times have a fixed width, so that a header is as long under one clock as under another."""
MAX_HEADER_BYTES = 1 << 21
MAX_FRAGMENTS = 65_536
_HEADER_FIELDS = 10
_PART = struct.Struct("<IIq")


class Kind(IntEnum):
    """What a message is for."""

    FRAGMENT = 0
    """Parameters for a neighbor to aggregate."""
    SNAPSHOT = 1
    """A whole model for the observer, taken at an evaluation point."""
    FINAL = 2
    """A whole model for the observer, taken at the end of the run."""
    REQUEST = 3
    """A whole model that its receiver averages with and answers."""
    REPLY = 4
    """The answer to a request, of the same round."""
    PING = 5
    """As ``FRAGMENT``, and its receiver answers with one of its own (real time only)."""
    OFFER = 6
    """A transfer has started whose rate the receiver is to share out (``decentral.downlink``)."""
    WITHDRAWAL = 7
    """A transfer on offer was cut."""
    GRANT = 8
    """The receiver's downlink has taken a transfer in."""


_FLOAT32 = np.dtype("<f4")
_KINDS = {int(kind): kind for kind in Kind}


class Message(NamedTuple):
    """One fragment of one node's model, as it was when the message was made.

    Args:
        sender: node id.
        round: the sender's local round t.
        fragment: fragment number k.
        values: float32 of the fragment, in fragment order; a copy, never a view of a live model.
        map_hash: ``Fragments.map_hash`` of the sender.
        time_ns: the run clock when it was made.
        kind: what it is for.
        sequence: number of this message among its sender's; the emulated network knows it by it. Answers to
            requests have negative ones, which the timekeeper gives.
        age: how much training is in it (Gossip Learning's age); 0 for all others.
    """

    sender: int
    round: int
    fragment: int
    values: FloatArray
    map_hash: bytes
    time_ns: int = 0
    kind: Kind = Kind.FRAGMENT
    sequence: int = 0
    age: int = 0

    @property
    def nbytes(self) -> int:
        """Payload bytes."""
        return int(self.values.nbytes)


def encode_header(run: bytes, batch: int, messages: Sequence[Message]) -> bytes:
    """Header of a destination's ``batch``-th batch; its messages share all but fragment and sequence."""
    first = messages[0]
    parts = b"".join(
        [_PART.pack(message.fragment, message.values.nbytes, message.sequence) for message in messages]
    )
    packed: bytes = msgpack.packb(
        (
            WIRE_VERSION,
            run,
            int(first.kind),
            first.sender,
            first.round,
            first.time_ns.to_bytes(TIME_BYTES, "little"),
            first.map_hash,
            first.age,
            batch,
            parts,
        )
    )
    return packed


class Header(NamedTuple):
    """A verified header."""

    kind: Kind
    sender: int
    round: int
    time_ns: int
    map_hash: bytes
    age: int
    batch: int
    parts: tuple[tuple[int, int, int], ...]


def decode_header(data: bytes | memoryview, run: bytes) -> Header:
    """Verify a header of run ``run``.

    Raises:
        WireError: reasons ``oversized``, ``malformed``, ``version``, ``foreign`` (another run).
    """
    if len(data) > MAX_HEADER_BYTES:
        raise WireError("oversized", f"header of {len(data)} bytes, at most {MAX_HEADER_BYTES} are accepted")
    its_run, kind, sender, round_, time_ns, map_hash, age, batch, packed = _unpack(data)
    if not (isinstance(its_run, bytes) and len(its_run) == RUN_ID_BYTES):
        raise WireError("malformed", "run id is not 8 bytes")
    if its_run != run:
        raise WireError("foreign", f"message of run {its_run.hex()}, this is run {run.hex()}")
    if not (isinstance(time_ns, bytes) and len(time_ns) == TIME_BYTES):
        raise WireError("malformed", "time is not 8 bytes")
    for value in (kind, sender, round_, age, batch):
        if type(value) is not int or not 0 <= value < 1 << 63:
            raise WireError("malformed", "a number in the header is negative or not an integer")
    if kind not in _KINDS:
        raise WireError("malformed", f"unknown kind {kind}")
    if not (isinstance(map_hash, bytes) and len(map_hash) == MAP_HASH_BYTES):
        raise WireError("malformed", "fragment map hash is not 8 bytes")
    if not (isinstance(packed, bytes) and packed and len(packed) % _PART.size == 0):
        raise WireError("malformed", "fragment list is empty or not made of entries of 16 bytes")
    parts = tuple(_PART.iter_unpack(packed))
    if any(nbytes % 4 for _, nbytes, _ in parts):
        raise WireError("malformed", "a fragment's length is not a whole number of float32")
    return Header(
        _KINDS[kind], sender, round_, int.from_bytes(time_ns, "little"), map_hash, age, batch, parts
    )


def decode_payload(header: Header, buffers: Sequence[bytes | memoryview]) -> list[Message]:
    """Messages of a batch; their values are views of ``buffers``.

    Args:
        header: of the same multipart.
        buffers: all fragments back to back in one buffer, or one buffer per fragment.

    Raises:
        WireError: reason ``malformed``: number or lengths differ from what the header lists.
    """
    kind, sender, round_, time_ns, map_hash, age, _, parts = header
    lengths = [nbytes for _, nbytes, _ in parts]
    if len(buffers) == 1:
        lengths = [sum(lengths)]
    if [len(buffer) for buffer in buffers] != lengths:
        raise WireError(
            "malformed", f"payload is {[len(b) for b in buffers]} bytes, the header lists {lengths}"
        )
    values = [np.frombuffer(buffer, dtype=_FLOAT32) for buffer in buffers]
    if len(values) < len(parts):
        values = np.split(values[0], np.cumsum([nbytes // 4 for _, nbytes, _ in parts[:-1]]))
    return [
        Message(sender, round_, fragment, each, map_hash, time_ns, kind, sequence, age)
        for (fragment, _, sequence), each in zip(parts, values, strict=True)
    ]


class SequenceWindow:
    """Batch numbers 1, 2, ... of one sender: each is accepted once, in any order.

    Order can change when a sender closes a connection and opens another one; what is remembered is the
    gap-free floor and the numbers above it. There are at most ``WINDOW`` of these: whoever leaves a gap for
    longer (batches that a torn connection lost, or numbers made up) may not fill it any more.
    """

    WINDOW = 4096

    def __init__(self) -> None:
        self._floor = 0
        self._above: set[int] = set()

    @property
    def floor(self) -> int:
        """All batches up to this one have been accepted."""
        return self._floor

    @classmethod
    def after(cls, floor: int) -> SequenceWindow:
        """One that has accepted all batches up to ``floor``."""
        window = cls()
        window._floor = floor
        return window

    def accept(self, batch: int) -> bool:
        """True the first time; False for a replay."""
        if batch <= self._floor or batch in self._above:
            return False
        self._above.add(batch)
        if len(self._above) > self.WINDOW:
            self._floor = min(self._above) - 1
        while self._floor + 1 in self._above:
            self._floor += 1
            self._above.remove(self._floor)
        return True


def _unpack(data: bytes | memoryview) -> tuple[Any, ...]:
    """Fields of a header after its version, not verified."""
    try:
        # msgpack allocates what a declared length asks for before it sees that the data ends: with these
        # limits nothing longer than the header itself can be declared, at any depth of nesting.
        fields = msgpack.unpackb(
            data,
            use_list=False,
            max_array_len=_HEADER_FIELDS,
            max_bin_len=_PART.size * MAX_FRAGMENTS,
            max_str_len=len(data),
            max_map_len=0,
            max_ext_len=0,
        )
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        raise WireError("malformed", f"header is not msgpack as expected: {error}") from error
    if not isinstance(fields, tuple) or not fields:
        raise WireError("malformed", "header is not a msgpack array")
    if type(fields[0]) is not int or fields[0] != WIRE_VERSION:
        raise WireError("version", f"wire version {fields[0]!r}, this node speaks {WIRE_VERSION}")
    if len(fields) != _HEADER_FIELDS:
        raise WireError("malformed", f"header has {len(fields)} fields, expected {_HEADER_FIELDS}")
    return fields[1:]
