"""Who writes into a folder: a lock on the folder itself, which goes with the last process that holds it."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from decentral.errors import PreflightError

PATIENCE_S = 15.0
"""Nodes of a run whose launcher was killed end within 10 s."""
_LOOK_EVERY_S = 0.05


class Hold:
    """A lock on a folder until ``let_go`` of this process and the end of those that it forked meanwhile.

    Args:
        folder: which.
        alone: nobody else may hold it; else others may, but nobody alone.
        patience_s: how long to wait for others; None: ``PATIENCE_S``.

    Raises:
        PreflightError: others hold it all the time.
    """

    def __init__(self, folder: Path, *, alone: bool, patience_s: float | None = None) -> None:
        self._fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
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

    def let_go(self) -> None:
        """End it; may be called twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
