"""How what a host without the run folder writes gets there: growing files, piece by piece.

Logs are appended to and never rewritten, so what has been sent of a file is a prefix of it. Files that are
written whole have a hidden name, or one ending in ``.part``, until they are complete.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from decentral.disk import unwritable
from decentral.errors import RunFailed
from launch.checkpoints import LIST
from launch.paths import CHECKPOINTS

PIECE_BYTES = 1 << 20
ROUND_BYTES = 2 << 20
"""Most that one round of collecting sends, so that other events are not held up."""


class Collector:
    """The sending end.

    Args:
        folder: a job's folder on this host.
        send: takes the path of a file within the folder, the offset of a piece, and the piece.
    """

    def __init__(self, folder: Path, send: Callable[[str, int, bytes], None]) -> None:
        self._folder = folder
        self._send = send
        self._sent: dict[str, int] = {}

    def known(self, path: str, nbytes: int) -> None:
        """The other end has the first ``nbytes`` of ``path`` already."""
        self._sent[path] = nbytes

    def collect(self) -> bool:
        """Send what has grown, at most about ``ROUND_BYTES``; False where there was nothing.

        Logs go first, then checkpoints as they were made, each with its list last: where the list has
        arrived, so have its files, and the logs as far as the checkpoint goes.
        """
        left = ROUND_BYTES
        for path in sorted(_files(self._folder), key=self._turn):
            name = path.relative_to(self._folder).as_posix()
            for offset, piece in self._grown(path, name):
                self._send(name, offset, piece)
                self._sent[name] = offset + len(piece)
                left -= len(piece)
                if left <= 0:
                    return True
        return left < ROUND_BYTES

    def _turn(self, path: Path) -> tuple[int, int, bool, str]:
        parts = path.relative_to(self._folder).parts
        if parts[0] != CHECKPOINTS or len(parts) < 2:
            return 0, 0, False, str(path)
        number = int(parts[1]) if parts[1].isdecimal() else 0
        return 1, number, parts[-1] == LIST, str(path)

    def _grown(self, path: Path, name: str) -> Iterator[tuple[int, bytes]]:
        try:
            size = path.stat().st_size
            offset = self._sent.get(name)
            if offset is None and not size:
                yield 0, b""
            if offset is not None and size < offset:  # it was begun anew
                offset = 0
            offset = offset or 0
            if size <= offset:
                return
            with path.open("rb") as file:
                file.seek(offset)
                while piece := file.read(PIECE_BYTES):
                    yield offset, piece
                    offset += len(piece)
        except FileNotFoundError:  # removed meanwhile, as old checkpoints are
            return


def _files(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith(".") and not name.endswith(".part"):
                yield Path(parent, name)


def land(folder: Path, host: str, path: str, offset: int, piece: bytes) -> None:
    """The receiving end: put a piece of a file of ``host`` where it belongs in the job's ``folder``.

    Raises:
        RunFailed: the path leads out of the folder, or what is before the piece is missing.
        PreflightError: the file cannot be written; names it.
    """
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\0" in path:
        raise RunFailed(f"the agent on host {host} sent a file {path!r}, which leads out of the run folder")
    target = folder.joinpath(*parts)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("ab") as file:
            size = file.tell()
            if size < offset:
                raise RunFailed(
                    f"the agent on host {host} sent {path} from byte {offset} on and {size} are here; "
                    f"somebody else writes to the run folder"
                )
            if size > offset:
                file.truncate(offset)
            file.write(piece)
    except OSError as error:
        raise unwritable(target, error) from error
