"""Framing between launcher and agent: length-prefixed msgpack over a pair of byte streams.

The same frames go through the pipes of a local child process, of ssh and of srun. Both ends belong to the
same user and start each other, so what is checked here is damage, not attack.
"""

from __future__ import annotations

import os
import struct
import threading
from collections import deque
from typing import Any

import msgpack

from decentral.errors import RunFailed

_LENGTH = struct.Struct("<I")
_END = b"\n"
"""Ends every frame: srun passes on what it gets only up to the last line break, and keeps the rest."""
MAX_FRAME_BYTES = 64 << 20
PREAMBLE = b"\x00decentral agent\n"
"""What an agent writes first: a login shell on another host may print whatever it likes before."""
_MAX_NOISE_BYTES = 1 << 20
BEAT_S = 1.0
"""How often both ends of a line to another host let each other know that they live."""
SILENCE_S = 6.0
"""An end that has heard nothing for so long takes the other for lost."""


class FrameWriter:
    """Writes messages without ever blocking; what the other end does not take yet waits here. Thread-safe.

    Args:
        fd: a writable file descriptor, made non-blocking; call ``shut`` before it is closed.

    Attributes:
        pending: bytes that wait; ``flush`` when ``fd`` is writable.
    """

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._lock = threading.Lock()
        self._queue: deque[memoryview] = deque()
        self.pending = 0

    def write(self, message: dict[str, Any]) -> None:
        """Write one message, now or later; nothing after ``shut``.

        Raises:
            RunFailed: it is longer than the other end accepts.
            BrokenPipeError: nobody reads any more.
        """
        body: bytes = msgpack.packb(message)
        if len(body) > MAX_FRAME_BYTES:
            raise RunFailed(f"a message has {len(body)} bytes, at most {MAX_FRAME_BYTES} are accepted")
        data = memoryview(_LENGTH.pack(len(body)) + body + _END)
        with self._lock:
            if self._fd < 0:
                return
            self._queue.append(data)
            self.pending += len(data)
        self.flush()

    def flush(self) -> None:
        """Write what the other end takes now.

        Raises:
            BrokenPipeError: nobody reads any more.
        """
        with self._lock:
            while self._queue:
                try:
                    written = os.write(self._fd, self._queue[0])
                except BlockingIOError:
                    return
                self.pending -= written
                self._queue[0] = self._queue[0][written:]
                if not self._queue[0]:
                    self._queue.popleft()

    def shut(self) -> None:
        """Nothing more is written, and what waits is dropped; may be called twice.

        The number of a descriptor that is closed is that of the next file which is opened, and another
        thread may be about to write here.
        """
        with self._lock:
            self._fd = -1
            self._queue.clear()
            self.pending = 0


class FrameReader:
    """Cuts a byte stream into messages.

    Args:
        fd: a readable file descriptor; ``read`` is called when it is readable.
        source: who is at the other end, for errors.
        preamble: skip what comes before ``PREAMBLE``.
    """

    def __init__(self, fd: int, source: str, *, preamble: bool = False) -> None:
        self._fd = fd
        self._source = source
        self._buffer = bytearray()
        self._awaits_preamble = preamble
        self.ended = False
        """True once the other end has closed the stream."""

    def read(self) -> list[dict[str, Any]]:
        """Take what is there (blocks only if nothing is) and return the messages that are complete.

        Raises:
            RunFailed: the stream is damaged.
        """
        chunk = os.read(self._fd, 1 << 16)
        if not chunk:
            self.ended = True
            return []
        self._buffer += chunk
        if self._awaits_preamble:
            self._skip_noise()
        messages: list[dict[str, Any]] = []
        if self._awaits_preamble:
            return messages
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if length > MAX_FRAME_BYTES:
                raise RunFailed(
                    f"{self._source} sent a frame of {length} bytes; something else writes to its output"
                )
            end = _LENGTH.size + length
            if len(self._buffer) < end + len(_END):
                break
            if self._buffer[end : end + len(_END)] != _END:
                raise RunFailed(
                    f"{self._source} sent a frame that does not end where it says; "
                    f"something else writes to its output"
                )
            messages.append(self._unpack(bytes(self._buffer[_LENGTH.size : end])))
            del self._buffer[: end + len(_END)]
        return messages

    def _skip_noise(self) -> None:
        noise, found, rest = self._buffer.partition(PREAMBLE)
        if found:
            self._buffer = rest
            self._awaits_preamble = False
        elif len(noise) > _MAX_NOISE_BYTES:
            raise RunFailed(
                f"{self._source} is no agent: it printed {len(noise)} bytes, the first {bytes(noise[:80])!r}"
            )

    def _unpack(self, body: bytes) -> dict[str, Any]:
        try:
            message = msgpack.unpackb(body, strict_map_key=False)
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            raise RunFailed(
                f"{self._source} sent a damaged frame ({error}); something else writes to its output"
            ) from error
        if not isinstance(message, dict):
            raise RunFailed(
                f"{self._source} sent {type(message).__name__} instead of a table; "
                f"something else writes to its output"
            )
        return message
