"""Processes that are known by number and start time, so that nobody else is ever signalled."""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path

END_S = 10.0


def start_time(pid: int) -> int | None:
    """When ``pid`` started, in clock ticks; None where it is gone or only waits to be reaped."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="latin-1").rpartition(") ")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def note(path: Path, pid: int) -> None:
    """Write ``pid`` and its start time to ``path``, at once or not at all."""
    new = path.with_suffix(".new")
    new.write_text(f"{pid} {start_time(pid)}\n", encoding="ascii")
    new.rename(path)


def noted(path: Path) -> int | None:
    """The process noted in ``path``; None where there is no note or that process has ended."""
    try:
        pid, started = path.read_text(encoding="ascii").split()
    except FileNotFoundError:
        return None
    return int(pid) if str(start_time(int(pid))) == started else None


def end(path: Path, number: signal.Signals = signal.SIGKILL) -> None:
    """Signal the process noted in ``path``, wait until it has ended, and remove the note.

    Raises:
        TimeoutError: it still runs after ``END_S`` seconds.
    """
    pid = noted(path)
    if pid is not None:
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            path.unlink(missing_ok=True)
            return
        try:
            if noted(path) == pid:  # the number was not given to somebody else meanwhile
                signal.pidfd_send_signal(handle, number)
                poll = select.poll()
                poll.register(handle, select.POLLIN)
                if not poll.poll(END_S * 1000):
                    raise TimeoutError(f"process {pid} ({path.name}) survived {number.name} for {END_S} s")
        finally:
            os.close(handle)
    path.unlink(missing_ok=True)
