"""How hosts reach one another: which address is one's own, which ports are free, round trips and rates."""

from __future__ import annotations

import hmac
import os
import socket
import struct
import threading
import time
from contextlib import suppress
from typing import Any

CONNECT_S = 3.0
PINGS = 8
FIRST_BYTES, GROWTH, MOST_BYTES = 1 << 16, 8, 4 << 20
LONG_ENOUGH_S, LONGEST_S = 0.2, 0.8
MOST_PORTS = 2000
_SIZE = struct.Struct("!Q")


def own_address(bind: str | None, towards: list[str]) -> tuple[str | None, str | None]:
    """The address that data sockets would listen on, or why there is none."""
    if bind is not None:
        try:
            _listener(bind, 0).close()
        except OSError as error:
            return None, f"cannot listen on bind = {bind}: {error.strerror}"
        return bind, None
    connection = os.environ.get("SSH_CONNECTION", "").split()
    if len(connection) == 4:
        with suppress(OSError):
            _listener(connection[2], 0).close()
            return connection[2], None
    for other in towards:
        with suppress(OSError):
            family, _, _, _, where = socket.getaddrinfo(other, 9, type=socket.SOCK_DGRAM)[0]
            with socket.socket(family, socket.SOCK_DGRAM) as way:
                way.connect(where)  # sends nothing: the kernel says by which address it would
                return str(way.getsockname()[0]), None
    return None, f"no way to {', '.join(towards) or 'other hosts'} is known; set bind"


def _listener(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.bind((address, port))
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener


def free_ports(address: str | None, ports: list[int] | None) -> tuple[int | None, list[int]]:
    """How many of the range are free, of ``MOST_PORTS`` at most, and some that are not."""
    if ports is None or address is None:
        return None, []
    first, last = ports
    taken = []
    count = min(last - first + 1, MOST_PORTS)
    for port in range(first, first + count):
        try:
            _listener(address, port).close()
        except OSError:
            taken.append(port)
    return count - len(taken), taken[:5]


def listen(request: dict[str, Any]) -> dict[str, Any]:
    """Listen for ``measure`` of other hosts. ``request``: address, ports, token."""
    first, last = request["ports"] or (0, 0)
    for port in range(first, last + 1):
        try:
            listener = _listener(request["address"], port)
        except OSError as error:
            problem = error.strerror
            continue
        token = bytes.fromhex(request["token"])
        threading.Thread(target=_accept, args=(listener, token), daemon=True).start()
        return {"port": listener.getsockname()[1]}
    return {"error": problem}


def _accept(listener: socket.socket, token: bytes) -> None:
    while True:
        connection, _ = listener.accept()
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
