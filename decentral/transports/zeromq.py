"""Messages between processes of one host over ZeroMQ ``ipc`` sockets.

Every node binds one PULL socket and connects one PUSH socket per destination on first use. There is no
high-water mark: emulated time, rounds or pacing bound how far one can run ahead, while a mark would let nodes
that all send and none reads block each other for ever. libzmq's own I/O thread moves the
bytes; no Python thread is involved, because payload frames are copied into ZeroMQ's memory once per message
and shared by all its destinations (``copy=False`` would start pyzmq's collector thread).
"""

from __future__ import annotations

import os
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import zmq

from decentral.arrays import FloatArray
from decentral.errors import PreflightError, StalledError, WireError
from decentral.messages import (
    MAX_HEADER_BYTES,
    Message,
    SequenceWindow,
    decode_header,
    decode_payload,
    encode_header,
)
from decentral.transports.base import Batch

MAX_CONNECTIONS = 512
"""Open outgoing connections per node; the least recently used is closed (after sending) beyond that."""
SHARED_BYTES = 131_072
"""From this size on a message is a frame of its own, shared by all its destinations."""
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
        max_payload_bytes: longest frame accepted besides headers (a whole model).
        timeout_s: liveness timeout of ``receive``; None waits for ever.
    """

    def __init__(
        self, *, node: int, run: bytes, folder: Path, max_payload_bytes: int, timeout_s: float | None
    ) -> None:
        self._node = node
        self._run = run
        self._folder = folder
        self._timeout_ms = -1 if timeout_s is None else int(timeout_s * 1000)
        address = ipc_address(folder, node)
        self.context = zmq.Context(io_threads=1)
        """Closed with everything in it by ``close``."""
        self.inbox = self.context.socket(zmq.PULL)
        """To be polled; read it with ``receive`` or ``receive_now``."""
        self.inbox.setsockopt(zmq.RCVHWM, 0)
        self.inbox.setsockopt(zmq.MAXMSGSIZE, max(max_payload_bytes, MAX_HEADER_BYTES))
        self.inbox.setsockopt(zmq.RCVTIMEO, self._timeout_ms)
        try:
            self.inbox.bind(address)
        except zmq.ZMQError as error:
            self.context.destroy(linger=0)
            what = f"cannot listen on {address}: {error}; look at the folder's rights and space"
            raise PreflightError(what) from error
        self._join_buffer: FloatArray = np.empty(0, dtype=np.float32)
        self._peers: OrderedDict[int, zmq.Socket[bytes]] = OrderedDict()
        self._sequence: Counter[int] = Counter()
        self._seen: defaultdict[int, SequenceWindow] = defaultdict(SequenceWindow)
        self.refused: Counter[str] = Counter()

    def send(self, batches: Sequence[Batch]) -> int:
        """Queue every batch with ZeroMQ.

        A message of at least ``SHARED_BYTES`` is copied once, however many destinations it has; smaller ones
        for one destination are joined, because every frame costs the I/O threads more than its bytes do.
        """
        shared: dict[int, zmq.Frame] = {}
        header_bytes = 0
        for destination, messages in batches:
            self._sequence[destination] += 1
            header = encode_header(self._run, self._sequence[destination], messages)
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
                frames = self.inbox.recv_multipart(copy=False)
            except zmq.Again as error:
                raise StalledError(
                    f"node {self._node} heard nothing for {self._timeout_ms / 1000:g} s while it waited for "
                    f"{waiting_for()}; look for a slow or stopped node, or raise run.liveness_timeout_s"
                ) from error
            try:
                return self._accept(frames)
            except WireError as refusal:
                self.refused[refusal.reason] += 1

    def receive_now(self) -> list[Message] | None:
        """As ``receive`` where a batch is here already, else None."""
        while self.inbox.getsockopt(zmq.EVENTS) & zmq.POLLIN:  # type: ignore[operator,arg-type]
            try:
                return self._accept(self.inbox.recv_multipart(copy=False))
            except WireError as refusal:
                self.refused[refusal.reason] += 1
        return None

    def close(self) -> None:
        """Close all sockets; unsent messages are lost.

        Blocks, at most the liveness timeout, for connections that were closed beyond the cap and whose
        destination does not read.
        """
        self.context.destroy(linger=0)

    def _accept(self, frames: Sequence[zmq.Frame]) -> list[Message]:
        header = decode_header(frames[0].buffer, self._run)
        messages = decode_payload(header, [frame.buffer for frame in frames[1:]])
        if not self._seen[header.sender].accept(header.batch):
            raise WireError("replayed", f"batch {header.batch} of node {header.sender} was already seen")
        return messages

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
        socket.connect(ipc_address(self._folder, destination))
        self._peers[destination] = socket
        return socket
