"""Nodes in real time for tests: media over real sockets, their messages, and a launcher's orders to them."""

from __future__ import annotations

import shutil
import socket
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decentral.mailbox import Mailbox
from decentral.messages import Message
from decentral.network.model import INFINITE_NS, NetworkModel
from decentral.seeding import Seeds
from decentral.speech import ANY
from decentral.transports.zeromq import ZmqTransport
from decentral.wall import WallMedium

MS = 1_000_000
RUN = b"\x00runrunr"
MAP = b"mapmapma"
NODES, OBSERVER = 3, 3
LONG_S = 20.0


def fragment(sender: int, value: float = 0.0, *, floats: int = 1, k: int = 0, t: int = 0) -> Message:
    return Message(sender, t, k, np.full(floats, value, dtype=np.float32), MAP)


def mailbox(*, by_round: bool = False, timeout_s: float | None = LONG_S) -> Mailbox:
    return Mailbox(node=0, by_round=by_round, timeout_s=timeout_s)


def network(*, up: float = np.inf, latency_ms: float = 0.0, **settings: Any) -> NetworkModel:
    return NetworkModel(
        n=NODES,
        uplink_bps=np.full(NODES, up),
        downlink_bps=np.full(NODES, up),
        latency_ns=np.array([[round(latency_ms * MS)]]),
        seeds=Seeds(3),
        **settings,
    )


Make = Callable[..., WallMedium]
Open = Callable[[int], ZmqTransport]


@pytest.fixture
def open_transport() -> Iterator[Open]:
    folder = Path(tempfile.mkdtemp(prefix="wall-"))  # not tmp_path: a socket's path may have 107 bytes
    transports: list[ZmqTransport] = []

    def open_transport(node: int) -> ZmqTransport:
        transport = ZmqTransport(
            node=node, run=RUN, folder=folder, max_payload_bytes=1 << 24, timeout_s=LONG_S
        )
        transports.append(transport)
        return transport

    yield open_transport
    for transport in transports:
        transport.close()
    shutil.rmtree(folder)


@pytest.fixture
def make(open_transport: Open) -> Iterator[Make]:
    media: list[WallMedium] = []
    threads, interval_s = set(threading.enumerate()), sys.getswitchinterval()

    def make(node: int, model: NetworkModel, **settings: Any) -> WallMedium:
        medium = WallMedium(
            node=node,
            observer=OBSERVER,
            model=model,
            transport=open_transport(node),
            batch_bytes=1 << 20,
            **{"by_round": False, "timeout_s": LONG_S, **settings},
        )
        media.append(medium)
        return medium

    yield make
    for medium in reversed(media):
        medium.close()
    assert set(threading.enumerate()) <= threads
    assert sys.getswitchinterval() == interval_s


def start(*media: WallMedium) -> None:
    for medium in media:
        medium.start()


def receive(medium: WallMedium, count: int = 1) -> list[Message]:
    messages: list[Message] = []
    while len(messages) < count:
        messages += medium.wait(tag=ANY, count=1, until_ns=INFINITE_NS, then_ns=0, what=lambda: "a message")
    return messages


class Told:
    """Orders as a launcher would give them: what ``tell`` is given is readable and read once."""

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair()
        self._words: deque[Any] = deque()

    def fileno(self) -> int:
        return self._theirs.fileno()

    def read(self) -> Any:
        if not self._words:
            return None
        self._theirs.recv(1)
        return self._words.popleft()

    def tell(self, word: Any) -> None:
        self._words.append(word)
        self._ours.send(b"!")

    def close(self) -> None:
        self._ours.close()
        self._theirs.close()


@pytest.fixture
def told() -> Iterator[Told]:
    made = Told()
    yield made
    made.close()
