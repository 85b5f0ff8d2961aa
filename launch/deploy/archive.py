"""Tar archives that are written while they are sent."""

from __future__ import annotations

import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Literal

_BUFFER = 1 << 20


def write_archive(stream: IO[bytes], files: Iterable[tuple[str, Path]], *, packed: bool = False) -> None:
    """Write files as a tar archive to ``stream``, which needs no seeking.

    Args:
        stream: takes the archive.
        files: name in the archive, and path here; what a link leads to is sent in its place.
        packed: compress it. Bulk data is sent as it is: compressing it takes longer than a local network
            does; for a slow one there is ssh's ``-C``.

    Raises:
        OSError: a file cannot be read.
    """
    mode: Literal["w|gz", "w|"] = "w|gz" if packed else "w|"
    with tarfile.open(fileobj=stream, mode=mode, dereference=True, bufsize=_BUFFER) as archive:
        for name, path in files:
            with path.open("rb") as file:
                member = archive.gettarinfo(arcname=name, fileobj=file)
                member.uname = member.gname = ""
                archive.addfile(member, file)
