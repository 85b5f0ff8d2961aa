"""What the kernel knows of a connection that libzmq has accepted: how far its handshake is; how to end it.

libzmq tells nobody which connection's handshake has succeeded, and holds what a stranger sends, up to the
socket's longest frame. But the server's side of CURVE has known lengths (RFC 26), so what the other end has
acknowledged tells how far it has come: nobody gets READY who is not in the book.
"""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from enum import IntEnum

HANDSHAKE_BYTES = 65_536
"""Most that is received from somebody who has not entered; a whole handshake takes less than 1000."""
_WELCOMED = 64 + 170
"""Bytes of greeting and WELCOME."""
_ENTERED = _WELCOMED + 26
"""ERROR, for those who are turned away, takes 12 more, and READY at least 52."""
_INFO = struct.Struct("=120xQQ")
"""``tcpi_bytes_acked`` and ``tcpi_bytes_received`` of ``struct tcp_info`` (Linux 4.1)."""
_DISCARD = socket.MSG_TRUNC | socket.MSG_DONTWAIT
_DISCARDED_BYTES = 1 << 20


class Stage(IntEnum):
    """How far a connection has come."""

    GONE = 0
    """It is closed, or its descriptor is another's by now."""
    STRANGER = 1
    GREEDY = 2
    """It has sent more than any handshake takes."""
    WELCOMED = 3
    """It knows this member's public key; its own is still to be asked for."""
    ENTERED = 4


class Connection:
    """One that was accepted.

    libzmq closes it when it likes, and its descriptor may be another's the moment after: so it is always
    looked at through a copy of the descriptor, whose two ends are compared before anything is done to it.

    Args:
        descriptor: libzmq's.
        endpoint: the listening socket's address, ``tcp://ADDRESS:PORT``.
    """

    def __init__(self, descriptor: int, endpoint: bytes) -> None:
        self._descriptor = descriptor
        self._port = int(endpoint.rpartition(b":")[2])
        self._family = socket.AF_INET6 if endpoint.startswith(b"tcp://[") else socket.AF_INET
        self._far: object = None
        self.peer = "an unknown address"
        """Who is at the other end, for messages."""
        with suppress(OSError), socket.fromfd(descriptor, self._family, socket.SOCK_STREAM) as held:
            if held.getsockname()[1] == self._port:
                self._far = held.getpeername()
                self.peer = f"{held.getpeername()[0]}, port {held.getpeername()[1]}"

    def stage(self) -> Stage:
        """How far it is now."""
        with suppress(OSError), self._hold() as held:
            if not self._is_its(held):
                return Stage.GONE
            info = held.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)
            acknowledged, received = _INFO.unpack(info)
            if acknowledged >= _ENTERED:
                return Stage.ENTERED
            if received > HANDSHAKE_BYTES:
                return Stage.GREEDY
            return Stage.WELCOMED if acknowledged >= _WELCOMED else Stage.STRANGER
        return Stage.GONE

    def end(self) -> bool:
        """Have libzmq find it closed, with nothing more to read; False if it is gone already."""
        with suppress(OSError), self._hold() as held:
            if not self._is_its(held):
                return False
            held.shutdown(socket.SHUT_RDWR)  # what arrives from now on resets it
            with suppress(OSError):  # nothing is left
                while held.recv(_DISCARDED_BYTES, _DISCARD):
                    pass
            return True
        return False

    def _hold(self) -> socket.socket:
        return socket.fromfd(self._descriptor, self._family, socket.SOCK_STREAM)

    def _is_its(self, held: socket.socket) -> bool:
        return bool(held.getsockname()[1] == self._port and held.getpeername() == self._far)
