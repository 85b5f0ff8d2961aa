"""How well hosts reach one another: round trips and rates."""

from __future__ import annotations

import hmac
import socket
import struct
import threading
import time
from contextlib import suppress
from typing import Any

from launch.listening import listener

CONNECT_S = 3.0
PINGS = 8
FIRST_BYTES, GROWTH, MOST_BYTES = 1 << 16, 8, 4 << 20
LONG_ENOUGH_S, LONGEST_S = 0.2, 0.8
_SIZE = struct.Struct("!Q")


def listen(request: dict[str, Any]) -> dict[str, Any]:
    """Listen for ``measure`` of other hosts. ``request``: address, ports, token."""
    first, last = request["ports"] or (0, 0)
    for port in range(first, last + 1):
        try:
            listening = listener(request["address"], port)
        except OSError as error:
            problem = error.strerror
            continue
        token = bytes.fromhex(request["token"])
        threading.Thread(target=_accept, args=(listening, token), daemon=True).start()
        return {"port": listening.getsockname()[1]}
    return {"error": problem}


def _accept(listening: socket.socket, token: bytes) -> None:
    while True:
        connection, _ = listening.accept()
        threading.Thread(target=_answer, args=(connection, token), daemon=True).start()


def _answer(connection: socket.socket, token: bytes) -> None:
    """Acknowledge every block; who does not know the token gets nothing."""
    with connection, suppress(OSError):
        connection.settimeout(5.0)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not hmac.compare_digest(_take(connection, len(token)), token):
            return
        while True:
            (left,) = _SIZE.unpack(_take(connection, _SIZE.size))
            while left:
                chunk = connection.recv(min(left, 1 << 18))
                if not chunk:
                    return
                left -= len(chunk)
            connection.sendall(b".")


def _take(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        chunk = connection.recv(count - len(data))
        if not chunk:
            raise ConnectionResetError
        data += chunk
    return data


def measure(request: dict[str, Any]) -> dict[str, Any]:
    """Round trip and rate to a host that listens. ``request``: address, port, token."""
    try:
        where = (request["address"], request["port"])
        with socket.create_connection(where, timeout=CONNECT_S) as connection:
            connection.settimeout(5.0)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(bytes.fromhex(request["token"]))
            round_trip_s = min(_block(connection, 0) for _ in range(PINGS))
            size, elapsed_s = FIRST_BYTES, 0.0
            while True:
                elapsed_s = max(_block(connection, size) - round_trip_s, 1e-6)
                grown = min(int(size * min(GROWTH, LONGEST_S / elapsed_s)), MOST_BYTES)
                if elapsed_s >= LONG_ENOUGH_S or grown <= size:
                    break
                size = grown
            return {"round_trip_s": round_trip_s, "bits_per_s": 8 * size / elapsed_s}
    except OSError as error:
        return {"error": error.strerror or str(error)}


def _block(connection: socket.socket, size: int) -> float:
    """Seconds until ``size`` bytes are acknowledged."""
    data = _SIZE.pack(size) + bytes(size)
    began_s = time.perf_counter()
    connection.sendall(data)
    _take(connection, 1)
    return time.perf_counter() - began_s
