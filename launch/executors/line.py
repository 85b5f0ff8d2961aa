"""The launcher's end of the line to one agent: orders out, events in, and whether it still lives."""

from __future__ import annotations

import os
import select
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from decentral.errors import RunFailed
from launch.executors.starters import Starter
from launch.hosts import Host
from launch.protocol import BEAT_S, SILENCE_S, FrameReader, FrameWriter

END_S = 5.0
"""How long an agent may take to end after its input has closed."""
_EXCHANGES = 21
"""Round trips by which a host's clock is compared."""
_STATUS_S = 2.0
"""How long the child process may take to end after its output has closed."""
_LAST_BYTES, _LAST_LINES = 4096, 3
"""How much of what an agent has printed is told when it ends."""


class Line:
    """An agent on a host, as a child process of this one; used by one thread, beside ``Pulse``.

    Args:
        host: where.
        starter: how.

    Attributes:
        host: as given.
        facts: what the agent has told of its host (``launch.facts``); empty until its first event.
        met: whether both know all of each other that jobs need.
    """

    def __init__(self, host: Host, starter: Starter) -> None:
        self.host = host
        self.facts: dict[str, Any] = {}
        self.met = False
        self._starter = starter
        # Without a name: what has none is left by nobody, however this process ends.
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by ``close``
        try:
            self._process: subprocess.Popen[bytes] = starter.start(host, self._log)
        except BaseException:
            self._log.close()
            raise
        assert self._process.stdout is not None
        assert self._process.stdin is not None
        self._in = self._process.stdin
        self._out = self._process.stdout
        self._reader = FrameReader(self._out.fileno(), f"the agent on host {host.name}", preamble=True)
        self._writer = FrameWriter(self._in.fileno())
        self._heard_s = time.monotonic()

    @property
    def name(self) -> str:
        """The host's name."""
        return self.host.name

    @property
    def remote(self) -> bool:
        """Whether the host can be lost without the line being closed."""
        return not self.host.local

    @property
    def pid(self) -> int:
        """Of the child process here: the agent itself, unless it is remote."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether the agent's output is closed."""
        return self._reader.ended

    @property
    def silent(self) -> bool:
        """Whether a remote agent has not been heard of for so long that its host counts as lost."""
        if not self.remote or not self.facts or time.monotonic() - self._heard_s <= SILENCE_S:
            return False
        # It may have been this process that was busy, and what was said meanwhile be unread.
        return not select.select([self], [], [], 0)[0]

    @property
    def pending(self) -> bool:
        """Whether orders wait for the agent to take them: ``flush`` them every now and then."""
        return self._writer.pending > 0

    def fileno(self) -> int:
        """Readable when events are here or the agent has ended."""
        return self._out.fileno()

    def order(self, do: str, **fields: Any) -> None:
        """Tell the agent, now or as soon as it listens; never blocks.

        One that is gone is passed over: its output ends too, which is where its loss is noticed.
        """
        with suppress(BrokenPipeError, OSError):
            self._writer.write({"do": do, **fields})

    def flush(self) -> None:
        """Pass on what waits, as far as the agent takes it."""
        with suppress(BrokenPipeError, OSError):
            self._writer.flush()

    def read(self) -> list[dict[str, Any]]:
        """Events that are here, but for beats.

        Raises:
            RunFailed: something else writes to the agent's output.
        """
        events = self._reader.read()
        self._heard_s = time.monotonic()
        return [event for event in events if event["is"] != "beat"]

    def meet(self, introduction: Mapping[str, Any]) -> None:
        """Take what is here: the agent's greeting is answered with what it has to know of its host.

        Raises:
            RunFailed: something else writes to the agent's output, or the agent cannot work on its host.
        """
        for event in self.read():
            match event["is"]:
                case "hello":
                    self.facts = {name: value for name, value in event.items() if name != "is"}
                    self.order("host", **introduction)
                case "here":
                    self.facts |= {name: value for name, value in event.items() if name != "is"}
                    self.met = True
                case "refused":
                    raise RunFailed(event["what"])

    def measure_clock(self) -> int:
        """What to add to the agent's monotonic clock to get this process's, in nanoseconds; blocks.

        Half of the shortest round trip of several is the uncertainty, ``facts["clock_error_s"]``. Between
        jobs only: other events are not expected meanwhile.

        Raises:
            RunFailed: the agent does not answer.
        """
        best_ns, offset_ns = None, 0
        for _ in range(_EXCHANGES):
            sent_ns = time.monotonic_ns()
            self.order("time")
            here_ns = self._await_time()
            now_ns = time.monotonic_ns()
            if best_ns is None or now_ns - sent_ns < best_ns:
                best_ns, offset_ns = now_ns - sent_ns, (sent_ns + now_ns) // 2 - here_ns
        assert best_ns is not None
        self.facts["clock_error_s"] = best_ns / 2e9
        return offset_ns

    def _await_time(self) -> int:
        deadline_s = time.monotonic() + SILENCE_S
        while (left_s := deadline_s - time.monotonic()) > 0 and not self.ended:
            if select.select([self], [], [], left_s)[0]:
                for event in self.read():
                    if event["is"] == "time":
                        return int(event["here_ns"])
        raise RunFailed(f"the agent on host {self.name} does not tell its time; look at that host's load")

    def hang_up(self) -> None:
        """Close the agent's input, which ends it and all that it forked; does not wait."""
        self._writer.shut()  # ``Pulse`` goes on
        self._in.close()

    def break_off(self) -> None:
        """End the agent at once, without waiting for its goodwill; ``ended`` is true then."""
        self._reader.ended = True
        self.hang_up()
        self._starter.abandon(self._process)

    def how_it_ended(self) -> str:
        """For people, after ``ended``: exit code or signal, and what was printed last."""
        try:
            status = self._process.wait(_STATUS_S)
        except subprocess.TimeoutExpired:
            self._starter.abandon(self._process)
            return "closed its line"
        how = f"exited with code {status}" if status >= 0 else f"was killed by signal {-status}"
        last = self._last_words()
        return f"{how}; it printed: {last}" if last else how

    def close(self, by_s: float | None = None) -> None:
        """Hang up and wait until the agent has ended; may be called after ``break_off``.

        Args:
            by_s: when an agent that has not ended is ended, on the monotonic clock; None: after 5 s.
        """
        self.hang_up()
        try:
            self._process.wait(END_S if by_s is None else max(0.0, by_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._starter.abandon(self._process)
        self._out.close()
        self._log.close()

    def _last_words(self) -> str:
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - _LAST_BYTES))
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return " / ".join(lines[-_LAST_LINES:])


class Pulse:
    """A thread that lets remote agents know that the launcher lives, whatever its main thread does."""

    def __init__(self, lines: Iterable[Line]) -> None:
        self._lines = [line for line in lines if line.remote]
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="pulse", daemon=True)
        if self._lines:
            self._thread.start()

    def stop(self) -> None:
        """End it; may be called twice."""
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _beat(self) -> None:
        while not self._over.wait(BEAT_S):
            for line in self._lines:
                line.order("beat")
