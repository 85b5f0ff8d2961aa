"""Who writes into a folder: a lock on a file in it, which goes with the last process that holds it."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from decentral.disk import unwritable
from decentral.errors import PreflightError

PATIENCE_S = 15.0
"""Nodes of a run whose launcher was killed end within 10 s."""
HELD = ".held"
"""The file: on a disk that machines share, all of them see locks on files, not those on folders."""
_LOOK_EVERY_S = 0.05


class Hold:
    """A lock on a folder until ``let_go`` of this process and the end of those that it forked meanwhile.

    Args:
        folder: which.
        alone: nobody else may hold it; else others may, but nobody alone.
        patience_s: how long to wait for others; None: ``PATIENCE_S``.

    Raises:
        PreflightError: others hold it all the time, or it cannot be written.
    """

    def __init__(self, folder: Path, *, alone: bool, patience_s: float | None = None) -> None:
        try:
            self._fd = os.open(folder / HELD, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise unwritable(folder, error) from error
        kind = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
        deadline_s = time.monotonic() + (PATIENCE_S if patience_s is None else patience_s)
        while True:
            try:
                fcntl.flock(self._fd, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() < deadline_s:
                    time.sleep(_LOOK_EVERY_S)  # the kernel has no lock with a timeout
                    continue
                self.let_go()
                raise PreflightError(
                    f"processes of another session still write into {folder}; wait for their end or end them "
                    f"(decentral stop)"
                ) from None
            except OSError:  # a file system without locks, where nobody can tell
                return
            else:
                return

    def __enter__(self) -> Hold:
        """Held inside the block."""
        return self

    def __exit__(self, *exc: object) -> None:
        """The block is left."""
        self.let_go()

    def let_go(self) -> None:
        """End it; may be called twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
