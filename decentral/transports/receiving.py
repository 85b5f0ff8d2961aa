"""The receiving thread of a node in real time: what arrives, and what the launcher tells of other nodes."""

from __future__ import annotations

import os
import threading
from functools import partial
from typing import Any, Protocol

import zmq

from decentral.clock import WallClock
from decentral.errors import RunFailed
from decentral.mailbox import Mailbox
from decentral.messages import Kind, Message
from decentral.transports.paced import Sender
from decentral.transports.zeromq import ZmqTransport

REST, GONE = "rest", "gone"
"""Orders of the launcher: all nodes that are not lost have left; nodes have ended (``[GONE, *nodes]``)."""


class Orders(Protocol):
    """Where a node in real time is told of the others."""

    def fileno(self) -> int:
        """Readable when an order is here."""
        ...

    def read(self) -> Any:
        """The next order, None if there is none now."""
        ...


_CONTROL = (Kind.OFFER, Kind.WITHDRAWAL, Kind.GRANT)


class Receiver:
    """The receiving thread: stamps what arrives and puts it into the mailbox.

    Args:
        node: its id.
        transport: the node's sockets.
        clock: the node's, whose shared time is what arrivals are stamped with.
        mailbox: takes messages.
        sender: takes words on shared downlinks.
        orders: of the launcher; read until all nodes have left. None: nobody tells.
    """

    def __init__(
        self,
        node: int,
        *,
        transport: ZmqTransport,
        clock: WallClock,
        mailbox: Mailbox,
        sender: Sender,
        orders: Orders | None,
    ) -> None:
        self._transport = transport
        self._clock = clock
        self._mailbox = mailbox
        self._sender = sender
        self._orders = orders
        self._stop: int | None = None
        self._thread = threading.Thread(target=self._run, name=f"receiver-{node}", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._stop = os.eventfd(0, os.EFD_CLOEXEC)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; blocks. May be called twice."""
        if self._stop is None:
            return
        os.eventfd_write(self._stop, 1)
        self._thread.join()
        os.close(self._stop)
        self._stop = None

    def _run(self) -> None:
        try:
            self._receive()
        except Exception as error:  # whatever it is, the node's thread must hear of it
            self._mailbox.fail(error)

    def _receive(self) -> None:
        poller = zmq.Poller()
        line = None if self._orders is None else self._orders.fileno()
        for source in (self._transport.inbox, self._stop, line):
            if source is not None:
                poller.register(source, zmq.POLLIN)
        while True:
            ready = [source for source, _ in poller.poll()]
            if self._stop in ready:
                return
            while (messages := self._transport.receive_now()) is not None:
                self._sort(messages, self._clock.shared_ns())
            # After what has arrived: it came before the loss that may be told of.
            if line in ready and self._obey():
                poller.unregister(line)
                line = None

    def _obey(self) -> bool:
        """Whether all nodes have left: what is ordered then is not for this thread."""
        assert self._orders is not None
        while (order := self._orders.read()) is not None:
            if order == REST:
                self._mailbox.release()
                return True
            word, *peers = order
            if word != GONE:
                raise RunFailed(f"a node in real time was ordered to {word!r}, expected {REST!r} or {GONE!r}")
            for peer in peers:
                at_ns = self._sender.order(partial(self._sender.lose, peer))
                self._mailbox.lose(peer, at_ns)
        return False

    def _sort(self, messages: list[Message], now_ns: int) -> None:
        if messages[0].kind in _CONTROL:
            for word in messages:
                self._sender.order(partial(self._sender.hear, word, now_ns))
        else:
            self._mailbox.deliver(messages, now_ns)
