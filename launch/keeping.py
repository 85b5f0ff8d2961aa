"""Which of a job's checkpoints are kept, and that those are on the disk."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from decentral.checkpoint.files import REMEDY
from decentral.disk import sync, unwritable
from decentral.errors import CheckpointError
from launch.checkpoints import LIST, Checkpoint, folder_of, load, numbers
from launch.paths import JobFolder

KEPT = 2
"""Checkpoints that are kept: the newest, and the one before it in case the newest is damaged."""


def last_whole(folder: JobFolder) -> list[Checkpoint]:
    """The last ``KEPT`` of which list and files are here, by their lengths, and the logs; oldest first."""
    found: list[Checkpoint] = []
    for number in reversed(numbers(folder)):
        whole = _if_whole(folder, number)
        if whole is not None:
            found.insert(0, whole)
        if len(found) == KEPT:
            break
    return found


def forget_old(folder: JobFolder, kept: Sequence[Checkpoint]) -> int:
    """Remove what is older than the ``KEPT`` checkpoints that are ``kept``, unless there are fewer of them.

    Returns:
        The least number that is kept; 0 if all are.
    """
    if len(kept) < KEPT:
        return 0
    least = kept[0].number
    for old in numbers(folder):
        if old < least:
            shutil.rmtree(folder_of(folder, old), ignore_errors=True)
    return least


def _if_whole(folder: JobFolder, number: int) -> Checkpoint | None:
    try:
        found = load(folder_of(folder, number))
        if found is None:
            return None
        found.check_logs(folder)
        paths = [(found.folder / entry.name, entry.nbytes) for entry in found.entries]
        return found if all(path.stat().st_size == nbytes for path, nbytes in paths) else None
    except (OSError, CheckpointError):
        return None


def make_sure(folder: JobFolder, checkpoint: Checkpoint) -> None:
    """A checkpoint that other hosts sent, and the logs that belong to it, survive a power cut from now on.

    Raises:
        PreflightError: the disk fails.
    """
    files = [checkpoint.folder / LIST, *(checkpoint.folder / entry.name for entry in checkpoint.entries)]
    logs = [folder.path / entry.log for entry in checkpoint.entries]
    there = [*files, *(log for log in logs if log.exists())]  # one may not have been begun
    above = {folder.path, folder.checkpoints, *(path.parent for path in there)}
    try:
        for path in (*there, *sorted(above)):
            sync(path)
    except OSError as error:
        raise unwritable(checkpoint.folder, error, REMEDY) from error
