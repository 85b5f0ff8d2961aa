"""Child processes that carry a line to another host: they die with the launcher and end when told to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

_BOUND = Path(__file__).with_name("bound.py")
_TERM_S = 1.0
_KILL_S = 0.8


def spawn(
    command: Sequence[str],
    *,
    stderr: IO[bytes],
    env: Mapping[str, str] | None = None,
    stdout: IO[bytes] | int = subprocess.PIPE,
) -> subprocess.Popen[bytes]:
    """Start ``command`` in a session of its own, with a pipe to its input, to die with the calling thread.

    A preexec function would do without the detour, but runs Python between fork and exec, which may block for
    ever where other threads hold locks. The kernel's parent-death signal means the thread that forked: call
    this in one that lives as long as the child may.

    Args:
        command: program and arguments; no shell sees them.
        stderr: takes its standard error. A file and no pipe: an ssh that becomes a ControlPersist master
            keeps it open for as long as it likes.
        env: its environment; None: this process's.
        stdout: takes its standard output; a pipe unless given.
    """
    return subprocess.Popen(
        [sys.executable, "-I", "-S", str(_BOUND), str(os.getpid()), *command],
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=stderr,
        env=env,
        start_new_session=True,
    )


def end(*processes: subprocess.Popen[bytes]) -> None:
    """End children of ``spawn`` and what they started (a ProxyCommand), all of them within 2 s.

    A process that the kernel itself holds (a dead network file system) is left to it.
    """
    for number, patience_s in ((signal.SIGTERM, _TERM_S), (signal.SIGKILL, _KILL_S)):
        left = [process for process in processes if process.poll() is None]
        for process in left:
            with suppress(ProcessLookupError, PermissionError):  # before it is the leader of its session
                os.killpg(process.pid, number)
        by_s = time.monotonic() + patience_s
        for process in left:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, by_s - time.monotonic()))
