"""What a hosts file may say of a machine.

Names become file names. Addresses and users are plain words, since ssh puts them into commands of its
configuration (ProxyCommand). All other text (folders, options of ssh) is data: it is kept as it is written,
whatever quotes, spaces or ``$( )`` it has, and whoever passes it to a shell quotes it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from decentral.config.problems import shown
from decentral.config.schema import Settings
from decentral.config.values import NAME_LENGTH, refusal

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_WORD = re.compile(r"[A-Za-z0-9._:%@+-]+")
_PORTS = re.compile(r"(\d{1,5})-(\d{1,5})")
_LOWEST_PORT, _HIGHEST_PORT = 1024, 65535
OF_SSH = ("address", "user", "port", "ssh_options", "python")
"""Keys that mean nothing where the agent is a child process, with the launcher's Python."""
_LISTS = ("ssh_options", "nodes", "regions")


def _name(name: str) -> str:
    if not NAME.fullmatch(name) or len(name) > NAME_LENGTH:
        raise refusal(
            f"must be 1 to {NAME_LENGTH} of A-Z a-z 0-9 . _ - and start with a letter or digit",
            'use a name such as "gpu1", and address = "..." for where it is',
        )
    return name


def _line(text: str) -> str:
    if not text or any(character in text for character in "\0\n\r"):
        raise refusal("must be one line of text, not empty", "remove line breaks and NUL characters")
    return text


def _word(text: str) -> str:
    if _line(text).startswith("-"):
        raise refusal("must not start with -, which would make it an option of ssh", "remove the -")
    if not _WORD.fullmatch(text):
        raise refusal(
            "must be of A-Z a-z 0-9 . _ : % @ + - alone, as shells in ~/.ssh/config may get it",
            "use another, or a Host entry of ~/.ssh/config",
        )
    return text


def _bind(text: str) -> str:
    step = "write the IP address of the host's network card that the other hosts reach, such as 10.0.0.11"
    try:
        address = ip_address(text)
    except ValueError:
        raise refusal("must be an IP address", step) from None
    if address.is_unspecified or address.is_multicast or text == "255.255.255.255":
        raise refusal("must be one address: sockets never listen on all of a machine's", step)
    return text


def _ports(text: str) -> str:
    step = 'write for example ports = "20000-20999"'
    match = _PORTS.fullmatch(text)
    if match is None:
        raise refusal("must be a first and a last port", step)
    if not _LOWEST_PORT <= int(match[1]) <= int(match[2]) <= _HIGHEST_PORT:
        raise refusal(
            f"must rise and lie between {_LOWEST_PORT} and {_HIGHEST_PORT}, both ends included", step
        )
    return text


def _distinct(entries: tuple[Any, ...]) -> tuple[Any, ...]:
    if twice := [entry for entry, count in Counter(entries).items() if count > 1]:
        raise refusal(f"lists {', '.join(map(shown, twice))} more than once", "list every entry once")
    return entries


Line = Annotated[str, AfterValidator(_line)]
Word = Annotated[str, AfterValidator(_word)]


class Host(Settings):
    """One machine.

    Attributes:
        name: of its log file and in all messages.
        address: where ssh goes; None: ``name``, so that ``~/.ssh/config`` applies.
        bind: IP address of its data sockets; None: the one that ssh came in by, else what the host resolves
            ``target`` to.
        user: for ssh.
        port: for ssh.
        python: a Python that has all packages; None: a private environment is made. Not of a local host.
        cores: how many may be used; None: all that the agent finds.
        share: a host gets nodes in proportion to its cores times this.
        folder: where code, environment and scratch go; None: ``~/.cache/decentral``.
        data: the folder of the data sets there (``DECENTRAL_DATA``).
        ports: first and last port of its data sockets; None: any free ones.
        ssh_options: arguments of ssh, each an entry.
        nodes: exactly the nodes that it gets.
        regions: it gets exactly the nodes of these regions of the emulated network.
        local: run the agent on this machine as a child process, without ssh; so is a host named localhost
            that does not say otherwise.
    """

    name: Annotated[str, Field(examples=["gpu1"]), AfterValidator(_name)]
    address: Word | None = None
    bind: Annotated[str, Field(examples=["10.0.0.11"]), AfterValidator(_bind)] | None = None
    user: Word | None = None
    port: Annotated[int, Field(ge=1, le=_HIGHEST_PORT, examples=[22])] | None = None
    python: Line | None = None
    cores: Annotated[int, Field(ge=1, le=100_000, examples=[8])] | None = None
    share: Annotated[float, Field(ge=0, le=1e6)] = 1.0
    folder: Line | None = None
    data: Line | None = None
    ports: Annotated[str, Field(examples=["20000-20999"]), AfterValidator(_ports)] | None = None
    ssh_options: tuple[Line, ...] = ()
    nodes: (
        Annotated[
            tuple[Annotated[int, Field(ge=0)], ...],
            Field(min_length=1, examples=[(0, 1, 2)]),
            AfterValidator(_distinct),
        ]
        | None
    ) = None
    regions: Annotated[tuple[Line, ...], Field(min_length=1), AfterValidator(_distinct)] | None = None
    local: bool = False

    @model_validator(mode="before")
    @classmethod
    def _spelled(cls, table: Any) -> Any:
        """TOML and JSON have lists where this has tuples; localhost is local unless told otherwise."""
        if not isinstance(table, Mapping):
            return table
        lists = {key: tuple(table[key]) for key in _LISTS if isinstance(table.get(key), list)}
        local = {"local": True} if table.get("name") == "localhost" and "local" not in table else {}
        return {**table, **lists, **local}

    @model_validator(mode="after")
    def _consistent(self) -> Host:
        if self.nodes is not None and self.regions is not None:
            raise refusal("cannot stand beside nodes", "remove one of the two", "regions", self.regions)
        for key in OF_SSH if self.local else ():
            if value := getattr(self, key):
                step = f"remove {key}, or set local = false to reach this machine by ssh"
                raise refusal("is for ssh, and this host is local", step, key, value)
        return self

    @property
    def target(self) -> str:
        """Where ssh goes."""
        return self.address or self.name

    @property
    def port_range(self) -> tuple[int, int] | None:
        """First and last port of its data sockets, both included."""
        if self.ports is None:
            return None
        first, last = self.ports.split("-")
        return int(first), int(last)


class Hosts(Settings):
    """All machines of a run, names distinct.

    Attributes:
        hosts: in the order of the file.
        source: where they come from, for messages.
        kind: how their agents are started.
    """

    hosts: tuple[Host, ...]
    source: str
    kind: Literal["ssh", "slurm"]
