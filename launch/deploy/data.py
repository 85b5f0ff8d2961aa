"""Data sets to a host: the files that it lacks or has otherwise."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from launch.deploy.archive import write_archive
from launch.deploy.line import FOLDER, Lines, limit_s

if TYPE_CHECKING:
    from launch.hosts import Host

_COMPARE_S = 300.0


class Sent(NamedTuple):
    """Where the data sets lie on a host, and how many bytes were sent for that."""

    folder: str
    size: int


def send_data(lines: Lines, source: Path, files: dict[str, list[int]], host: Host) -> Sent:
    """Make ``<folder>/data`` on ``host`` hold what ``source`` holds here.

    A file is taken for the same if size and time of modification are. Files that are only there stay.
    Nothing is sent to a host that sees the same files at the path of ``source``.

    Args:
        lines: to the hosts.
        source: the folder here, absolute.
        files: its files (``onhost.tree.listing``).
        host: where.

    Raises:
        HostFailure: it cannot be done; says why.
    """
    folder = host.folder or FOLDER
    request = {"do": "compare_data", "folder": folder, "source": str(source), "files": files}
    answer = lines.ask(host, "comparing the data sets", request, _COMPARE_S)
    if answer["seen"]:
        return Sent(str(source), 0)
    there = answer["files"]
    differ = [name for name, status in files.items() if there.get(name) != status]
    size = sum(files[name][0] for name in differ)
    if differ:
        files_of = {"do": "data", "folder": folder, "files": len(differ), "bytes": size}
        payload = partial(write_archive, files=[(name, source / name) for name in differ])
        lines.ask(host, "copying the data sets", files_of, limit_s(size), payload)
    return Sent(answer["folder"], size)
