"""What a host sees of the machine's files."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""This checkout, which hosts do not see."""
SYSTEM = frozenset(
    {"bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "opt", "proc", "run", "sbin", "sys", "usr", "var"}
)
ALWAYS_HIDDEN = ("/tmp", "/var/tmp", "/home", "/root", "/srv", "/mnt", "/media")


def python_folders() -> list[str]:
    """The folders of the running Python and of its virtual environment, unless every host has them."""
    folders = {str(Path(prefix).resolve()) for prefix in (sys.prefix, sys.base_prefix)}
    return sorted(folder for folder in folders if Path(folder).parts[1] not in SYSTEM)


def hidden_folders() -> list[str]:
    """Folders that start out empty in a host: everybody's own, and the top ones where this work is done."""
    tops = {path.resolve().parts[1] for path in (ROOT, Path.cwd()) if path.resolve() != Path("/")}
    return sorted({*ALWAYS_HIDDEN, *(f"/{top}" for top in tops - SYSTEM)})


def on_disk(disk: Path, path: str) -> Path:
    """Where ``path`` of the host with ``disk`` is kept (init.py), unless it is shown to it or shared."""
    for hidden in hidden_folders():
        if Path(path).is_relative_to(hidden):
            below = Path(path).relative_to(hidden)
            return disk / "private" / hidden.strip("/").replace("/", "+") / below
    return disk / "upper" / path.lstrip("/")
