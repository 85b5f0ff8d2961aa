"""Which labs this machine has: one link per lab to its folder, so that what was left can be removed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from tests.lab.commands import ip, run
from tests.lab.pids import end, noted

REGISTRY = Path("/run/decentral-labs")
KEEPER = "keeper.pid"
STAY = "stay"
"""File in the folder of a lab that nobody owns on purpose."""


@contextlib.contextmanager
def choosing() -> Iterator[None]:
    """One at a time: two labs must not choose the same network."""
    REGISTRY.mkdir(mode=0o700, exist_ok=True)
    handle = os.open(REGISTRY / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def unused_network() -> str:
    """The first three bytes of a /24 in 10.0.0.0/8 that no address or route of this machine is in."""
    taken = run("ip", "-4", "-o", "addr") + run("ip", "-4", "route")
    while True:
        network = f"10.{secrets.randbelow(190) + 64}.{secrets.randbelow(256)}"
        if f" {network}." not in f" {taken.replace(chr(10), ' ')}":
            return network


def enter(name: str, folder: Path) -> None:
    """Note that lab ``name`` is in ``folder``."""
    (REGISTRY / name).symlink_to(folder)


def labs() -> dict[str, Path]:
    """All labs that have not been taken down, by name."""
    if not REGISTRY.is_dir():
        return {}
    return {entry.name: entry.readlink() for entry in sorted(REGISTRY.iterdir()) if entry.is_symlink()}


def ownerless() -> dict[str, Path]:
    """The labs whose keeper is dead as well: nobody is going to remove them."""
    return {name: folder for name, folder in labs().items() if noted(folder / KEEPER) is None}


def staying() -> dict[str, Path]:
    """The labs that were made to stay until somebody takes them down."""
    return {name: folder for name, folder in labs().items() if (folder / STAY).exists()}


def clear(folder: Path, *, keeper: bool = True) -> None:
    """End and remove everything of the lab in ``folder``, whatever state it is in.

    Args:
        folder: the lab's.
        keeper: end the keeper as well; it cannot do that to itself.
    """
    for note in sorted(folder.glob("*.pid")):
        if note.name != KEEPER:
            end(note)
    for name, place in labs().items():
        if place == folder:
            # Also goes with the keeper's namespace, but a moment after it.
            ip([f"link del {name}"], check=False)
            (REGISTRY / name).unlink()
    if keeper:
        end(folder / KEEPER)
    shutil.rmtree(folder, ignore_errors=True)
