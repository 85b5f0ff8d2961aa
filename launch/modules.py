"""Modules of the user's own on one host: found, compared with the launcher's, imported."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from decentral.errors import PreflightError
from launch.parts import IMPORT_FAILURES

SEARCH_VARIABLE = "DECENTRAL_MODULES"
"""Environment variable of an agent: JSON list of folders in which modules are looked for last."""
MOST_BYTES = 8 << 20
"""Of a module that is sent: what is larger is data or a whole library."""
_COMPILED = (".so", ".pyd", ".dll", ".dylib")


@dataclass(frozen=True)
class Module:
    """A module or package that is no part of a dotted name's rest.

    Attributes:
        name: of it.
        root: the folder that it lies in.
        files: relative to ``root``, sorted; none if it cannot be sent.
        obstacle: why it cannot be sent; None: it can.
        digest: over its files; None if it cannot be sent.
    """

    name: str
    root: Path
    files: tuple[str, ...] = ()
    obstacle: str | None = None
    digest: str | None = None


def search_in(folders: Iterable[str]) -> dict[str, str]:
    """What an agent must find in its environment to look for modules in ``folders`` too."""
    return {SEARCH_VARIABLE: json.dumps(list(folders), ensure_ascii=False)}


def add_folders(folders: Iterable[str]) -> None:
    """Have modules looked for in ``folders`` too, after all others."""
    sys.path += [folder for folder in folders if folder not in sys.path]
    importlib.invalidate_caches()


def check_here(wanted: Mapping[str, Any]) -> None:
    """Whether this Python has the launcher's modules and can import them.

    Args:
        wanted: ``OwnModules.wanted`` of the launcher.

    Raises:
        PreflightError: it does not, or cannot.
    """
    for name, digest in wanted["digests"].items():
        here = locate(name)
        if here is None:
            raise PreflightError(
                f"module {name}, which a part is of, is not installed for {sys.executable}; install it there"
            )
        if digest is not None and here.digest != digest:
            raise PreflightError(
                f"module {name} in {here.root} is not the launcher's; remove it there, or rename your own"
            )
    for module in wanted["imports"]:
        try:
            importlib.import_module(module)
        except IMPORT_FAILURES as error:
            cause = f"{type(error).__name__}: {error}".replace("\n", " ")
            raise PreflightError(
                f"module {module} cannot be imported ({cause}); install what it needs in a Python there and "
                f"set python = ..., or import what lies beside it at its top"
            ) from error


def locate(name: str) -> Module | None:
    """The module ``name``, which has no dots; None: there is none."""
    spec = find(name)
    if spec is None:
        return None
    if spec.origin is None or not os.path.isfile(spec.origin):
        where = Path(next(iter(spec.submodule_search_locations or ()), "/"))
        return Module(name, where.parent, obstacle="it is no file, nor a folder with __init__.py")
    origin = Path(spec.origin)
    if spec.submodule_search_locations is None:
        return _of_files(name, origin.parent, [origin.name])
    root = origin.parent.parent
    return _of_files(name, root, sorted(path.relative_to(root).as_posix() for path in _files(origin.parent)))


def _of_files(name: str, root: Path, files: list[str]) -> Module:
    size = sum((root / path).stat().st_size for path in files)
    compiled = next((path for path in files if path.endswith(_COMPILED)), None)
    if compiled is not None:
        return Module(name, root, obstacle=f"{compiled} is compiled")
    if size > MOST_BYTES:
        limit = f"it has {size >> 20} MiB, and at most {MOST_BYTES >> 20} are sent"
        return Module(name, root, obstacle=limit)
    return Module(name, root, tuple(files), digest=_digest(root, files))


def _files(folder: Path) -> Iterator[Path]:
    """All files below ``folder`` but for hidden ones and bytecode, as in deploy/onhost/tree.py."""
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name != "__pycache__" and not name.startswith(".")]
        yield from (Path(parent, name) for name in names if not name.startswith(".") and name[-4:] != ".pyc")


def _digest(root: Path, files: Iterable[str]) -> str:
    total = hashlib.sha256()
    for path in files:
        content = (root / path).read_bytes()
        total.update(json.dumps([path, len(content)]).encode() + content)
    return total.hexdigest()[:16]


def find(name: str) -> ModuleSpec | None:
    """Where the module ``name`` would come from; None: there is none."""
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError):  # the latter: of a module that is no file's
        return None
