"""Life of a line while one end's main thread is busy elsewhere."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import termios
import threading
import time
from types import TracebackType

from launch.protocol import BEAT_S, FrameWriter


class Pulse:
    """While an agent loads data: tells the launcher that it lives, and ends it when the launcher does not.

    A thread, for the length of a ``with`` block in which no member lives.

    Args:
        out: to the launcher.
        silence_s: with ``beat``, the agent ends when nothing has come in for so long.
        beat: whether beats are sent and expected (a line to another host).
    """

    def __init__(self, out: FrameWriter, silence_s: float, *, beat: bool) -> None:
        self._out = out
        self._silence_s = silence_s
        self._beat = beat
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="pulse", daemon=True)

    def __enter__(self) -> Pulse:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End; the process has one thread less before it forks."""
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        poll = select.poll()
        poll.register(0, select.POLLRDHUP)  # not POLLIN: what has come in is the main thread's to read
        heard_s, waiting = time.monotonic(), _waiting_bytes()
        while not self._over.wait(BEAT_S):
            if poll.poll(0):
                os._exit(1)
            if not self._beat:
                continue
            if (now_waiting := _waiting_bytes()) != waiting:
                heard_s, waiting = time.monotonic(), now_waiting
            if time.monotonic() - heard_s > self._silence_s:
                os._exit(1)
            self._out.write({"is": "beat"})


def _waiting_bytes() -> int:
    """Bytes that have come in over standard input and nobody has read."""
    count: int = struct.unpack("i", fcntl.ioctl(0, termios.FIONREAD, bytes(4)))[0]
    return count
