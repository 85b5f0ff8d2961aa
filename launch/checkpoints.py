"""A job's checkpoints on the disk: a folder each, valid once its list is there and every file is as listed.

::

    checkpoints/12/node-003.ckpt      one per member (decentral.checkpoint.files)
    checkpoints/12/checkpoint.json    written last: names, lengths and checksums, and where logs are cut
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from decentral.checkpoint.files import REMEDY, Written, checked, read
from decentral.checkpoint.words import Saved
from decentral.disk import replace_synced, sync, unwritable
from decentral.errors import CheckpointError
from launch.paths import JobFolder

LIST = "checkpoint.json"
LIST_VERSION = 1


@dataclass(frozen=True)
class Entry:
    """One member's part of a checkpoint.

    Args:
        member: node id, or n for the observer, or n + 1 for the timekeeper.
        name: its file.
        nbytes: length of the file.
        digest: its checksum.
        log: the member's log, relative to the job's folder.
        log_bytes: what of it is older than the checkpoint.
    """

    member: int
    name: str
    nbytes: int
    digest: str
    log: str
    log_bytes: int

    @classmethod
    def of(cls, folder: JobFolder, n: int, saved: Saved) -> Entry:
        """What a member of a job with ``n`` nodes in ``folder`` has saved."""
        log = log_of(folder, saved.member, n)
        return cls(saved.member, saved.name, saved.nbytes, saved.digest, log, saved.log_bytes)

    @property
    def written(self) -> Written:
        """The file as ``decentral.checkpoint.files`` checks it."""
        return Written(self.name, self.nbytes, self.digest)


@dataclass(frozen=True)
class Checkpoint:
    """A list that was read.

    Args:
        folder: where its files are.
        number: 1, 2, ... within the job.
        time_s: the emulated time.
        rounds: local rounds of the slowest node.
        nominal_ns: emulated nominal time of a round, which may have been measured.
        entries: of every member.
    """

    folder: Path
    number: int
    time_s: float
    rounds: int
    nominal_ns: int
    entries: tuple[Entry, ...]

    def read(self, member: int) -> Any:
        """What ``member`` saved.

        Raises:
            CheckpointError: its file is missing or damaged; names it.
        """
        for entry in self.entries:
            if entry.member == member:
                return read(self.folder / entry.name, entry.written)
        raise CheckpointError(f"{self.folder / LIST}: has no file of member {member}")

    def check(self) -> None:
        """Compare every file with the list.

        Raises:
            CheckpointError: one is missing or damaged; names it.
        """
        for entry in self.entries:
            checked(self.folder / entry.name, entry.written)

    def check_logs(self, folder: JobFolder) -> None:
        """Compare the length of every log with what it was.

        Raises:
            CheckpointError: one is shorter, or cannot be looked at; names it.
        """
        for entry in self.entries:
            path = folder.path / entry.log
            try:
                size = path.stat().st_size if path.exists() else 0
            except OSError as error:
                raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
            if size < entry.log_bytes:
                raise CheckpointError(
                    f"{path}: has {size} bytes, the checkpoint was made after {entry.log_bytes}: a part of "
                    f"the log is lost"
                )


def file_name(member: int, n: int) -> str:
    """The file of a member of a job with ``n`` nodes."""
    return {n: "observer.ckpt", n + 1: "timekeeper.ckpt"}.get(member, f"node-{member:03d}.ckpt")


def log_of(folder: JobFolder, member: int, n: int) -> str:
    """The log of a member, relative to the job's folder."""
    path = {n: folder.metrics, n + 1: folder.network}.get(member, folder.node_log(member))
    return str(path.relative_to(folder.path))


def folder_of(folder: JobFolder, number: int) -> Path:
    """Where checkpoint ``number`` of a job is."""
    return folder.checkpoints / str(number)


def commit(
    folder: JobFolder,
    number: int,
    entries: Sequence[Entry],
    *,
    time_s: float,
    rounds: int,
    nominal_ns: int,
    cost: Mapping[str, float] | None = None,
) -> None:
    """All files are on the disk: write the list that makes them a checkpoint.

    Args:
        folder: of the job.
        number: of the checkpoint.
        entries: of every member.
        time_s, rounds, nominal_ns: as of ``Checkpoint``.
        cost: real seconds by what they were spent on; for people.

    Raises:
        PreflightError: the list cannot be written.
    """
    about = {"time_s": time_s, "rounds": rounds, "nominal_ns": nominal_ns, "cost": dict(cost or {})}
    content = {"v": LIST_VERSION, "number": number, **about, "files": [asdict(entry) for entry in entries]}
    path = folder_of(folder, number) / LIST
    text = json.dumps({**content, "digest": _digest(content)}, indent=1)
    try:
        replace_synced(path, [text.encode()])
        for above in (folder.checkpoints, folder.path):
            sync(above)
    except OSError as error:
        raise unwritable(path, error, REMEDY) from error


def numbers(folder: JobFolder) -> list[int]:
    """Checkpoints of which anything is there, whole or not, ascending."""
    if not folder.checkpoints.is_dir():
        return []
    return sorted(int(path.name) for path in folder.checkpoints.iterdir() if path.name.isdecimal())


def newest(folder: JobFolder) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint of which every file is as it was written, and what is wrong with newer ones.

    One without a list was being written when the run ended, which is not wrong.
    """
    problems: list[str] = []
    for number in reversed(numbers(folder)):
        try:
            found = load(folder_of(folder, number))
            if found is None:
                continue
            found.check()
            found.check_logs(folder)
        except CheckpointError as error:
            problems.append(str(error))
        else:
            return found, problems
    return None, problems


def load(folder: Path) -> Checkpoint | None:
    """The list in ``folder``; None if there is none.

    Raises:
        CheckpointError: it is damaged.
    """
    path = folder / LIST
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        digest = content.pop("digest")
        if digest != _digest(content) or content["v"] != LIST_VERSION:
            raise CheckpointError(f"{path}: is damaged, or of another version: its checksum does not fit")
        entries = tuple(Entry(**entry) for entry in content["files"])
        return Checkpoint(
            folder, content["number"], content["time_s"], content["rounds"], content["nominal_ns"], entries
        )
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: is damaged: {error!r}") from error


def cut_logs(folder: JobFolder, checkpoint: Checkpoint) -> None:
    """Take what is younger than the checkpoint off every log: it will be written again.

    Raises:
        CheckpointError: a log is shorter than it was.
        PreflightError: a log cannot be changed.
    """
    checkpoint.check_logs(folder)
    for entry in checkpoint.entries:
        path = folder.path / entry.log
        try:
            if path.exists() and path.stat().st_size > entry.log_bytes:
                os.truncate(path, entry.log_bytes)
        except OSError as error:
            raise unwritable(path, error) from error


def _digest(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
