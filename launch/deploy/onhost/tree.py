"""Files: which of them are the code, what they hash to, how they are unpacked."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
import stat
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import IO

CODE_FOLDERS = ("decentral", "nodes", "topologies", "launch", "results")
CODE_FILES = ("setup.cfg", "pyproject.toml", "constraints.txt")
CODE_SUFFIXES = (".css", ".html", ".j2", ".js", ".json", ".py", ".sbatch", ".sh", ".toml", ".txt")
BYTECODE = "__pycache__"
_RUN = "manifest.json"
_RUNS = "runs"


class Refused(Exception):
    """What was asked cannot be done here; the message is for the user."""


def code_paths(root: str) -> Iterator[str]:
    """The files that are the code, relative to ``root``, sorted; no tests, no caches, nothing of runs."""
    found = [name for name in CODE_FILES if os.path.isfile(os.path.join(root, name))]
    for folder, files in code_folders(root):
        found += [os.path.relpath(os.path.join(folder, name), root) for name in files]
    yield from sorted(found)


def code_folders(root: str) -> Iterator[tuple[str, list[str]]]:
    """The folders that hold code, and which of their files are code."""
    for package in CODE_FOLDERS:
        top = os.path.join(root, package)
        for folder, folders, files in os.walk(top):
            if _RUN in files:  # somebody's --out lies among the code
                folders.clear()
                continue
            folders[:] = [name for name in folders if name != BYTECODE and not name.startswith(".")]
            if package == "results" and folder == top and _RUNS in folders:
                folders.remove(_RUNS)
            yield (
                folder,
                [name for name in files if name.endswith(CODE_SUFFIXES) and not name.startswith(".")],
            )


def code_hash(root: str) -> str:
    """Hash over names and contents of ``code_paths``."""
    return files_hash((path, os.path.join(root, path)) for path in code_paths(root))


def files_hash(files: Iterable[tuple[str, str]]) -> str:
    """Hash over names and contents of ``files``: name, and path here."""
    total = hashlib.sha256()
    for name, path in files:
        with open(path, "rb") as file:
            content = file.read()
        total.update(json.dumps([name, len(content)]).encode() + content)
    return total.hexdigest()[:16]


def plain_folders(root: str) -> Iterator[tuple[str, list[str]]]:
    """The folders below ``root``, itself first, and their files; nothing hidden, no bytecode."""
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name != BYTECODE and not name.startswith(".")]
        yield folder, [name for name in files if not name.startswith(".") and not name.endswith(".pyc")]


def plain_paths(root: str) -> list[str]:
    """The files of ``plain_folders``, relative to ``root``, sorted."""
    return sorted(
        os.path.relpath(os.path.join(folder, name), root)
        for folder, files in plain_folders(root)
        for name in files
    )


def plain_hash(root: str) -> str:
    """As ``code_hash``, of ``plain_paths``."""
    return files_hash((path, os.path.join(root, path)) for path in plain_paths(root))


def listing(root: str) -> dict[str, list[int]]:
    """Size and modification time (whole seconds) of every file below ``root``, by relative path.

    Raises:
        Refused: a link leads back to a folder that it lies in.
        OSError: something cannot be looked at.
    """
    found: dict[str, list[int]] = {}
    if os.path.isdir(root):
        _list_into(found, root, "", ())
    return found


def _list_into(
    found: dict[str, list[int]], root: str, inner: str, above: tuple[tuple[int, int], ...]
) -> None:
    folder = os.path.join(root, inner)
    status = os.stat(folder)
    this = status.st_dev, status.st_ino
    if this in above:
        raise Refused(f"{folder} is a link that leads back to a folder that holds it; remove it")
    for name in os.listdir(folder):
        path = os.path.join(inner, name)
        try:
            status = os.stat(os.path.join(root, path))
        except FileNotFoundError:  # a link that leads nowhere
            continue
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            raise Refused(f"{os.path.join(root, path)} is a link that leads to itself; remove it") from None
        if stat.S_ISDIR(status.st_mode):
            _list_into(found, root, path, (*above, this))
        else:
            found[path] = [status.st_size, int(status.st_mtime)]


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
