"""Private folders that go when their owner goes, also one that was killed."""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import tempfile
from pathlib import Path

_LOCK = ".lock"


class PrivateFolder:
    """A new folder, mode 0700, that only its owner's user may enter.

    Its owner and all that the owner forks hold a lock in it. When all of them are gone, the next
    ``PrivateFolder`` of the same host and user beside it removes it. On a disk that hosts share, a host
    leaves the folders of others alone: their locks may not be seen from here.

    Args:
        parent: made if it is missing.
        prefix: of its name; folders with other prefixes are never touched.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, parent: Path, prefix: str) -> None:
        parent.mkdir(parents=True, exist_ok=True)
        ours = f"{prefix}{_host()}-"
        _sweep(parent, ours)
        # Locked before it has the name by which it could be taken for one that was left behind.
        made = Path(tempfile.mkdtemp(prefix=f".{ours}", dir=parent))
        # Exclusive among open files, not processes: forked members keep it with the descriptor.
        self._lock = os.open(made / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.path = made.rename(made.with_name(made.name[1:]))

    def remove(self) -> None:
        """Remove it with all that is in it; may be called twice."""
        if self._lock >= 0:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._lock)
            self._lock = -1


def _host() -> str:
    """A short name of this host."""
    return hashlib.blake2b(platform.node().encode(), digest_size=4).hexdigest()


def _sweep(parent: Path, ours: str) -> None:
    """Remove folders of this host and user whose owners are all gone."""
    for folder in parent.glob(f"{ours}*"):
        try:
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:  # another user's, or one that is being removed
            continue
        try:
            if os.fstat(lock).st_uid == os.geteuid():
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # its owner lives
            continue
        finally:
            os.close(lock)
