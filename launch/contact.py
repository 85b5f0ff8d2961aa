"""The agent's end of the line to the launcher: what goes over it, and whether the launcher still lives."""

from __future__ import annotations

import select
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from launch.members import now_ms
from launch.protocol import BEAT_S, SILENCE_S, FrameReader, FrameWriter
from launch.pulse import Pulse
from launch.watchdog import Watchdog


class Contact:
    """Orders come in over standard input; used by one thread.

    Args:
        out: file descriptor to the launcher.

    Attributes:
        remote: whether the line can be cut without being closed: then both ends let each other know that they
            live, and who does not is given up.
    """

    def __init__(self, out: int) -> None:
        self.remote = False
        self._fd = out
        self._out = FrameWriter(out)
        self._orders = FrameReader(0, "the launcher")
        self._heard_ms = now_ms()
        self._beat_due_ms = 0
        self._watchdog: Watchdog | None = None

    def fileno(self) -> int:
        """Of the output."""
        return self._fd

    @property
    def descriptors(self) -> list[int]:
        """What members must not keep open."""
        return [self._fd] if self._watchdog is None else [self._fd, self._watchdog.fileno()]

    def watch(self) -> None:
        """The launcher is on another host.

        Raises:
            OSError: this host has no more processes or descriptors.
        """
        self.remote = True
        self._watchdog = Watchdog()

    @property
    def pending(self) -> int:
        """Bytes that wait for the launcher to take them: ``flush`` when the output is writable."""
        return self._out.pending

    @property
    def over(self) -> bool:
        """Whether the launcher has closed the line, or counts as lost because nothing is heard of it."""
        if self._orders.ended:
            return True
        if not self.remote or now_ms() - self._heard_ms <= SILENCE_S * 1000:
            return False
        # It may have been this agent that was busy, and what was said meanwhile be unread.
        return not select.select([0], [], [], 0)[0]

    def tell(self, event: str, **fields: Any) -> None:
        """Tell the launcher, now or as soon as it listens; never blocks.

        Raises:
            BrokenPipeError: the launcher is gone.
        """
        self._out.write({"is": event, **fields})

    def flush(self) -> None:
        """Pass on what waits, as far as the launcher takes it.

        Raises:
            BrokenPipeError: the launcher is gone.
        """
        self._out.flush()

    def orders(self) -> list[dict[str, Any]]:
        """Orders that are here; to be called when standard input is readable."""
        orders = self._orders.read()
        self._heard_ms = now_ms()
        return orders

    def beat(self) -> None:
        """To be called every now and then: lets the launcher know that this agent lives."""
        now = now_ms()
        if self._watchdog is not None and now >= self._beat_due_ms:
            self._beat_due_ms = now + int(BEAT_S * 1000)
            self._watchdog.feed()
            self.tell("beat")

    @contextmanager
    def kept_up(self, tidying_s: float = 0.0) -> Iterator[None]:
        """Inside the block this thread may be busy for long: another sees to the line meanwhile.

        Args:
            tidying_s: how long the block may go on when the launcher is gone; then this process is ended.
        """
        with Pulse(self._out, SILENCE_S, watchdog=self._watchdog, tidying_s=tidying_s):
            try:
                yield
            finally:
                self._heard_ms = now_ms()
