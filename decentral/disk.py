"""Files that are whole or not there, also after a power cut; the error for those that cannot be written."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from decentral.errors import PreflightError


def replace_synced(path: Path, pieces: Iterable[bytes | memoryview]) -> None:
    """Write ``pieces`` one after the other; after this returns the file survives a power cut.

    Raises:
        OSError: it cannot be written; ``path`` is as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise
    sync(path.parent)


def make_synced(folder: Path) -> None:
    """Make ``folder`` and what lacks above it; all of them survive a power cut, with what is synced in them.

    Raises:
        OSError: it cannot be made.
    """
    lacking = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in reversed(lacking):
        sync(each.parent)


def sync(path: Path) -> None:
    """The contents of a file, or what was made or renamed in a folder, survive a power cut.

    Raises:
        OSError: it cannot be opened, or the disk fails.
    """
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def unwritable(path: Path, error: OSError, also: str = "") -> PreflightError:
    """The error for a file or folder that cannot be written; ``also`` is what else may be done about it."""
    return PreflightError(
        f"cannot write {path}: {error.strerror}; free space or choose another folder with --out{also}"
    )
