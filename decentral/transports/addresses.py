"""Where members of a run on other hosts are reached, and what each host lets its members bind.

Addresses are numeric and explicit: no name is resolved in the middle of a run, and nothing ever listens on
all interfaces.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import msgpack

from decentral.errors import ConfigError, WireError

KEY_BYTES = 40
"""A CURVE public key in z85 (ZeroMQ RFC 32)."""
MAX_MEMBERS = 1 << 16
_ADDRESS = re.compile(r"tcp://(?:\[([0-9a-fA-F:.]{2,45})\]|([0-9.]{7,15})):([1-9][0-9]{0,4})", re.ASCII)
_Z85 = {
    code: value
    for value, code in enumerate(
        b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
    )
}


class Endpoint(NamedTuple):
    """Where one member listens, and whom to expect there.

    Args:
        address: ``tcp://10.77.0.11:40123``, IPv6 in brackets.
        key: its CURVE public key, z85, 40 bytes.
    """

    address: str
    key: bytes

    def __repr__(self) -> str:
        """Without the key: it is no secret, but it has no place in logs either."""
        return f"Endpoint({self.address!r})"


Book: TypeAlias = Mapping[int, Endpoint]
"""Members on other hosts; who is not in it is reached by ipc in the run's socket folder."""


@dataclass(frozen=True)
class Listen:
    """What a member binds for those on other hosts.

    Args:
        address: one IP address of this host.
        ports: inclusive range to choose from, occupied ones are passed over; None: any free port.

    Raises:
        ConfigError: the address is a wildcard or no IP address, or the range is none.
    """

    address: str
    ports: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        problem = _problem_with(self.address)
        if problem is not None:
            raise ConfigError(
                f"bind = {self.address!r}: {problem}; give one IP address of the host, such as 10.0.0.5"
            )
        if self.ports is not None and not 1 <= self.ports[0] <= self.ports[1] <= 65_535:
            raise ConfigError(
                f"ports = {self.ports[0]}-{self.ports[1]}: a range goes upwards and lies within 1-65535; "
                f"give one such as 20000-20999"
            )

    @property
    def six(self) -> bool:
        """Whether the address is one of IPv6."""
        return ":" in self.address

    @property
    def host(self) -> str:
        """The address as it stands in an endpoint."""
        return f"[{self.address}]" if self.six else self.address


def is_six(address: str) -> bool:
    """Whether an endpoint's address is one of IPv6."""
    return address.startswith("tcp://[")


def check_endpoint(address: Any, key: Any) -> Endpoint:
    """Verify one entry of a book.

    Raises:
        WireError: reason ``malformed``.
    """
    if not isinstance(address, str):
        raise WireError("malformed", "a member's address is no text")
    found = _ADDRESS.fullmatch(address)
    if found is None or int(found[3]) > 65_535:
        raise WireError("malformed", f"{address[:80]!r} is no address such as tcp://10.0.0.5:40123")
    problem = _problem_with(found[1] or found[2])
    if problem is not None:
        raise WireError("malformed", f"{address!r}: {problem}")
    if not (isinstance(key, bytes) and len(key) == KEY_BYTES and _is_z85(key)):
        raise WireError("malformed", f"the key that came with {address} is no CURVE key")
    return Endpoint(address, key)


def encode_book(book: Book) -> bytes:
    """For ``decode_book``; some 70 bytes a member."""
    packed: bytes = msgpack.packb([(member, *endpoint) for member, endpoint in sorted(book.items())])
    return packed


def decode_book(data: bytes) -> dict[int, Endpoint]:
    """Read a book, verified: numbers, addresses and keys are valid, and no two members share either.

    Raises:
        WireError: reason ``malformed``.
    """
    try:
        entries = msgpack.unpackb(
            data,
            max_array_len=MAX_MEMBERS,
            max_str_len=128,
            max_bin_len=KEY_BYTES,
            max_map_len=0,
            max_ext_len=0,
        )
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        raise WireError("malformed", f"a book that is not msgpack as expected: {error}") from error
    if not isinstance(entries, list):
        raise WireError("malformed", "a book is a list")
    book: dict[int, Endpoint] = {}
    for entry in entries:
        if not (isinstance(entry, list) and len(entry) == 3):
            raise WireError("malformed", "an entry of a book is a member, an address and a key")
        member, address, key = entry
        if type(member) is not int or not 0 <= member < MAX_MEMBERS:
            raise WireError("malformed", f"member {member!r} in a book, of at most {MAX_MEMBERS}")
        if member in book:
            raise WireError("malformed", f"member {member} is twice in a book")
        book[member] = check_endpoint(address, key)
    for what, values in (
        ("address", {endpoint.address for endpoint in book.values()}),
        ("key", {endpoint.key for endpoint in book.values()}),
    ):
        if len(values) != len(book):
            raise WireError("malformed", f"two members of a book have the same {what}")
    return book


def _problem_with(address: str) -> str | None:
    """Why nobody may listen there; None if one may."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return "sockets listen on a numeric IP address, which this is not"
    plain = getattr(parsed, "ipv4_mapped", None) or parsed
    if plain.is_unspecified:
        return "sockets listen on one declared address and never on all of a host's"
    if plain.is_multicast or plain == ipaddress.IPv4Address("255.255.255.255"):
        return "sockets listen on an address of one host, not of many"
    if getattr(parsed, "scope_id", None) is not None:
        return "an address with a zone means something on its own host only"
    return None


def _is_z85(key: bytes) -> bool:
    """Whether ``key`` decodes: digits of base 85, every five of them below 2^32."""
    for start in range(0, len(key), 5):
        number = 0
        for code in key[start : start + 5]:
            if code not in _Z85:
                return False
            number = 85 * number + _Z85[code]
        if number >= 1 << 32:
            return False
    return True
