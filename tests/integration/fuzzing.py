"""Who sends a member anything at all: members of its run that went mad, and strangers."""

from __future__ import annotations

import random
import socket
import struct
import threading
from collections import Counter
from contextlib import suppress
from typing import Any

import msgpack
import numpy as np
import zmq

from decentral.errors import WireError
from decentral.messages import MAX_HEADER_BYTES, Kind, Message, decode_header, decode_payload, encode_header
from decentral.transports.addresses import Endpoint
from decentral.transports.zeromq import FOR_NODES
from tests.integration.receiving import FUZZERS, HONEST, MAX_PAYLOAD_BYTES, RECEIVER, RUN

MAP = b"mapmapma"
LINGER_MS = 60_000

Multipart = list[bytes]


class Fuzzer:
    """A member of the run that sends what it likes, and knows what is to become of it."""

    def __init__(self, number: int, chance: random.Random) -> None:
        self.number = number
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PUSH)
        self._chance = chance
        self._batch = 0
        self._accepted: list[Multipart] = []
        self._seen: set[int] = set()
        self._kinds = [
            self.valid,
            self.replayed,
            self.random,
            self.mutated,
            self.truncated,
            self.foreign,
            self.another_sender,
            self.another_kind,
            self.negative,
            self.version,
            self.greedy,
            self.no_payload,
            self.wrong_lengths,
        ]

    def connect(self, receiver: Endpoint) -> Endpoint:
        """Connect; returns its entry in the receiver's book."""
        public, secret = zmq.curve_keypair()
        self._socket.curve_publickey, self._socket.curve_secretkey = public, secret
        self._socket.curve_serverkey = receiver.key
        self._socket.connect(receiver.address)
        return Endpoint(f"tcp://127.0.0.1:{self.number}", public)

    def send(self) -> str | None:
        """Send something; returns why it will be refused, if it will."""
        multipart = self.next()
        reason = self.fate(multipart)
        self._socket.send_multipart(multipart)
        return reason

    def close(self) -> None:
        """Once all is sent."""
        self._socket.close(linger=LINGER_MS)
        self._context.term()

    def next(self) -> Multipart:
        """One multipart; a large one now and then."""
        dice = self._chance.random()
        if dice < 0.0005:
            return self.long_header()
        if dice < 0.002:
            return self._chance.choice((self.many_frames, self.oversized))()
        return self._chance.choice(self._kinds)()

    def fate(self, multipart: Multipart) -> str | None:
        """Why it will be refused; None: it will not, and counts as accepted from now on."""
        try:
            header = decode_header(multipart[0], RUN)
            if header.sender != self.number:
                return "sender"
            if header.kind not in FOR_NODES:
                return "kind"
            if sum(nbytes for _, nbytes, _ in header.parts) > MAX_PAYLOAD_BYTES:
                return "oversized"
            decode_payload(header, multipart[1:])
        except WireError as error:
            return error.reason
        if header.batch in self._seen:
            return "replayed"
        self._seen.add(header.batch)
        self._accepted = [*self._accepted[-50:], multipart]
        return None

    def valid(self, **changes: Any) -> Multipart:
        self._batch += 1
        size = self._chance.randrange(64)
        sent = Message(self.number, 7, 3, np.ones(size, dtype=np.float32), MAP, 17)._replace(**changes)
        return [encode_header(RUN, self._batch, [sent]), sent.values.tobytes()]

    def replayed(self) -> Multipart:
        return self._chance.choice(self._accepted) if self._accepted else self.valid()

    def random(self) -> Multipart:
        chance = self._chance
        return [chance.randbytes(chance.randrange(300)) for _ in range(chance.randint(1, 5))]

    def mutated(self) -> Multipart:
        header, payload = self.valid()
        changed = bytearray(header)
        # Not the batch's number, which is behind the age and before the parts: windows are tested elsewhere.
        until = len(header) - 16 - 2 - len(msgpack.packb(self._batch))
        for _ in range(self._chance.randint(1, 3)):
            changed[self._chance.randrange(until)] ^= 1 << self._chance.randrange(8)
        return [bytes(changed), payload]

    def truncated(self) -> Multipart:
        header, payload = self.valid()
        if self._chance.random() < 0.5 or not payload:
            return [header[: self._chance.randrange(len(header))], payload]
        return [header, payload[: self._chance.randrange(len(payload))]]

    def foreign(self) -> Multipart:
        header, payload = self.valid()
        return [header.replace(RUN, self._chance.randbytes(8)), payload]

    def another_sender(self) -> Multipart:
        others = [number for number in (RECEIVER, HONEST, *FUZZERS, 77, 1 << 40) if number != self.number]
        return self.valid(sender=self._chance.choice(others))

    def another_kind(self) -> Multipart:
        return self.valid(kind=self._chance.choice((Kind.SNAPSHOT, Kind.FINAL)))

    def negative(self) -> Multipart:
        fields = list(msgpack.unpackb(self.valid()[0]))
        fields[self._chance.choice((2, 3, 4, 7, 8))] = -self._chance.randint(1, 1 << 62)
        return [msgpack.packb(fields), b""]

    def version(self) -> Multipart:
        fields = list(msgpack.unpackb(self.valid()[0]))
        fields[0] = self._chance.choice((0, 1, 3, "2", None, 2.0))
        return [msgpack.packb(fields), b""]

    def greedy(self) -> Multipart:
        """Lists, maps and strings that say that they are long, at depth."""
        mark = self._chance.choice((b"\xdd", b"\xdf", b"\xc6", b"\xdb", b"\xc9"))
        length = struct.pack(">I", self._chance.choice((1 << 16, 1 << 24, (1 << 32) - 1)))
        return [b"\x9a\x02" + (mark + length) * self._chance.choice((1, 10, 400)), b""]

    def no_payload(self) -> Multipart:
        return self.valid()[:1]

    def wrong_lengths(self) -> Multipart:
        header, payload = self.valid()
        return self._chance.choice(
            ([header, payload + b"1234"], [header, payload, payload], [payload, header])
        )

    def many_frames(self) -> Multipart:
        header, payload = self.valid()
        return [header, *[payload] * self._chance.randint(1000, 5000)]

    def oversized(self) -> Multipart:
        values = np.zeros(MAX_PAYLOAD_BYTES // 4 + self._chance.randint(1, 10_000), dtype=np.float32)
        return self.valid(values=values)

    def long_header(self) -> Multipart:
        return [bytes(MAX_HEADER_BYTES + self._chance.randint(1, 30)), b""]


class Strangers:
    """Who is not in the book; each tries once."""

    def __init__(self, endpoint: Endpoint, chance: random.Random) -> None:
        self._endpoint = endpoint
        self._chance = chance
        self._context = zmq.Context()
        self._sockets: list[zmq.Socket[bytes]] = []
        self.expected: Counter[str] = Counter()

    def come(self) -> None:
        """One of them, by turns."""
        kind = self.expected.total() % 4
        if kind == 0:
            self._garbage()
            return
        pushing = self._context.socket(zmq.PUSH)
        self._sockets.append(pushing)
        pushing.setsockopt(zmq.RECONNECT_IVL, -1)
        if kind > 1:
            pushing.curve_publickey, pushing.curve_secretkey = zmq.curve_keypair()
            pushing.curve_serverkey = self._endpoint.key if kind == 2 else zmq.curve_keypair()[0]
        self.expected["key" if kind == 2 else "unauthenticated"] += 1
        pushing.connect(self._endpoint.address)
        with suppress(zmq.Again):  # it may have been refused already
            pushing.send_multipart([b"let me in", b""], zmq.DONTWAIT)

    def close(self) -> None:
        self._context.destroy(linger=0)

    def _garbage(self) -> None:
        self.expected["unauthenticated"] += 1
        port = int(self._endpoint.address.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as stranger, suppress(OSError):
            stranger.sendall(self._chance.randbytes(self._chance.randrange(1, 500)))


class Flood:
    """Strangers that greet as a member does, announce one long command, and send most of it at once."""

    def __init__(self, endpoint: Endpoint, count: int, nbytes: int) -> None:
        host, _, port = endpoint.address.removeprefix("tcp://").rpartition(":")
        greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00CURVE" + bytes(47)
        self._data = greeting + b"\x06" + struct.pack(">Q", nbytes) + bytes(nbytes - 1)
        self._strangers = [socket.create_connection((host, int(port))) for _ in range(count)]
        self._threads = [threading.Thread(target=self._pour, args=(each,)) for each in self._strangers]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Once they were refused; some may still wait for room to send."""
        for stranger in self._strangers:
            with suppress(OSError):  # it was reset
                stranger.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for stranger in self._strangers:
            stranger.close()

    def _pour(self, stranger: socket.socket) -> None:
        with suppress(OSError):  # it is cut off
            stranger.sendall(self._data)
