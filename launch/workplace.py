"""What one job has of one host: where its members write, where their sockets are, and cores of their own."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from decentral.transports.wire import timekeeper_address
from launch.collect import Collector, land
from launch.cores import TakenCores, pinned
from launch.holding import Hold
from launch.scratch import PrivateFolder


class Workplace:
    """Where a job's members write: the run folder if this host sees it, else a private folder of this host.

    Args:
        folder: the job's, where the launcher has it.
        probe: path and text of a file there, which tells whether this host sees it.
        base: this host's own folder.
        remote: whether the launcher is elsewhere; if not, it is the same disk.
        send: takes path, offset and content of what grows in a private folder.

    Attributes:
        folder: where members write.
        apart: whether that is a private folder.
        sockets: where their sockets are.

    Raises:
        OSError, PreflightError: a folder cannot be made or is in use.
    """

    def __init__(
        self,
        folder: Path,
        probe: Mapping[str, str],
        base: Path,
        *,
        remote: bool,
        send: Callable[[str, int, bytes], None],
    ) -> None:
        self.folder = folder
        self.sockets: Path | None = None
        self._private: list[PrivateFolder] = []
        self._cores = TakenCores()
        self._collector: Collector | None = None
        self.apart = remote and not _holds(probe)
        if self.apart:
            self.folder = self._make(base / "scratch", "job-")
            self._collector = Collector(self.folder, send)
        self._hold = Hold(self.folder, alone=False)

    def make_sockets(self) -> Path:
        """The folder of sockets: short, as their paths are limited to 107 bytes, and for this user only.

        Raises:
            OSError: it cannot be made.
            PreflightError: the longest of those paths would be too long.
        """
        self.sockets = self._make(Path(tempfile.gettempdir()), "decentral-")
        timekeeper_address(self.sockets)
        return self.sockets

    def pin(self, indices: Sequence[int | None]) -> list[int | None]:
        """The core of each member, which no other job on this host has until ``leave``; see ``pinned``."""
        return pinned(indices, self._cores)

    def put(self, host: str, order: Mapping[str, Any]) -> None:
        """Take in a piece of a file that the launcher has.

        Raises:
            RunFailed, PreflightError: as ``land``.
        """
        land(self.folder, host, order["path"], order["offset"], order["data"])
        if self._collector is not None:
            self._collector.known(order["path"], order["offset"] + len(order["data"]))

    def collect(self) -> bool:
        """Send some of what has grown; False if there was nothing."""
        return self._collector is not None and self._collector.collect()

    def leave(self) -> None:
        """Remove what is of this host alone; may be called twice."""
        self._hold.let_go()
        self._cores.release()
        for folder in self._private:
            folder.remove()
        self._private.clear()

    def _make(self, parent: Path, prefix: str) -> Path:
        made = PrivateFolder(parent, prefix)
        self._private.append(made)
        return made.path


def _holds(probe: Mapping[str, str]) -> bool:
    """Whether a file says here what the launcher says that it said there."""
    try:
        return Path(probe["path"]).read_text(encoding="utf-8") == probe["text"]
    except (OSError, UnicodeDecodeError):
        return False
