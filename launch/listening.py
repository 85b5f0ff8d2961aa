"""Where a host listens for the others: at which of its addresses, and how many ports of a range are free.

Of the standard library alone, as the doctor's probe runs it on hosts that have nothing else.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

SHOWN_PORTS = 5


class NoAddress(Exception):
    """It cannot be told where this host listens; the message says why."""


class Listening(NamedTuple):
    """Where data sockets would listen.

    Attributes:
        address: of this host; None: ``why`` it cannot be told.
        why: None where there is an address.
        ports_free: of the range; None where there is no range or no address.
        ports_taken: some that are not free.
    """

    address: str | None
    why: str | None
    ports_free: int | None
    ports_taken: list[int]


def listening(asked: Mapping[str, Any]) -> Listening:
    """Where this host would listen.

    Args:
        asked: ``bind`` and ``ports`` as in the hosts file, ``towards``: where the other hosts are,
            ``remote``: whether the launcher is elsewhere, ``sockets``: no more free ports are counted (None:
            all are).
    """
    came_by = os.environ.get("SSH_CONNECTION", "") if asked["remote"] else ""
    try:
        address = own_address(asked["bind"], came_by, asked["towards"])
    except NoAddress as unknown:
        return Listening(None, str(unknown), None, [])
    if asked["ports"] is None:
        return Listening(address, None, None, [])
    return Listening(address, None, *free_ports(address, asked["ports"], asked["sockets"]))


def own_address(bind: str | None, ssh_connection: str, towards: Sequence[str]) -> str:
    """The IP address of this host that its data sockets bind and other hosts connect to.

    Args:
        bind: declared in the hosts file; None: not declared.
        ssh_connection: ``$SSH_CONNECTION`` where the launcher came to this host by ssh, else ``""``: that of
            the terminal in which somebody has started the launcher says nothing of where other hosts are.
        towards: names or addresses of the other hosts; the way to the first that can be resolved decides
            where neither is known.

    Raises:
        NoAddress: ``bind`` is no address of this host, or nothing tells one.
    """
    if bind is not None:
        try:
            _bound(bind, 0).close()
        except OSError as error:
            raise NoAddress(f"cannot listen on bind = {bind}: {error.strerror}") from error
        return bind
    connection = ssh_connection.split()
    if len(connection) == 4:  # client and its port, server and its port
        with suppress(OSError):  # it came with the environment of another host
            _bound(connection[2], 0).close()
            return connection[2]
    for other in towards:
        with suppress(OSError):
            family, _, _, _, where = socket.getaddrinfo(other, 9, type=socket.SOCK_DGRAM)[0]
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect(where)  # sends nothing: it only asks the kernel for the way
                address = str(probe.getsockname()[0])
            # A name of another host that leads back here tells nothing, unless all are this machine.
            if not ipaddress.ip_address(address).is_loopback or ipaddress.ip_address(where[0]).is_loopback:
                return address
    raise NoAddress(f"cannot tell by which address others ({', '.join(towards) or 'none'}) reach it")


def listener(address: str, port: int) -> socket.socket:
    """A socket that listens there.

    Raises:
        OSError: the port is taken, or the address is none of this host.
    """
    made = _bound(address, port)
    try:
        made.listen()
    except OSError:
        made.close()
        raise
    return made


def free_ports(address: str, ports: Sequence[int], enough: int | None = None) -> tuple[int, list[int]]:
    """How many ports of a range can be listened on, and some that cannot.

    Nothing listens meanwhile, so that whoever looks for a port at the same time is not misled.

    Args:
        address: of this host.
        ports: first and last.
        enough: no more are looked for; None: all are counted.
    """
    free, taken = 0, []
    for port in range(ports[0], ports[1] + 1):
        if free == enough:
            break
        try:
            _bound(address, port).close()
        except OSError:
            taken.append(port)
        else:
            free += 1
    return free, taken[:SHOWN_PORTS]


def _bound(address: str, port: int) -> socket.socket:
    """A socket with that name, as libzmq binds: connections that have ended hold no port."""
    made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((address, port))
    except OSError:
        made.close()
        raise
    return made
