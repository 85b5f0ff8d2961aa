"""The tcp side of a member's socket: CURVE, one declared address, and connections to members elsewhere.

Key pairs are made here, in the member's own process after its fork; the secret half never leaves it. Public
halves and addresses reach the others through the agents' lines (ssh, srun), which authenticate them.

No ZMTP heartbeats, and TCP keepalives that give up after twenty minutes only: a connection that is torn down
loses what was under way in it, and whether a host lives its agent's line tells within seconds. So a cable
that is cut and healed costs the time that TCP needs to notice (about as long as it was cut), and no message.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import zmq

from decentral.errors import PreflightError
from decentral.transports.addresses import Book, Endpoint, Listen, is_six
from decentral.transports.guard import ZAP_DOMAIN, Guard, tell_stderr

CURVE_OVERHEAD_BYTES = 64
"""What encryption adds to a frame at most (RFC 26: 33 bytes)."""
HANDSHAKE_MS = 4000
"""What a handshake may take; a member that comes earlier than the book tries again until it is there."""
_NOT_HERE = (errno.EADDRNOTAVAIL, errno.ENODEV)
_KEEPALIVE = (
    (zmq.TCP_KEEPALIVE, 1),
    (zmq.TCP_KEEPALIVE_IDLE, 60),
    (zmq.TCP_KEEPALIVE_INTVL, 10),
    (zmq.TCP_KEEPALIVE_CNT, 120),
)
"""Often enough for firewalls that forget idle connections."""
_RECONNECT = ((zmq.RECONNECT_IVL, 100), (zmq.RECONNECT_IVL_MAX, 2000), (zmq.CONNECT_TIMEOUT, 5000))


class Limits(NamedTuple):
    """What others may make of a socket.

    Attributes:
        members: how many come at most; the book says how many do.
        frame_bytes: longest frame accepted over tcp; libzmq closes a connection that sends more.
        queued: how many messages of one peer wait here unread; more stay with it, and it never blocks.
    """

    members: int
    frame_bytes: int
    queued: int


class TcpSide:
    """A bound socket's second endpoint, for members on other hosts, and their guard.

    Args:
        context: the socket's; the guard makes its own sockets in it.
        socket: bound to its ipc address already, since libzmq copies options when it binds: what is set here
            holds for tcp only.
        listen: where.
        who: whose it is, for messages.
        limits: of what others may make of it.
        tell: takes lines about refusals.

    Raises:
        PreflightError: it cannot listen there; names address and ports.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        socket: zmq.Socket[bytes],
        listen: Listen,
        *,
        who: str,
        limits: Limits,
        tell: Callable[[str], None] = tell_stderr,
    ) -> None:
        self._context = context
        self._socket = socket
        self._book: Book | None = None
        self._public, self._secret = zmq.curve_keypair()
        # The guard stands before the door opens: a handshake that finds none would not be asked for its key.
        self._guard = Guard(context, socket, who=who, members=limits.members, tell=tell)
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.CURVE_SECRETKEY, self._secret)
        socket.setsockopt(zmq.ZAP_DOMAIN, ZAP_DOMAIN)
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        socket.setsockopt(zmq.MAXMSGSIZE, limits.frame_bytes + CURVE_OVERHEAD_BYTES)
        socket.setsockopt(zmq.RCVHWM, limits.queued)
        socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
        socket.setsockopt(zmq.BACKLOG, 1024)
        socket.setsockopt(zmq.IPV6, int(listen.six))
        for option, value in _KEEPALIVE:
            socket.setsockopt(option, value)
        try:
            self.endpoint = Endpoint(_bind(socket, listen), self._public)
        except PreflightError:
            self.close()
            raise

    @property
    def refused(self) -> Counter[str]:
        """Who was refused at the door so far, by reason: ``unauthenticated`` and ``key``."""
        return self._guard.refused

    def connect(self, book: Book) -> None:
        """Let the members of ``book`` in, and reach them from now on; once.

        Raises:
            RuntimeError: it has one already.
        """
        if self._book is not None:
            raise RuntimeError("a member gets its book once")
        self._book = dict(book)
        self._guard.admit({endpoint.key: member for member, endpoint in book.items()})

    def dial(self, socket: zmq.Socket[bytes], member: int) -> bool:
        """Connect ``socket`` to ``member`` by tcp; False if it is on this host.

        Raises:
            RuntimeError: there is no book yet.
        """
        if self._book is None:
            raise RuntimeError("a member gets its book before it sends")
        endpoint = self._book.get(member)
        if endpoint is None:
            return False
        socket.setsockopt(zmq.CURVE_PUBLICKEY, self._public)
        socket.setsockopt(zmq.CURVE_SECRETKEY, self._secret)
        socket.setsockopt(zmq.CURVE_SERVERKEY, endpoint.key)
        socket.setsockopt(zmq.IPV6, int(is_six(endpoint.address)))
        for option, value in (*_KEEPALIVE, *_RECONNECT):
            socket.setsockopt(option, value)
        socket.connect(endpoint.address)
        return True

    def close(self) -> None:
        """Close the socket, then its guard, in this order: nobody enters unasked. May be called twice."""
        if not self._socket.closed:
            self._socket.disable_monitor()
            self._socket.close(linger=0)
        self._guard.close()


def owner(frame: zmq.Frame) -> int | None:
    """Whose key the connection that ``frame`` came by was authenticated with; None: it came by ipc."""
    try:
        return int(frame.get("User-Id"))
    except zmq.ZMQError:
        return None


def _bind(socket: zmq.Socket[bytes], listen: Listen) -> str:
    """Bind ``socket`` to the first free port; returns the endpoint's address."""
    for port in ["*"] if listen.ports is None else range(listen.ports[0], listen.ports[1] + 1):
        try:
            socket.bind(f"tcp://{listen.host}:{port}")
        except zmq.ZMQError as error:
            if error.errno == errno.EADDRINUSE:
                continue
            if error.errno in _NOT_HERE:
                raise PreflightError(
                    f"cannot listen on {listen.address}: it is no address of this host; set the host's bind "
                    f"to one that `ip address` lists"
                ) from None
            raise PreflightError(
                f"cannot listen on {listen.address}, port {port}: {error.strerror}; choose other ports or "
                f"another address"
            ) from None
        return bytes(socket.getsockopt(zmq.LAST_ENDPOINT)).rstrip(b"\0").decode()
    which = "" if listen.ports is None else f" from {listen.ports[0]} to {listen.ports[1]}"
    raise PreflightError(
        f"cannot listen on {listen.address}: all ports{which} are occupied; free some or give a wider range"
    )
