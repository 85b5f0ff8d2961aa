"""Life of a line while the agent's main thread is busy elsewhere."""

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
from launch.watchdog import Watchdog


class Pulse:
    """While an agent works on its disk: tells the launcher that it lives, and ends it when that does not.

    A thread, for the length of a ``with`` block in which no member lives.

    Args:
        out: to the launcher.
        silence_s: with ``watchdog``, the agent ends when nothing has come in for so long.
        watchdog: on another host: it is fed, and beats are sent and expected.
        tidying_s: how long the agent may go on without a launcher.
    """

    def __init__(
        self, out: FrameWriter, silence_s: float, *, watchdog: Watchdog | None, tidying_s: float = 0.0
    ) -> None:
        self._out = out
        self._silence_s = silence_s
        self._watchdog = watchdog
        self._tidying_s = tidying_s
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
        end_s: float | None = None
        while not self._over.wait(BEAT_S):
            now_s = time.monotonic()
            if (now_waiting := _waiting_bytes()) != waiting:
                heard_s, waiting = now_s, now_waiting
            remote = self._watchdog is not None
            if poll.poll(0) or (remote and now_s - heard_s > self._silence_s):
                end_s = now_s + self._tidying_s if end_s is None else end_s
                if now_s >= end_s:
                    os._exit(1)
            elif self._watchdog is not None:
                self._watchdog.feed()
                self._out.write({"is": "beat"})


def _waiting_bytes() -> int:
    """Bytes that have come in over standard input and nobody has read."""
    count: int = struct.unpack("i", fcntl.ioctl(0, termios.FIONREAD, bytes(4)))[0]
    return count
