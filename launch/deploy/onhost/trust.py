"""Whether nobody but this user and root could have put something where it lies, or can change it."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterator
from glob import escape, glob
from typing import TypeAlias

from launch.deploy.onhost.tree import BYTECODE, code_folders

Folders: TypeAlias = Iterator[tuple[str, list[str]]]

_MOST_LINKS = 40
"""As many as Linux follows in one path."""


def distrust(path: str) -> str | None:
    """Why ``path`` may be another user's doing; None: it is not, or there is nothing yet.

    Judged are all that leads to it, links and what they lead to included: each belongs to this user or root;
    who else may write into a folder cannot replace what lies in it, because its sticky bit is set. Into
    ``path`` itself nobody else may write at all.

    Args:
        path: absolute; it may be yet to be made.
    """
    here = "/"
    left = [part for part in path.split("/") if part not in ("", ".")][::-1]
    links = 0
    while True:
        try:
            status = os.lstat(here)
        except OSError as error:
            missing = isinstance(error, FileNotFoundError)
            return None if missing else f"cannot look at {here}: {error.strerror}"
        if (why := _distrust_one(here, status, last=not left)) is not None:
            return why
        if stat.S_ISLNK(status.st_mode):
            links += 1
            if links > _MOST_LINKS:
                return f"{path} leads through links without end"
            left += [part for part in os.readlink(here).split("/") if part not in ("", ".")][::-1]
            here = "/" if os.readlink(here).startswith("/") else os.path.dirname(here)
        if not left:
            if not stat.S_ISLNK(status.st_mode):
                return None
            continue
        part = left.pop()
        here = os.path.dirname(here) if part == ".." else os.path.join(here, part)


def _distrust_one(path: str, status: os.stat_result, *, last: bool) -> str | None:
    """As ``distrust``, of one entry; ``last``: nothing below it is looked at."""
    if status.st_uid not in (0, os.geteuid()):
        return f"{path} belongs to another user (uid {status.st_uid})"
    if stat.S_ISLNK(status.st_mode):  # its mode means nothing
        return None
    sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and (last or not sticky):
        return f"other users may write to {path} (mode {stat.S_IMODE(status.st_mode):04o})"
    return None


def distrust_code(root: str, folders: Callable[[str], Folders] = code_folders) -> str | None:
    """As ``distrust``, of ``root`` and the code in it, bytecode included: what was hashed is what runs."""
    if (why := distrust(root)) is not None:
        return why
    for folder, files in folders(root):
        cache = os.path.join(folder, BYTECODE)
        compiled = [cache, *(entry.path for entry in os.scandir(cache))] if os.path.isdir(cache) else []
        for path in [folder, *(os.path.join(folder, name) for name in files), *compiled]:
            if (why := _distrust_entry(path)) is not None:
                return why
            if os.path.islink(path) and (why := distrust(path)) is not None:
                return why
    return None


def distrust_python(path: str) -> str | None:
    """As ``distrust``, of a Python: the program, all links to it, its settings and folders of packages.

    The Python that runs this is trusted: it was found by the user's own search path.

    Args:
        path: absolute; of an environment's, the link in it.
    """
    real = os.path.realpath(path)
    this = real == os.path.realpath(sys.executable)
    why = distrust(os.path.dirname(path)) or _distrust_entry(path)
    if why is None and not this:
        why = distrust(path) or _distrust_home(os.path.dirname(os.path.dirname(real)))
    return why or (None if this and path == real else _distrust_home(os.path.dirname(os.path.dirname(path))))


def _distrust_entry(path: str) -> str | None:
    try:
        return _distrust_one(path, os.lstat(path), last=True)
    except OSError as error:
        return f"cannot look at {path}: {error.strerror}"


def _distrust_home(root: str) -> str | None:
    """Of the folder that a Python calls its prefix."""
    libraries = os.path.join(escape(root), "lib*", "python3*")
    paths = [root, os.path.join(root, "pyvenv.cfg"), *glob(libraries)]
    paths += glob(os.path.join(libraries, "*-packages"))
    return next((why for path in paths if (why := distrust(path)) is not None), None)
