"""The process that keeps emulated time: sockets around ``decentral.timekeeper``.

One more member of a job, number n + 1. It learns only what nodes put into their queues and when, never a
payload, and takes no part in evaluation, so it costs a fraction of a percent of the run.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import zmq

from decentral.errors import Deadlock, PreflightError
from decentral.speech import Speech
from decentral.timekeeper import Timekeeper
from decentral.transports.control import decode_from_node, encode_deadlock, encode_telling
from decentral.transports.wire import timekeeper_address

_DEADLOCK_GRACE_MS = 5_000


class TimekeeperSocket:
    """Where all nodes of a run tell the timekeeper what they do.

    Args:
        folder: of the run's sockets.

    Raises:
        PreflightError: it cannot listen there.
    """

    def __init__(self, folder: Path) -> None:
        self._context = zmq.Context(io_threads=1)
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._socket.setsockopt(zmq.SNDHWM, 0)
        self._socket.setsockopt(zmq.RCVHWM, 0)
        self._socket.setsockopt(zmq.LINGER, 0)
        address = timekeeper_address(folder)
        try:
            self._socket.bind(address)
        except zmq.ZMQError as error:
            self.close()
            what = f"cannot listen on {address}: {error}; look at the folder's rights and space"
            raise PreflightError(what) from error

    def keep(self, timekeeper: Timekeeper, terminated: Terminated) -> bool:
        """Keep time until every node has been told to stop; False if a signal asked for an earlier end.

        Raises:
            Deadlock, RunFailed: nodes wait for each other, or one broke its promise.
        """
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(terminated.fileno(), zmq.POLLIN)
        while not timekeeper.over:
            poller.poll()
            if terminated:
                return False
            while self._socket.getsockopt(zmq.EVENTS) & zmq.POLLIN:  # type: ignore[operator,arg-type]
                _, data = self._socket.recv_multipart()
                word = decode_from_node(data)
                if isinstance(word, Speech):
                    timekeeper.speak(word)
                else:
                    node, at_ns, drop = word
                    timekeeper.leave(node, at_ns, drop=drop)
            try:
                tellings = timekeeper.advance()
            except Deadlock as deadlock:
                if deadlock.node is not None:
                    # That node knows better whom it waits for, so it should be the first to say so.
                    self._send(deadlock.node, encode_deadlock(deadlock))
                poller.unregister(self._socket)
                poller.poll(_DEADLOCK_GRACE_MS)
                raise
            for telling in tellings:
                self._send(telling.node, encode_telling(telling))
        return True

    def close(self) -> None:
        """Close the socket; may be called twice."""
        self._context.destroy(linger=0)

    def _send(self, node: int, data: bytes) -> None:
        try:
            self._socket.send_multipart([node.to_bytes(4, "little"), data])
        except zmq.ZMQError as error:
            # A dead node's end is the agent's to report, with its cause.
            if error.errno != zmq.EHOSTUNREACH:
                raise


class Terminated:
    """SIGTERM as a flag and a readable descriptor, so that the accounts are never cut in the middle."""

    def __init__(self) -> None:
        self._came = False
        self._read, self._write = socket.socketpair()
        self._write.setblocking(False)

    def __bool__(self) -> bool:
        return self._came

    def fileno(self) -> int:
        """Readable once the signal came."""
        return self._read.fileno()

    @contextmanager
    def heeded(self) -> Iterator[Terminated]:
        """The handler is in place inside the block."""
        before = signal.signal(signal.SIGTERM, self._handle)
        try:
            yield self
        finally:
            signal.signal(signal.SIGTERM, before)
            self._read.close()
            self._write.close()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self._came:
            self._came = True
            os.write(self._write.fileno(), b"!")


def cpu_s() -> float:
    """CPU seconds of this process so far."""
    return time.process_time()
