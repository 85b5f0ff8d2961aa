"""The process that keeps emulated time: sockets around ``decentral.timekeeper``.

One more member of a job, number n + 1. It learns only what nodes put into their queues and when, never a
payload, and takes no part in evaluation, so it costs a fraction of a percent of the run.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import zmq

from decentral.checkpoint.leader import Orders
from decentral.checkpoint.words import Frozen, Present, Report, Saved
from decentral.clock import NS_PER_S
from decentral.control import (
    MAX_WORD_FRAMES,
    WORD_FRAME_BYTES,
    Leave,
    decode_from_node,
    encode_deadlock,
    encode_telling,
    encode_word,
    join_word,
)
from decentral.errors import Deadlock, PreflightError, RunFailed, WireError
from decentral.network.model import INFINITE_NS
from decentral.speech import Gone, Speech, Telling
from decentral.timekeeper import Timekeeper
from decentral.transports.addresses import Book, Endpoint, Listen
from decentral.transports.curve import Limits, TcpSide, owner
from decentral.transports.wire import timekeeper_address
from launch.saving import TimekeeperSaving

_QUEUED = 1000
_ROUTING_BYTES = 4
_DEADLOCK_GRACE_MS = 5_000


class Line(Protocol):
    """The timekeeper's line to its agent."""

    def fileno(self) -> int:
        """Readable when an order is here."""
        ...

    def read(self) -> Any:
        """The next order; None if there is none now."""
        ...

    def tell(self, *message: Any) -> None:
        """Send."""
        ...


class TimekeeperSocket:
    """Where all nodes of a run tell the timekeeper what they do.

    A word belongs to the node whose connection it came by: that of its routing id and, from another host, of
    its key. A node whose own word does not fit the format is broken, and waits for an answer that cannot
    come: that ends the run, with its name. Whatever claims to be another's is refused and counted, and so are
    strangers, who never get as far as a word.

    Args:
        folder: of the run's sockets.
        listen: where nodes on other hosts reach it; None: all are on this host.
        n: number of nodes; None: any.

    Raises:
        PreflightError: it cannot listen there.
    """

    def __init__(self, folder: Path, listen: Listen | None = None, n: int | None = None) -> None:
        self._n = INFINITE_NS if n is None else n
        self._refused: Counter[str] = Counter()
        self._unsent: defaultdict[int, list[bytes]] = defaultdict(list)
        self._tcp: TcpSide | None = None
        self._context = zmq.Context(io_threads=1)
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._socket.setsockopt(zmq.SNDHWM, 0)
        self._socket.setsockopt(zmq.RCVHWM, 0)
        self._socket.setsockopt(zmq.LINGER, 0)
        address = timekeeper_address(folder)
        try:
            self._socket.bind(address)
            if listen is not None:
                limits = Limits(members=self._n + 1, frame_bytes=WORD_FRAME_BYTES, queued=_QUEUED)
                self._tcp = TcpSide(self._context, self._socket, listen, who="the timekeeper", limits=limits)
        except zmq.ZMQError as error:
            self.close()
            what = f"cannot listen on {address}: {error}; look at the folder's rights and space"
            raise PreflightError(what) from error
        except PreflightError:
            self.close()
            raise

    @property
    def endpoint(self) -> Endpoint | None:
        """Where nodes on other hosts reach it; None: they cannot."""
        return None if self._tcp is None else self._tcp.endpoint

    @property
    def refused(self) -> Counter[str]:
        """Words and connections refused so far, by reason."""
        return self._refused if self._tcp is None else self._refused + self._tcp.refused

    def connect(self, book: Book) -> None:
        """Let the nodes on other hosts in; once. Those that came before have been waiting.

        Raises:
            RuntimeError: it has a book already, or nodes on other hosts and no socket for them.
        """
        if self._tcp is not None:
            self._tcp.connect(book)
        elif book:
            raise RuntimeError("the timekeeper has nodes on other hosts and listens on this one only")

    def keep(
        self,
        timekeeper: Timekeeper,
        terminated: Terminated,
        line: Line | None = None,
        saving: TimekeeperSaving | None = None,
    ) -> bool:
        """Keep time until every node has been told to stop; False if a signal asked for an earlier end.

        Args:
            timekeeper: what is kept.
            terminated: the signal.
            line: where the launcher's orders come from; None: there are none.
            saving: makes checkpoints; None: there are none.

        Raises:
            Deadlock, RunFailed: nodes wait for each other, or one broke its promise.
        """
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(terminated.fileno(), zmq.POLLIN)
        if line is not None:
            poller.register(line.fileno(), zmq.POLLIN)
        while not timekeeper.over:
            poller.poll()
            if terminated:
                return False
            while self._socket.getsockopt(zmq.EVENTS) & zmq.POLLIN:  # type: ignore[operator,arg-type]
                word = self._hear()
                if isinstance(word, Speech):
                    timekeeper.speak(word)
                elif isinstance(word, Present | Frozen | Saved):
                    self._order([] if saving is None else saving.hear(word))
                elif word is not None:
                    node, at_ns, drop = word
                    timekeeper.leave(node, at_ns, drop=drop)
            while line is not None and (order := line.read()) is not None:
                self.obey(order, timekeeper, line, saving)
            if saving is not None:
                free, orders = saving.go_on()
                self._order(orders)
                if not free:
                    continue
            try:
                tellings = timekeeper.advance()
            except Deadlock as deadlock:
                if deadlock.node is not None:
                    # That node knows better whom it waits for, so it should be the first to say so.
                    self._send(deadlock.node, encode_deadlock(deadlock))
                poller.unregister(self._socket)
                poller.poll(_DEADLOCK_GRACE_MS)
                raise
            self._tell(tellings)
        return True

    def obey(
        self, order: Any, timekeeper: Timekeeper, line: Line, saving: TimekeeperSaving | None = None
    ) -> None:
        """Do what the launcher wants: a checkpoint; or all must hear of a node that has ended."""
        match order:
            case ["checkpoint", int(number), int(rounds), int(least)] if saving is not None:
                saving.ask(number, rounds, least)
            case ["gone", *nodes]:
                for node in nodes:
                    self._order([] if saving is None else saving.leader.lose(node))
                    at_ns = timekeeper.lose(node)
                    line.tell("lost", node, at_ns / NS_PER_S)
                    self._tell([Gone(self._n, node, at_ns)])  # the observer
                if timekeeper.over:  # nodes may still wait for payloads of them
                    self._tell(timekeeper.advance())

    def _tell(self, tellings: Iterable[Telling]) -> None:
        for telling in tellings:
            data = encode_telling(telling)
            if not self._send(telling.node, data) and isinstance(telling, Gone):
                self._unsent[telling.node].append(data)

    def close(self) -> None:
        """Close the socket; may be called twice."""
        if self._tcp is not None:
            self._tcp.close()
        self._context.destroy(linger=0)

    def _order(self, orders: Orders) -> None:
        for member, order in orders:
            self._send(member, encode_word(order))

    def _hear(self) -> Speech | Leave | Report | None:
        """The next word; None if it is refused.

        Raises:
            RunFailed: a node's own word is malformed.
        """
        frames = [self._socket.recv(copy=False)]
        while frames[-1].more:
            # Of one that is too long, the end is enough.
            frames[MAX_WORD_FRAMES + 1 :] = [self._socket.recv(copy=False)]
        routing, *rest = frames
        named = len(routing.bytes) == _ROUTING_BYTES
        node = int.from_bytes(routing.bytes, "little") if named else self._n + 1
        by = owner(rest[-1]) if self._tcp is not None and rest else None
        if node > self._n or by not in (None, node):  # n is the observer
            self._refused["sender"] += 1
            return None
        try:
            word = decode_from_node(join_word([frame.bytes for frame in rest]), self._n)
        except WireError as error:
            raise RunFailed(f"node {node} told the timekeeper what it cannot read: {error}") from error
        about_time = not isinstance(word, Present | Frozen | Saved)
        if word[0] != node or (about_time and node == self._n):
            self._refused["sender"] += 1
            return None
        for data in self._unsent.pop(node, ()):
            self._send(node, data)
        return word

    def _send(self, node: int, data: bytes) -> bool:
        """False if the node has ended, which is the agent's to report, or is not connected yet."""
        try:
            self._socket.send_multipart([node.to_bytes(4, "little"), data])
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            return False
        return True


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
