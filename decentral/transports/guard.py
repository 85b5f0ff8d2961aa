"""Who may connect over tcp: one thread per process that answers libzmq's questions and counts refusals.

libzmq asks a ZAP handler (ZeroMQ RFC 27) about the key of every client whose CURVE handshake is otherwise
sound; all others it turns away by itself and tells the socket's monitor. The guard listens to both and sleeps
otherwise.

What libzmq does not let it prevent: until its handshake fails (30 s at most), a stranger that speaks ZMTP can
make libzmq hold one frame of up to the socket's limit. The number of strangers is bounded here.
"""

from __future__ import annotations

import os
import resource
import socket as sockets
import struct
import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress

import zmq
from zmq.utils import z85

from decentral.transports.handshakes import Handshakes

ZAP_DOMAIN = b"decentral"
MAX_LINES = 10
"""Refusals that are logged per reason; the rest is only counted."""
_ZAP_ADDRESS = "inproc://zeromq.zap.01"
_ZAP_FRAMES = 7
_EVENT = struct.Struct("=Hi")
_FAILED = zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
_WATCHED = (
    _FAILED
    | zmq.EVENT_ACCEPTED
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)


def tell_stderr(line: str) -> None:
    """To the member's standard error; a log that cannot be written must not let strangers stop the guard."""
    with suppress(OSError):
        print(line, file=sys.stderr, flush=True)


class Guard:
    """The guard of one socket; started by its construction, before the socket is bound to tcp.

    Args:
        context: of the socket; the guard makes its own sockets in it.
        socket: to be watched.
        who: whose it is, for messages.
        tell: takes lines about refusals; called by the guard's thread.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        socket: zmq.Socket[bytes],
        *,
        who: str,
        tell: Callable[[str], None],
    ) -> None:
        self._who = who
        self._tell = tell
        self._owners: Mapping[bytes, int] | None = None
        self._refused: Counter[str] = Counter()
        self._said: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._handshakes = Handshakes()
        self._peers: dict[int, str] = {}
        # Strangers that say nothing keep a descriptor for as long as a handshake may take.
        self._most_handshakes = min(4096, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)
        self._zap = context.socket(zmq.REP)
        self._zap.bind(_ZAP_ADDRESS)
        self._monitor = context.socket(zmq.PAIR)
        self._monitor.setsockopt(zmq.RCVHWM, 0)  # at a full mark libzmq's I/O thread would wait for this one
        events = f"inproc://monitor-{id(socket)}"
        socket.monitor(events, _WATCHED)
        self._monitor.connect(events)
        self._bell = os.eventfd(0, os.EFD_CLOEXEC)
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=f"guard of {who}", daemon=True)
        self._thread.start()

    @property
    def refused(self) -> Counter[str]:
        """A copy of the counts: ``unauthenticated`` (no or a wrong handshake), ``key`` (not in the book)."""
        with self._lock:
            return Counter(self._refused)

    def admit(self, owners: Mapping[bytes, int]) -> None:
        """Answer from now on: whose key (z85) is known enters as its owner, whoever asked before included."""
        self._owners = dict(owners)
        os.eventfd_write(self._bell, 1)

    def close(self) -> None:
        """End the thread and its sockets; the watched one must be closed before. May be called twice."""
        if self._stopping:
            return
        self._stopping = True
        os.eventfd_write(self._bell, 1)
        self._thread.join()
        os.close(self._bell)

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._bell, zmq.POLLIN)
        poller.register(self._monitor, zmq.POLLIN)
        try:
            while True:
                ready = dict(poller.poll())
                if self._bell in ready:
                    os.eventfd_read(self._bell)
                    if self._stopping:
                        return
                    # Questions that came before the book have waited in the socket.
                    poller.register(self._zap, zmq.POLLIN)
                if self._monitor in ready:
                    self._watch()
                if self._zap in ready:
                    self._answer()
        finally:
            self._monitor.close(linger=0)
            self._zap.close(linger=0)

    def _answer(self) -> None:
        """One question of libzmq."""
        request = self._zap.recv_multipart()
        version, number = request[0], request[1]
        peer = request[3].decode(errors="replace")
        key = request[6] if len(request) == _ZAP_FRAMES and request[5] == b"CURVE" else b""
        owner = self._owners.get(z85.encode(key)) if self._owners is not None and key else None
        if owner is None:
            self._say("key", f"{peer}, whose key is not in the run's book")
            self._zap.send_multipart([version, number, b"400", b"not of this run", b"", b""])
        else:
            self._zap.send_multipart([version, number, b"200", b"", str(owner).encode(), b""])

    def _watch(self) -> None:
        """One event of the socket."""
        data, endpoint = self._monitor.recv_multipart()
        if not endpoint.startswith(b"tcp://"):
            return
        event, value = _EVENT.unpack(data)
        if event == zmq.EVENT_ACCEPTED:
            self._handshakes.accept(value)
            full = self._handshakes.under_way > self._most_handshakes
            self._peers[value] = _peer_of(value, endpoint, cut=full)
        elif event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._handshakes.succeed()
        elif event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            self._handshakes.refuse()
            self._count("key")
        elif event & _FAILED:
            self._handshakes.fail()
        else:
            peer = self._peers.pop(value, "an unknown address")
            if self._handshakes.close(value):
                self._count("unauthenticated")
                self._say("unauthenticated", f"{peer}, which did not authenticate itself")

    def _count(self, reason: str) -> None:
        with self._lock:
            self._refused[reason] += 1

    def _say(self, reason: str, who: str) -> None:
        self._said[reason] += 1
        if self._said[reason] <= MAX_LINES:
            last = "; further ones are only counted" if self._said[reason] == MAX_LINES else ""
            self._tell(f"{self._who} refused a connection from {who}{last}")


def _peer_of(descriptor: int, endpoint: bytes, *, cut: bool) -> str:
    """Who is at the other end of a connection, which libzmq may have closed; if ``cut``, end it."""
    family = sockets.AF_INET6 if endpoint.startswith(b"tcp://[") else sockets.AF_INET
    with suppress(OSError):
        connection = sockets.socket(family, sockets.SOCK_STREAM, fileno=descriptor)
        try:
            if endpoint.endswith(b":%d" % connection.getsockname()[1]):
                host, port, *_ = connection.getpeername()
                if cut:
                    connection.shutdown(sockets.SHUT_RDWR)
                return f"{host}, port {port}"
        finally:
            connection.detach()  # it is libzmq's
    return "an unknown address"
