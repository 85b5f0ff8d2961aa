"""``decentral logs``: the logs of one job of a run, their last lines, and what is added to them."""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from decentral.errors import ConfigError
from launch.paths import JobFolder
from launch.runs import Seen, look

LOOK_EVERY_MS = 250
_BLOCK = 1 << 16


def current_job(seen: Seen) -> Mapping[str, Any]:
    """The manifest's entry of the job that runs, or else of the last that was started.

    Raises:
        ConfigError: none was.
    """
    entries = seen.manifest.get("jobs", [])
    live = (seen.live or {}).get("job")
    if live is not None and seen.lives:
        for entry in entries:
            if (entry["arm"], entry["seed"]) == (live["arm"], live["seed"]):
                return dict(entry)
    started = [entry for entry in entries if _folder(seen, entry).path.is_dir()]
    if not started:
        raise ConfigError(f"{seen.name} has no logs yet: none of its jobs has begun; look again later")
    return dict(started[-1])


def _folder(seen: Seen, entry: Mapping[str, Any]) -> JobFolder:
    relative = PurePosixPath(str(entry["folder"]))
    if relative.is_absolute() or ".." in relative.parts:
        raise ConfigError(f"{seen.name}: manifest.json names a job folder outside the run: {relative}")
    return JobFolder(seen.folder / relative)


def log_files(seen: Seen, whose: str | None) -> list[Path]:
    """The files of the current job that ``whose`` names; while it runs they may not be there yet.

    Args:
        seen: the run.
        whose: a node's number, a host's name, ``observer`` or ``timekeeper``; None: what the processes of
            every host printed.

    Raises:
        ConfigError: the job has no such log.
    """
    folder = _folder(seen, current_job(seen))
    hosts = sorted(path.stem for path in folder.log("x").parent.glob("*.log"))
    if whose is None:
        return [folder.log(host) for host in hosts]
    if whose == "observer":
        return [folder.metrics]
    if whose == "timekeeper":
        return [folder.network]
    if whose.isdecimal():
        path = folder.node_log(int(whose))
        if path.exists() or int(whose) < _nodes_to_come(seen):
            return [path]
    elif whose in hosts or whose in _hosts_to_come(seen):
        return [folder.log(whose)]
    nodes = sorted(
        int(path.stem) for path in folder.node_log(0).parent.glob("*.jsonl") if path.stem.isdecimal()
    )
    has = f"nodes {nodes[0]} to {nodes[-1]}" if nodes else "no nodes"
    raise ConfigError(
        f"{whose!r} has no log in {folder.path}: it has {has}, hosts {', '.join(hosts) or 'none'}, "
        "observer and timekeeper"
    )


def _nodes_to_come(seen: Seen) -> int:
    """How many nodes the job that runs has, though they may have begun no log yet."""
    job = seen.live.get("job") if seen.live is not None and seen.lives else None
    return 0 if job is None else len(job["rounds"])


def _hosts_to_come(seen: Seen) -> set[str]:
    """Hosts of a run that lives, which may not have printed anything in this job yet."""
    return {str(host["host"]) for host in seen.hosts} if seen.lives else set()


def tail(path: Path, count: int) -> tuple[list[str], int]:
    """The last ``count`` whole lines of a file, and where they end; nothing of a file that is absent."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            data, start = b"", end
            while start > 0 and data.count(b"\n") <= count:
                start = max(0, start - _BLOCK)
                file.seek(start)
                data = file.read(end - start)
    except FileNotFoundError:
        return [], 0
    whole, newline, rest = data.rpartition(b"\n")
    listed = whole.decode("utf-8", errors="replace").split("\n") if newline else []
    return listed[max(0, len(listed) - count) :], end - len(rest)


@dataclass
class Follower:
    """Prints lines as they are added to the logs of a run, whichever job runs, until it ends.

    Args:
        whose: see ``log_files``.
        count: how many of the last lines each file begins with.
        say: prints a line.
    """

    whose: str | None
    count: int
    say: Callable[[str], None]
    _places: dict[Path, int] = field(default_factory=dict)
    _last: Path | None = None

    def show(self, seen: Seen) -> None:
        """The last lines of every file, or what was added to it since."""
        files = log_files(seen, self.whose)
        for path in files:
            if path in self._places:
                listed, self._places[path] = _added(path, self._places[path])
            else:
                listed, self._places[path] = tail(path, self.count)
            self._print(path, listed, several=len(files) > 1)

    def follow(self, seen: Seen) -> Seen:
        """Show until the run has ended; returns how it then is."""
        with _ending(seen) as ended:
            while True:
                over = ended(LOOK_EVERY_MS)
                seen = look(seen.folder)
                with suppress(ConfigError):  # a job that ended before it had such a log; the next may have it
                    self.show(seen)
                if over or not seen.lives:
                    return seen

    def _print(self, path: Path, listed: Sequence[str], *, several: bool) -> None:
        if listed and path != self._last and (several or self._last is not None):
            self.say(f"==> {path} <==")
        if listed:
            self._last = path
        for line in listed:
            self.say(line)


def _added(path: Path, place: int) -> tuple[list[str], int]:
    try:
        with path.open("rb") as file:
            file.seek(place)
            data = file.read()
    except FileNotFoundError:
        return [], 0
    whole, newline, _ = data.rpartition(b"\n")
    if not newline:
        return [], place
    return whole.decode("utf-8", errors="replace").split("\n"), place + len(whole) + 1


@contextmanager
def _ending(seen: Seen) -> Iterator[Callable[[int], bool]]:
    """A function that waits so many ms at most for the launcher to end, and says whether it has."""
    opened = seen.launcher.opened() if seen.launcher is not None else None
    poll = select.poll()
    if opened is None:
        yield lambda wait_ms: bool(poll.poll(wait_ms))
        return
    with opened as pidfd:
        if pidfd is not None:
            poll.register(pidfd, select.POLLIN)
        yield lambda wait_ms: bool(poll.poll(wait_ms))
