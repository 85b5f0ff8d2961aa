"""What a host has of the code, the packages and the data sets, found without touching any of it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from importlib.util import find_spec
from typing import Any

from launch.deploy.onhost.look import (
    absolute,
    environment_name,
    has_code,
    is_ready,
    libc_version,
    own_versions,
    sees_code,
    this_python,
)


def software(request: dict[str, Any], folder: str) -> dict[str, Any]:
    """What of it is here; ``look`` is what a run learns of it before it brings what is lacking.

    Args:
        request: ``packages versions own given code checkout pins data``.
        folder: where this project's files go.
    """
    own, python = own_versions(request["own"], list(request["versions"])), this_python()
    environment = os.path.join(folder, environment_name(request["pins"], python))
    code = os.path.join(folder, f"code-{request['code']}")
    sees, has = sees_code(request["checkout"], request["code"]), has_code(code, request["code"])
    given = [
        sys.executable,
        list(sys.version_info[:3]),
        {name: _version(name) for name in request["versions"]},
    ]
    folders = {name: absolute(name) if os.path.isdir(absolute(name)) else None for name in request["data"]}
    sent = os.path.join(folder, "data")
    return {
        "packages": {name: _version(name) for name in request["packages"]},
        "environment": "ready" if is_ready(environment) else "absent",
        "own": own is not None and own[2] == request["versions"],
        "code": "shared" if sees else "here" if has else "absent",
        "data": next((path for path in folders.values() if path is not None), None),
        "modules_lacking": [name for name in ("venv", "ensurepip") if find_spec(name) is None],
        "look": {
            "python": python,
            "libc_version": libc_version(),
            "version": platform.python_version(),
            "folder": folder,
            "unsafe": None,
            "problem": None,
            "identity": None,
            "code": code,
            "has_code": has,
            "sees_code": sees,
            "environment": environment,
            "has_environment": is_ready(environment),
            "own": own,
            "given": given if request["given"] else None,
            "data": folders,
            "sent_data": sent if os.path.isdir(sent) else None,
        },
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
