"""What a host has of what an agent needs."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import secrets
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from launch.deploy.onhost.tree import (
    BYTECODE,
    Refused,
    code_folders,
    code_hash,
    listing,
    plain_folders,
    plain_hash,
)
from launch.deploy.onhost.trust import Folders, distrust, distrust_code, distrust_python

KEPT_S = 30 * 86400
ABANDONED_S = 86400
IDENTITY_S = 3600
"""Longer than hosts take to look after the first of them has."""
_IDENTITY = ".identity"
_KEPT = ("code-", "env-", "parts-")
VERSIONS = (
    "import importlib.metadata as m, json, sys\n"
    "found = {}\n"
    "for name in sys.argv[1:]:\n"
    "    try: found[name] = m.version(name)\n"
    "    except m.PackageNotFoundError: found[name] = None\n"
    "print(json.dumps([list(sys.version_info[:3]), found]))\n"
)
"""Program for another Python: which versions of the packages in its arguments it has."""


def libc() -> str:
    """The family of the C library; packages that are compiled for one do not run on another."""
    return platform.libc_ver()[0] or "other"


def libc_version() -> str:
    """The version of the C library; empty where it does not say."""
    return platform.libc_ver()[1]


def this_python() -> list[str]:
    """What decides whether packages of one Python work in another, beside the C library's version."""
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    build = str(sysconfig.get_config_var("SOABI"))
    return [sys.implementation.name, version, platform.machine(), libc(), build]


def environment_name(pins: str, python: list[str]) -> str:
    """Folder name of the environment with these packages for such a Python.

    An environment has the path of its Python in it, and what pip chose may need this version of the C
    library: hosts that share a folder share an environment only if both are the same.
    """
    exactly = [pins, python, os.path.realpath(sys.executable), libc_version()]
    return "env-" + hashlib.sha256(json.dumps(exactly).encode()).hexdigest()[:16]


def look(request: dict[str, Any]) -> dict[str, Any]:
    """What this host has of what an agent needs; touches what is used, removes what has long not been.

    With modules of the user's own ``parts`` is in the request, and it and ``has_parts`` are in the answer.
    """
    folder, unsafe, problem = open_folder(request["folder"])
    environment = os.path.join(folder, environment_name(request["pins"], this_python()))
    code = os.path.join(folder, request["code"])
    wanted = request.get("parts")
    parts = os.path.join(folder, f"parts-{wanted}")
    if unsafe is None and problem is None:
        _drop_bytecode(code, code_folders)
        if wanted is not None:
            _drop_bytecode(parts, plain_folders)
    code_here, environment_here = has_code(code, request["hash"]), is_ready(environment)
    parts_here = wanted is not None and has_parts(parts, wanted)
    if unsafe is None and problem is None:
        used = [code] * code_here + [environment] * environment_here + [parts] * parts_here
        _sweep(folder, used=used)
    return {
        "python": this_python(),
        "libc_version": libc_version(),
        "version": platform.python_version(),
        "folder": folder,
        "unsafe": unsafe,
        "problem": problem,
        "identity": None if unsafe or problem else _identity(folder, request["run"]),
        "code": code,
        "has_code": code_here,
        **({} if wanted is None else {"parts": parts, "has_parts": parts_here}),
        "sees_code": sees_code(request["checkout"], request["hash"]),
        "environment": environment,
        "has_environment": environment_here,
        "own": None if request["own"] is None else own_versions(request["own"], request["packages"]),
        "given": None if request["given"] is None else _versions(request["given"], request["packages"]),
        "data": {name: absolute(name) if os.path.isdir(absolute(name)) else None for name in request["data"]},
        "sent_data": os.path.join(folder, "data") if os.path.isdir(os.path.join(folder, "data")) else None,
    }


def absolute(path: str) -> str:
    """``path`` with ``~`` expanded; relative ones start in the home folder."""
    return os.path.join(os.path.expanduser("~"), os.path.expanduser(path))


def open_folder(name: str) -> tuple[str, str | None, str | None]:
    """The folder's absolute path, made if need be; and what is wrong with it, if something is.

    Returns:
        The path; why nothing in it can be trusted; why nothing can be put into it.
    """
    folder = absolute(name)
    if ":" in folder:
        problem = f"the folder {folder} has a colon in its name, which no search path of Python can hold"
        return folder, problem, None
    unsafe = distrust(folder)
    if unsafe is None:
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
            with open(os.path.join(folder, f".probe-{secrets.token_hex(8)}"), "xb") as probe:
                os.unlink(probe.name)
        except OSError as error:
            return folder, None, f"cannot write in {folder}: {error.strerror}"
        unsafe = distrust(folder)
    if unsafe is None:
        return folder, None, None
    return (
        folder,
        f"others could change what lies in {folder}: {unsafe}; chmod go-w helps if it is yours",
        None,
    )


def _identity(folder: str, run: str) -> str:
    """The same for all hosts that share ``folder``, another for every other folder.

    Which of them looks first in this run says what it is. Nothing older is believed: a machine that was made
    as a copy of another one has all its files. And a name that nobody has ever looked for is in no network
    file system's memory as one that does not exist.
    """
    path = os.path.join(folder, f"{_IDENTITY}-{run}")
    temporary = f"{path}.{secrets.token_hex(8)}"
    with open(temporary, "w", encoding="ascii") as file:
        file.write(secrets.token_hex(16))
    try:
        now = os.stat(temporary).st_mtime  # by the clock that the others' files are dated by, too
        with suppress(FileExistsError):
            os.link(temporary, path)  # appears whole, and only once
    finally:
        os.unlink(temporary)
    for entry in os.scandir(folder):
        if entry.name.startswith(_IDENTITY):
            with suppress(FileNotFoundError):  # another host does the same
                if now - entry.stat(follow_symlinks=False).st_mtime > IDENTITY_S:
                    os.unlink(entry.path)
    with open(path, encoding="ascii") as file:
        return file.read()


def is_ready(environment: str) -> bool:
    """Whether an environment was completed by this user or root, and its Python is still there."""
    python, mark = os.path.join(environment, "bin", "python"), os.path.join(environment, ".ready")
    if not (os.path.exists(mark) and os.access(python, os.X_OK)):
        return False
    return distrust(mark) is None and distrust_python(python) is None


def has_code(root: str, wanted: str) -> bool:
    """Whether the code in ``root`` hashes to ``wanted``, and nobody but this user and root can change it."""
    try:
        return os.path.isdir(root) and distrust_code(root) is None and code_hash(root) == wanted
    except OSError:
        return False


def has_parts(root: str, wanted: str) -> bool:
    """As ``has_code``, of modules of the user's own."""
    try:
        trusted = os.path.isdir(root) and distrust_code(root, plain_folders) is None
        return trusted and plain_hash(root) == wanted
    except OSError:
        return False


def sees_code(checkout: str, wanted: str) -> bool:
    """Whether the launcher's checkout can be used here, at a path that a search path can hold."""
    return ":" not in checkout and has_code(checkout, wanted)


def _drop_bytecode(root: str, folders: Callable[[str], Folders]) -> None:
    """Remove what was compiled of a copy of code: its hash does not cover it."""
    for folder, _ in folders(root):
        shutil.rmtree(os.path.join(folder, BYTECODE), ignore_errors=True)


def own_versions(python: str, packages: list[str]) -> list[Any] | None:
    """As ``_versions``, of the launcher's Python, if it is here; None also if it is not trusted."""
    return None if distrust_python(python) is not None else _versions(python, packages)


def _versions(python: str, packages: list[str]) -> list[Any] | None:
    """Path, version, packages of a Python; None: it does not run."""
    command = [os.path.expanduser(python), "-P", "-c", VERSIONS, *packages]
    try:
        done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=60, check=True)
        found: list[Any] = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return [os.path.expanduser(python), *found]


def _sweep(folder: str, used: list[str]) -> None:
    """Note the use of what is used; remove what has not been for long, and what a killed set-up left."""
    for path in used:
        with open(os.path.join(path, ".used"), "a", encoding="ascii"):
            os.utime(os.path.join(path, ".used"))
    busy = _environments_of_processes()
    for entry in os.scandir(folder):
        stamp = os.path.join(entry.path, ".used") if entry.name.startswith(_KEPT) else entry.path
        kept_s = ABANDONED_S if entry.name.startswith(".making-") else KEPT_S
        if not entry.name.startswith((*_KEPT, ".making-")) or entry.path in used:
            continue
        with suppress(OSError):
            if time.time() - os.stat(stamp).st_mtime > kept_s and entry.path.encode() not in busy:
                shutil.rmtree(entry.path, ignore_errors=True)


def _environments_of_processes() -> bytes:
    """The command lines and environments of this user's processes, in which agents carry their folders."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdecimal():
            for part in ("environ", "cmdline"):
                with suppress(OSError), open(f"/proc/{name}/{part}", "rb") as file:
                    found.append(file.read())
    return b"\n".join(found)


def compare_data(request: dict[str, Any]) -> dict[str, Any]:
    """What the data folder holds; and whether this host sees the same files at the launcher's path."""
    folder, unsafe, problem = open_folder(request["folder"])
    target = os.path.join(folder, "data")
    seen = os.path.isdir(request["source"]) and listing(request["source"]) == request["files"]
    if (unsafe or problem) is not None and not seen:
        raise Refused(str(unsafe or problem))
    return {"folder": target, "seen": seen, "files": listing(target)}


def wait(request: dict[str, Any]) -> dict[str, Any]:
    """Wait until this host sees what another one put into the folder that they share."""
    end = time.monotonic() + request["patience_s"]
    while not os.path.exists(request["path"]):
        if time.monotonic() > end:
            raise Refused(f"{request['path']} does not appear in the folder that it shares with another host")
        time.sleep(0.2)  # a network file system tells nobody what others do
    return {}
