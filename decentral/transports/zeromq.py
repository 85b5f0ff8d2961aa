"""Messages between processes over ZeroMQ: ``ipc`` inside a host, ``tcp`` with CURVE between hosts.

Every node binds one PULL socket and connects one PUSH socket per destination on first use. There is no
high-water mark: emulated time, rounds or pacing bound how far one can run ahead, while a mark would let nodes
that all send and none reads block each other for ever. libzmq's own I/O thread moves the
bytes; no Python thread is involved, because payload frames are copied into ZeroMQ's memory once per message
and shared by all its destinations (``copy=False`` would start pyzmq's collector thread).

Between hosts a peer's queue at the receiver is bounded, and what is beyond it stays with the sender: whoever
sends without end fills its own memory. Frames that are longer than any can be are libzmq's to refuse: it
closes the connection without a word, and what comes from other peers is untouched. All else that does not fit
is refused here and counted by reason:

    malformed version oversized foreign replayed    the frames themselves (``decentral.messages``)
    sender    the header names another than the owner of the key, or nobody of this run
    kind      a kind of message that is not for this receiver
    key unauthenticated    connections, not frames (``decentral.transports.guard``)
"""

from __future__ import annotations

import os
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np
import zmq

from decentral.arrays import FloatArray
from decentral.errors import PreflightError, StalledError, WireError
from decentral.messages import (
    MAX_HEADER_BYTES,
    Header,
    Kind,
    Message,
    decode_header,
    decode_payload,
    encode_header,
)
from decentral.transports.addresses import Book, Endpoint, Listen
from decentral.transports.batches import Batch
from decentral.transports.curve import Limits, TcpSide, owner
from decentral.transports.numbers import BatchNumbers
from decentral.transports.refusals import Refusals

MAX_CONNECTIONS = 512
"""Open outgoing connections per node; the least recently used is closed (after sending) beyond that."""
SHARED_BYTES = 131_072
"""From this size on a message is a frame of its own, shared by all its destinations."""
FOR_NODES = frozenset(Kind) - {Kind.SNAPSHOT, Kind.FINAL}
FOR_OBSERVER = frozenset({Kind.SNAPSHOT, Kind.FINAL})
QUEUED_BYTES = 16 << 20
"""What one peer on another host may have waiting here unread, at most, of well-formed batches (but always
``_LEAST_QUEUED`` of them)."""
_LEAST_QUEUED, _MOST_QUEUED = 8, 1000
_IPC_PATH_LIMIT = 107


def ipc_address(folder: Path, node: int) -> str:
    """Where node ``node`` listens.

    Raises:
        PreflightError: the folder's path is too long for a Unix socket.
    """
    return check_ipc_path(folder / f"{node}.sock")


def check_ipc_path(path: Path) -> str:
    """The ZeroMQ address of a Unix socket.

    Raises:
        PreflightError: the path is too long for one.
    """
    length = len(os.fsencode(path))
    if length > _IPC_PATH_LIMIT:
        raise PreflightError(
            f"socket path {path} has {length} bytes: Unix sockets allow {_IPC_PATH_LIMIT}; "
            f"set TMPDIR to a shorter folder"
        )
    return f"ipc://{path}"


class ZmqTransport:
    """One node's sockets.

    Args:
        node: this node's id.
        run: the run's id, 8 bytes; messages of other runs are refused.
        folder: where the run's sockets live; mode 0700 keeps other users out.
        max_payload_bytes: most payload accepted at once (a whole model).
        timeout_s: liveness timeout of ``receive``; None waits for ever.
        listen: where members on other hosts reach this one; None: all are on this host.
        kinds: what this member is sent; None: anything.
        members: how many members the run has; None: any number.

    Raises:
        PreflightError: it cannot listen there.
    """

    def __init__(
        self,
        *,
        node: int,
        run: bytes,
        folder: Path,
        max_payload_bytes: int,
        timeout_s: float | None,
        listen: Listen | None = None,
        kinds: Collection[Kind] | None = None,
        members: int | None = None,
    ) -> None:
        self._node = node
        self._run = run
        self._folder = folder
        self._max_payload_bytes = max_payload_bytes
        self._timeout_ms = -1 if timeout_s is None else int(timeout_s * 1000)
        self._kinds = frozenset(Kind if kinds is None else kinds)
        self._members = 1 << 63 if members is None else members
        address = ipc_address(folder, node)
        self.context = zmq.Context(io_threads=1)
        """Closed with everything in it by ``close``."""
        self.inbox = self.context.socket(zmq.PULL)
        """To be polled; read it with ``receive`` or ``receive_now``."""
        most = max(max_payload_bytes, MAX_HEADER_BYTES)
        self.inbox.setsockopt(zmq.RCVHWM, 0)
        self.inbox.setsockopt(zmq.MAXMSGSIZE, most)
        self.inbox.setsockopt(zmq.RCVTIMEO, self._timeout_ms)
        self._tcp: TcpSide | None = None
        try:
            self.inbox.bind(address)
            if listen is not None:
                who, most_queued = f"node {node}", QUEUED_BYTES // max(1, max_payload_bytes)
                queued = min(_MOST_QUEUED, max(_LEAST_QUEUED, most_queued))
                limits = Limits(members=self._members, frame_bytes=most, queued=queued)
                self._tcp = TcpSide(self.context, self.inbox, listen, who=who, limits=limits)
        except zmq.ZMQError as error:
            self.context.destroy(linger=0)
            what = f"cannot listen on {address}: {error}; look at the folder's rights and space"
            raise PreflightError(what) from error
        except PreflightError:
            self.context.destroy(linger=0)
            raise
        self._join_buffer: FloatArray = np.empty(0, dtype=np.float32)
        self._peers: OrderedDict[int, zmq.Socket[bytes]] = OrderedDict()
        self.numbers = BatchNumbers()
        """Of what was sent and received so far."""
        self._refused = Refusals()

    @property
    def endpoint(self) -> Endpoint | None:
        """Where members on other hosts reach this one; None: they cannot."""
        return None if self._tcp is None else self._tcp.endpoint

    @property
    def refused(self) -> Counter[str]:
        """What was refused so far, by reason: frames, and connections from other hosts. For any thread."""
        return self._refused.counts() + (Counter() if self._tcp is None else self._tcp.refused)

    def connect(self, book: Book) -> None:
        """Learn where members on other hosts are and let them in; once, before the first ``send``.

        Peers that connected before have been waiting: nothing that they sent is lost.

        Raises:
            RuntimeError: it has a book already, or members on other hosts and no socket for them.
        """
        if self._tcp is not None:
            self._tcp.connect(book)
        elif book:
            raise RuntimeError(f"node {self._node} has members on other hosts and listens on this one only")

    def dial(self, socket: zmq.Socket[bytes], member: int, address: str) -> None:
        """Connect ``socket`` to ``member``: by tcp if it is on another host, to ``address`` if it is here.

        Raises:
            RuntimeError: the book is still to come.
        """
        if self._tcp is None or not self._tcp.dial(socket, member):
            socket.connect(address)

    def send(self, batches: Sequence[Batch]) -> int:
        """Queue every batch with ZeroMQ.

        A message of at least ``SHARED_BYTES`` is copied once, however many destinations it has; smaller ones
        for one destination are joined, because every frame costs the I/O threads more than its bytes do.
        """
        shared: dict[int, zmq.Frame] = {}
        header_bytes = 0
        for destination, messages in batches:
            header = encode_header(self._run, self.numbers.next(destination), messages)
            header_bytes += len(header)
            frames: list[bytes | zmq.Frame] = [header]
            if len(messages) > 1 and messages[0].values.nbytes < SHARED_BYTES:
                frames.append(zmq.Frame(self._joined(messages).data, copy=True))
            else:
                for message in messages:
                    frame = shared.get(id(message.values))
                    if frame is None:
                        frame = shared[id(message.values)] = zmq.Frame(message.values.data, copy=True)
                    frames.append(frame)
            self._peer(destination).send_multipart(frames, copy=False)
        return header_bytes

    def receive(self, waiting_for: Callable[[], str]) -> list[Message]:
        """Messages of the next acceptable batch; their values are views of ZeroMQ's memory, not copies.

        What is refused is counted in ``refused`` and skipped.
        """
        while True:
            try:
                first = self.inbox.recv(copy=False)
            except zmq.Again as error:
                raise StalledError.after(self._timeout_ms / 1000, self._node, waiting_for()) from error
            messages = self._take(first)
            if messages is not None:
                return messages

    def receive_now(self) -> list[Message] | None:
        """As ``receive`` where a batch is here already, else None."""
        while self.inbox.getsockopt(zmq.EVENTS) & zmq.POLLIN:  # type: ignore[operator,arg-type]
            messages = self._take(self.inbox.recv(copy=False))
            if messages is not None:
                return messages
        return None

    def disconnect(self, destination: int) -> None:
        """Drop the connection to a node that has ended, with what it was still to be sent."""
        if destination in self._peers:
            self._peers.pop(destination).close(linger=0)

    def close(self) -> None:
        """Close all sockets; unsent messages are lost. May be called twice.

        Blocks, at most the liveness timeout, for connections that were closed beyond the cap and whose
        destination does not read.
        """
        if self._tcp is not None:
            self._tcp.close()
        self.context.destroy(linger=0)

    def _take(self, first: zmq.Frame) -> list[Message] | None:
        """The batch that ``first`` begins; None if it is refused. Reads it to its end in either case."""
        frame = first
        try:
            header = self._header(first)
            buffers: list[memoryview] = []
            while frame.more and len(buffers) < len(header.parts):
                frame = self.inbox.recv(copy=False)
                buffers.append(frame.buffer)
            if frame.more:
                raise WireError("malformed", f"more frames than the {len(header.parts)} parts in its header")
            messages = decode_payload(header, buffers)
            self.numbers.take(header.sender, header.batch)
            return messages
        except WireError as refusal:
            self._refused.count(refusal.reason)
            while frame.more:
                frame = self.inbox.recv(copy=False)
            return None

    def _header(self, frame: zmq.Frame) -> Header:
        """The header in ``frame``, from whom and for whom it may come."""
        header = decode_header(frame.buffer, self._run)
        if header.sender >= self._members:
            raise WireError("sender", f"node {header.sender} of a run with {self._members} members")
        if self._tcp is not None and (by := owner(frame)) is not None and by != header.sender:
            raise WireError("sender", f"member {by} says that it is node {header.sender}")
        if header.kind not in self._kinds:
            raise WireError("kind", f"{header.kind.name} of node {header.sender} is not for {self._node}")
        if sum([nbytes for _, nbytes, _ in header.parts]) > self._max_payload_bytes:
            raise WireError("oversized", f"more payload than {self._max_payload_bytes} bytes at once")
        return header

    def _joined(self, messages: Sequence[Message]) -> FloatArray:
        """Values of ``messages`` back to back, in a buffer that the next call overwrites."""
        size = sum(message.values.size for message in messages)
        if self._join_buffer.size < size:
            self._join_buffer = np.empty(size, dtype=np.float32)
        joined = self._join_buffer[:size]
        np.concatenate([message.values for message in messages], out=joined)
        return joined

    def _peer(self, destination: int) -> zmq.Socket[bytes]:
        socket = self._peers.get(destination)
        if socket is not None:
            self._peers.move_to_end(destination)
            return socket
        if len(self._peers) >= MAX_CONNECTIONS:
            _, oldest = self._peers.popitem(last=False)
            # Not for ever: who reads nothing for the liveness timeout is gone, and close() waits for this.
            oldest.close(linger=self._timeout_ms)
        socket = self.context.socket(zmq.PUSH)
        socket.setsockopt(zmq.SNDHWM, 0)
        socket.setsockopt(zmq.LINGER, -1)
        self._peers[destination] = socket
        self.dial(socket, destination, ipc_address(self._folder, destination))
        return socket
