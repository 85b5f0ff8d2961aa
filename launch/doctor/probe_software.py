"""What a host has of the code, the packages and the data sets, found without touching any of it."""

from __future__ import annotations

import importlib.metadata
import os
from typing import Any

from launch.deploy.onhost.look import (
    absolute,
    environment_name,
    has_code,
    is_ready,
    own_versions,
    sees_code,
    this_python,
)


def software(request: dict[str, Any], folder: str) -> dict[str, Any]:
    """What of it is here.

    Args:
        request: ``packages versions own code checkout pins data``.
        folder: where this project's files go.
    """
    own = own_versions(request["own"], list(request["versions"]))
    environment = os.path.join(folder, environment_name(request["pins"], this_python()))
    return {
        "packages": {name: _version(name) for name in request["packages"]},
        "environment": "ready" if is_ready(environment) else "absent",
        "own": own is not None and own[2] == request["versions"],
        "code": _code(request, folder),
        "data": next((path for path in map(absolute, request["data"]) if os.path.isdir(path)), None),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _code(request: dict[str, Any], folder: str) -> str:
    """``shared``: the launcher's checkout is seen here; ``here``: a copy of the same code; or ``absent``."""
    if sees_code(request["checkout"], request["code"]):
        return "shared"
    return "here" if has_code(os.path.join(folder, f"code-{request['code']}"), request["code"]) else "absent"
