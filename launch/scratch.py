"""Private folders that go when their owner goes, also one that was killed."""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import stat
import tempfile
import time
from contextlib import suppress
from pathlib import Path

_LOCK = ".lock"
NAMED_WITHIN_S = 600.0
"""A folder has its lock and its name a moment after it was made, however busy the machine."""


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
            _remove(self.path)
            os.close(self._lock)
            self._lock = -1


def _host() -> str:
    """A short name of this host."""
    return hashlib.blake2b(platform.node().encode(), digest_size=4).hexdigest()


def _sweep(parent: Path, ours: str) -> None:
    """Remove folders of this host and user whose owners are all gone."""
    for folder in parent.glob(f"{ours}*"):
        if _abandoned(folder):
            _remove(folder)
    for folder in parent.glob(f".{ours}*"):  # of an owner that was killed before its folder had its name
        with suppress(OSError):
            if time.time() - folder.stat().st_mtime > NAMED_WITHIN_S and _abandoned(folder):
                _remove(folder)


def _abandoned(folder: Path) -> bool:
    """Whether ``folder`` is this user's, and nobody holds its lock."""
    try:
        about = folder.lstat()
        if about.st_uid != os.geteuid() or not stat.S_ISDIR(about.st_mode):
            return False
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:  # it has had one: whoever was removing it was killed, or is about to be done
        return True
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # its owner lives
        return False
    finally:
        os.close(lock)
    return True


def _remove(folder: Path) -> None:
    """Remove a folder, its lock last: as long as anything else is left, it says whether the owner lives."""
    with suppress(OSError):  # another may be removing it too
        for path in folder.iterdir():
            if path.name != _LOCK:
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
