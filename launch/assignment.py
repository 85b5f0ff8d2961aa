"""What a forked process needs to know beyond the workload, and how it speaks with its agent."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack

from decentral.records import FileRecorder
from decentral.transports.addresses import Book, Listen, decode_book
from launch.board import Board
from launch.build import Workload
from launch.paths import JobFolder, book_of
from launch.saving import Saving


@dataclass(frozen=True)
class Assignment:
    """What a forked process needs to know beyond the workload.

    Args:
        number: node id, or n for the observer, or n + 1 for the timekeeper.
        run: run id, 8 bytes.
        sockets: folder of the run's ipc sockets.
        folder: where logs go.
        host: this host's name in the run.
        board: where progress is noted.
        slot: this process's slot on the board.
        listen: where members on other hosts reach this one; None: all are on this host.
        core: to be bound to; None: any.
        clock_offset_ns: of this host's monotonic clock to that of all hosts, for runs in real time.
        resume: number of the checkpoint to go on from; None: from the beginning.
    """

    number: int
    run: bytes
    sockets: Path
    folder: JobFolder
    host: str
    board: Board
    slot: int
    listen: Listen | None = None
    core: int | None = None
    clock_offset_ns: int = 0
    resume: int | None = None

    def saving(self, workload: Workload) -> Saving | None:
        """Where this member's checkpoints go and come from; None where there are none."""
        if self.resume is None and not workload.arm.checkpoint.asked:
            return None
        return Saving(self.folder, self.number, workload.arm.nodes, self.resume)

    def log(self, path: Path) -> FileRecorder:
        """The log ``path`` of this member, begun or gone on with."""
        return FileRecorder(path, resumed=self.resume is not None)

    def book(self) -> Book:
        """How to reach the members on other hosts; from the start barrier on."""
        return {} if self.listen is None else decode_book(book_of(self.sockets).read_bytes())


class Channel:
    """A member's line to its agent: a SOCK_SEQPACKET pair, one msgpack array per packet."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line

    def tell(self, *message: Any) -> None:
        """Send; blocks while the agent is busy."""
        self._line.send(msgpack.packb(message))

    def fileno(self) -> int:
        """Readable when an order is here."""
        return self._line.fileno()

    def read(self) -> Any:
        """The next order; None if there is none now. The agent's end is this process's end."""
        try:
            return self._word(socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None

    def await_order(self, order: str, heed: Callable[[list[Any]], None] = lambda _: None) -> None:
        """Block until the agent sends ``order``; the agent's end is this process's end.

        Args:
            order: a word.
            heed: hears what comes before it with more than one word.
        """
        while (word := self._word()) != order:
            if isinstance(word, list):
                heed(word)
            elif word != "rest":  # which all members are told and only nodes wait for
                os._exit(1)

    def _word(self, flags: int = 0) -> Any:
        data = self._line.recv(1 << 16, flags)
        if not data:
            os._exit(1)
        return msgpack.unpackb(data)
