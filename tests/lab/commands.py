"""The commands that make namespaces and links, as child processes with arguments as lists."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable

from tests.lab.requirements import SEARCH

MARK = "DECENTRAL_TEST_LAB"
"""Environment variable of every process of the harness: the folder of its lab."""


class LabError(Exception):
    """A command of the harness failed; the message has its words."""


def environment(folder: str) -> dict[str, str]:
    """What a process of the harness gets: nothing of the caller's but the mark of a test session."""
    session = {key: value for key, value in os.environ.items() if key == "DECENTRAL_TEST_SESSION"}
    return {"PATH": SEARCH, "HOME": "/root", "LANG": "C.UTF-8", MARK: folder, **session}


def run(*arguments: str, stdin: str | None = None, check: bool = True) -> str:
    """Run a command and return what it printed.

    Raises:
        LabError: it failed, and ``check`` is set.
    """
    done = subprocess.run(
        arguments,
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PATH": SEARCH},
    )
    if check and done.returncode != 0:
        raise LabError(f"{' '.join(arguments)}: exit code {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def ip(lines: Iterable[str], *, of: int | None = None, check: bool = True) -> None:
    """Run lines of ip(8) in the network namespace of process ``of`` (None: this one)."""
    _batch("ip", lines, of, check)


def tc(lines: Iterable[str], *, of: int | None = None, check: bool = True) -> None:
    """Run lines of tc(8) in the network namespace of process ``of``."""
    _batch("tc", lines, of, check)


def _batch(command: str, lines: Iterable[str], of: int | None, check: bool) -> None:
    enter = [] if of is None else ["nsenter", "-t", str(of), "--net"]
    force = [] if check else ["-force"]
    run(*enter, command, *force, "-batch", "-", stdin="\n".join(lines) + "\n", check=check)
