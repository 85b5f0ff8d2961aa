"""Who may connect over tcp: one thread per process that answers libzmq's questions and counts refusals.

libzmq asks a ZAP handler (ZeroMQ RFC 27) about the key of every client whose CURVE handshake is otherwise
sound; all others it turns away by itself and tells the socket's monitor. The guard listens to both and sleeps
otherwise.

libzmq itself would let everybody who speaks ZMTP send one frame of up to the socket's limit before a
handshake fails, and holds it. So while any handshake is under way the guard looks at those connections many
times a second, and ends whoever has sent more than a handshake takes; their number is bounded too.
"""

from __future__ import annotations

import math
import os
import resource
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress

import zmq
from zmq.utils import z85

from decentral.transports.connections import Connection, Stage
from decentral.transports.handshakes import Handshakes
from decentral.transports.refusals import Refusals

ZAP_DOMAIN = b"decentral"
MAX_LINES = 10
"""Refusals that are logged per reason; the rest is only counted."""
SPARE_HANDSHAKES = 16
"""More handshakes under way at once than there are members to come; beyond that strangers are turned away."""
_LOOK_S = 0.005
_LOOK_EACH_S = 100e-6
"""Between two looks at all handshakes: the longer, the more there are, so that it takes a tenth of a core."""
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
        members: how many may come at most, until the book says how many do.
        tell: takes lines about refusals; called by the guard's thread.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        socket: zmq.Socket[bytes],
        *,
        who: str,
        members: int,
        tell: Callable[[str], None],
    ) -> None:
        self._who = who
        self._tell = tell
        self._owners: Mapping[bytes, int] | None = None
        self._refused = Refusals()
        self._said: Counter[str] = Counter()
        self._handshakes = Handshakes()
        self._peers: dict[int, str] = {}
        self._pending: dict[int, Connection] = {}
        """Those that may not have entered yet, in the order in which they came."""
        self._welcomed: set[int] = set()
        self._ended: set[int] = set()
        self._next_look_s = 0.0
        # Strangers that say nothing keep a descriptor for as long as a handshake may take.
        self._descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4
        self._most_handshakes = min(members + SPARE_HANDSHAKES, self._descriptors)
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
        return self._refused.counts()

    def admit(self, owners: Mapping[bytes, int]) -> None:
        """Answer from now on: whose key (z85) is known enters as its owner, whoever asked before included."""
        self._owners = dict(owners)
        self._most_handshakes = min(len(owners) + SPARE_HANDSHAKES, self._descriptors)
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
                ready = dict(poller.poll(self._patience_ms()))
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
                self._look()
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
            self._pending[value] = connection = Connection(value, endpoint)
            self._peers[value] = connection.peer
            if len(self._pending) > self._most_handshakes:
                self._make_room()
        elif event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._handshakes.succeed()
        elif event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            self._handshakes.refuse()
            self._refused.count("key")
        elif event & _FAILED:
            self._handshakes.fail()
        else:
            self._forget(value)

    def _forget(self, descriptor: int) -> None:
        """A connection was closed; it counts as refused where it was, or gave up before it had entered."""
        peer = self._peers.pop(descriptor, "an unknown address")
        early = self._owners is None and descriptor in self._welcomed
        if descriptor in self._ended:
            self._handshakes.fail()
        self._pending.pop(descriptor, None)
        self._welcomed.discard(descriptor)
        self._ended.discard(descriptor)
        # A member that comes long before the book is closed by libzmq and comes again.
        if self._handshakes.close(descriptor) and not early:
            self._refused.count("unauthenticated")
            self._say("unauthenticated", f"{peer}, which did not authenticate itself")

    def _patience_ms(self) -> int | None:
        """How long there is nothing to look at by itself."""
        if not self._pending:
            return None
        return max(0, math.ceil(1000 * (self._next_look_s - time.monotonic())))

    def _look(self) -> None:
        """See to all handshakes that are under way, if it is time to."""
        if not self._pending or (now_s := time.monotonic()) < self._next_look_s:
            return
        for descriptor in list(self._pending):
            self._see_to(descriptor)
        self._next_look_s = now_s + max(_LOOK_S, _LOOK_EACH_S * len(self._pending))

    def _make_room(self) -> None:
        """End the oldest handshake that goes nowhere, or find that an older one is done."""
        for descriptor in list(self._pending):
            stage = self._see_to(descriptor)
            if stage is Stage.STRANGER:
                self._end(descriptor)
            if stage is not Stage.WELCOMED:
                return

    def _see_to(self, descriptor: int) -> Stage:
        """What has become of a handshake; ends that of somebody who sends too much."""
        stage = self._pending[descriptor].stage()
        if stage is Stage.GREEDY:
            self._end(descriptor)
        elif stage is Stage.WELCOMED:
            self._welcomed.add(descriptor)
        elif stage is not Stage.STRANGER:
            del self._pending[descriptor]
        return stage

    def _end(self, descriptor: int) -> None:
        if self._pending.pop(descriptor).end():
            self._ended.add(descriptor)

    def _say(self, reason: str, who: str) -> None:
        self._said[reason] += 1
        if self._said[reason] <= MAX_LINES:
            last = "; further ones are only counted" if self._said[reason] == MAX_LINES else ""
            self._tell(f"{self._who} refused a connection from {who}{last}")
