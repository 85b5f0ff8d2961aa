"""Takes what is sent, checks it, and only then gives it its name."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

from launch.deploy.onhost.look import absolute, environment_name, has_code, has_parts, is_ready, this_python
from launch.deploy.onhost.tree import Refused, unpack

_COMPILE = """
import importlib.util, os, py_compile, sys
for module in list(sys.modules.values()):
    source = getattr(module, "__file__", None) or ""
    if source.startswith(os.path.join(sys.prefix, "")) and source.endswith(".py"):
        if not os.path.exists(importlib.util.cache_from_source(source)):
            py_compile.compile(source)
"""
"""Compiles what was imported of the environment, and nothing of the code."""


def code(request: dict[str, Any], payload: IO[bytes]) -> dict[str, Any]:
    """Take the code into its folder; checked before it appears there."""
    folder, wanted = request["folder"], request["hash"]
    with _making(folder, request["name"], request["bytes"], lambda path: has_code(path, wanted)) as temporary:
        unpack(payload, temporary, request["files"])
        if not has_code(temporary, wanted):
            raise Refused("the code that arrived is not the code that was sent")
    return {}


def parts(request: dict[str, Any], payload: IO[bytes]) -> dict[str, Any]:
    """As ``code``, of modules of the user's own."""
    folder, wanted = request["folder"], request["hash"]
    with _making(
        folder, request["name"], request["bytes"], lambda path: has_parts(path, wanted)
    ) as temporary:
        unpack(payload, temporary, request["files"])
        if not has_parts(temporary, wanted):
            raise Refused("the modules that arrived are not those that were sent")
    return {}


def environment(request: dict[str, Any], payload: IO[bytes]) -> dict[str, Any]:
    """Make a private environment, of packages that are sent or that pip finds; checked before it appears."""
    target = environment_name(request["pins"], this_python())
    with _making(request["folder"], target, request["bytes"], is_ready, mark=request["by"]) as temporary:
        python = os.path.join(temporary, "bin", "python")
        if request["by"] == "copy":
            _tool("making an environment", [sys.executable, "-I", "-m", "venv", "--without-pip", temporary])
            version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
            unpack(payload, os.path.join(temporary, "lib", version, "site-packages"), request["files"])
        else:
            _tool("making an environment", [sys.executable, "-I", "-m", "venv", temporary])
            constraints = os.path.join(temporary, "constraints.txt")
            with open(constraints, "w", encoding="utf-8") as file:
                file.write(request["constraints"])
            install = ["-I", "-m", "pip", "install", "--no-input", "--quiet", "--disable-pip-version-check"]
            _tool(
                "pip (it needs a package index that this host can reach; or set python = ... for this host)",
                [python, *install, "--constraint", constraints, *request["requirements"]],
            )
        search = {"PYTHONPATH": request["code"], "PYTHONSAFEPATH": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        what = "importing what was installed (set python = ... for this host to one that has the packages)"
        _tool(what, [python, "-c", f"{request['check']}\n{_COMPILE}"], search)
    return {}


def data(request: dict[str, Any], payload: IO[bytes]) -> dict[str, Any]:
    """Take files of data sets, each replaced at once, so that who reads the old one goes on reading it."""
    target = os.path.join(absolute(request["folder"]), "data")
    os.makedirs(target, exist_ok=True)
    _check_space(target, request["bytes"])
    unpack(payload, target, request["files"])
    return {"folder": target}


@contextmanager
def _making(
    folder: str, name: str, size: int, good: Callable[[str], bool], mark: str | None = None
) -> Iterator[str]:
    """A folder to fill, which becomes ``folder/name`` at the end.

    Several runs may do this at once: who is first wins, and the others take what is there if it is ``good``.
    With ``mark`` it gets a file ``.ready`` that says so, once all else is on the disk.
    """
    _check_space(folder, size)
    temporary = os.path.join(folder, f".making-{name}-{secrets.token_hex(8)}")
    target = os.path.join(folder, name)
    os.mkdir(temporary, 0o700)
    try:
        yield temporary
        with open(os.path.join(temporary, ".used"), "w", encoding="ascii"):
            pass
        os.sync()  # before the name and the mark say that all is there
        if mark is not None:
            with open(os.path.join(temporary, ".ready"), "w", encoding="ascii") as file:
                file.write(mark)
        if os.path.isdir(target) and not good(target):  # somebody cleaned up there
            if os.path.exists(os.path.join(target, ".ready")):  # complete, for some host and run
                raise Refused(
                    f"{target} is complete and yet of no use here; see that it and the Python that it leads "
                    f"to belong to you or root and that nobody else may write there, or remove it"
                )
            with suppress(FileNotFoundError):
                os.rename(target, f"{temporary}-damaged")
        try:
            os.rename(temporary, target)
        except OSError:
            if not good(target):
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(f"{temporary}-damaged", ignore_errors=True)


def _check_space(folder: str, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < size:
        raise Refused(f"{folder} has {free >> 20} MiB free and {size >> 20} MiB are needed")


def _tool(what: str, command: list[str], also: dict[str, str] | None = None) -> None:
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **(also or {})},
        start_new_session=True,
    ) as tool:
        try:
            said, _ = tool.communicate()
        except BaseException:
            # venv and pip start others, which would go on and fill what is about to be removed.
            with suppress(ProcessLookupError):
                os.killpg(tool.pid, signal.SIGKILL)
            raise
    if tool.returncode != 0:
        last = said.decode(errors="replace").strip().splitlines()[-6:]
        raise Refused("\n".join([f"{what} failed:", *last]))
