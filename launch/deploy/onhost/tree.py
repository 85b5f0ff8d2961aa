"""Files: which of them are the code, what they hash to, how they are unpacked."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from typing import IO

CODE_FOLDERS = ("decentral", "nodes", "topologies", "launch", "results")
CODE_FILES = ("setup.cfg", "pyproject.toml", "constraints.txt")
NOT_CODE = ("__pycache__", "runs")


class Refused(Exception):
    """What was asked cannot be done here; the message is for the user."""


def code_paths(root: str) -> Iterator[str]:
    """The files that are the code, relative to ``root``, sorted; tests, runs and caches are none."""
    found = [name for name in CODE_FILES if os.path.isfile(os.path.join(root, name))]
    for package in CODE_FOLDERS:
        for folder, folders, files in os.walk(os.path.join(root, package)):
            folders[:] = [name for name in folders if name not in NOT_CODE and not name.startswith(".")]
            found += [
                os.path.relpath(os.path.join(folder, name), root)
                for name in files
                if not name.endswith((".pyc", "~")) and not name.startswith(".")
            ]
    yield from sorted(found)


def code_hash(root: str) -> str:
    """Hash over names and contents of ``code_paths``."""
    total = hashlib.sha256()
    for path in code_paths(root):
        with open(os.path.join(root, path), "rb") as file:
            content = file.read()
        total.update(json.dumps([path, len(content)]).encode() + content)
    return total.hexdigest()[:16]


def listing(root: str) -> dict[str, list[int]]:
    """Size and modification time (whole seconds) of every file below ``root``, by relative path."""
    found = {}
    for folder, _, files in os.walk(root, followlinks=True):
        for name in files:
            path = os.path.join(folder, name)
            with suppress(FileNotFoundError):  # a link that leads nowhere
                status = os.stat(path)
                found[os.path.relpath(path, root)] = [status.st_size, int(status.st_mtime)]
    return found


def unpack(payload: IO[bytes], target: str, files: int) -> None:
    """Unpack an archive of regular files below ``target``, each appearing whole.

    Raises:
        Refused: it is cut short, or holds something else.
    """
    count = 0
    with tarfile.open(fileobj=payload, mode="r|*", bufsize=1 << 20) as archive:
        for member in archive:
            source = archive.extractfile(member) if member.isreg() else None
            if source is None:
                raise Refused(f"{member.name} in the archive is no file")
            path = inside(target, member.name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            temporary = f"{path}.{secrets.token_hex(4)}~"
            try:
                with open(temporary, "xb") as file:
                    shutil.copyfileobj(source, file, 1 << 20)
                os.chmod(temporary, member.mode & 0o755 | 0o600)
                os.utime(temporary, (member.mtime, member.mtime))
                os.replace(temporary, path)
            except BaseException:
                with suppress(OSError):
                    os.unlink(temporary)
                raise
            count += 1
    if count != files:
        raise Refused(f"{count} files of {files} arrived")


def inside(target: str, name: str) -> str:
    path = os.path.normpath(os.path.join(target, name))
    if not path.startswith(os.path.join(target, "")):
        raise Refused(f"{name} lies outside of the folder that is to hold it")
    return path
