"""A member that cannot be watched is none."""

from __future__ import annotations

import errno
import os
from types import SimpleNamespace
from typing import Any

import pytest

from launch.fork import fork_member


def test_a_member_without_a_descriptor_is_ended_and_reaped(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process, no zombie and no socket is left (tests/conftest.py looks for them)."""
    forked: list[int] = []

    def refuse(pid: int, flags: int = 0) -> int:
        forked.append(pid)
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    workload: Any = SimpleNamespace(arm=SimpleNamespace(run=SimpleNamespace(clock="wall")))
    assignment: Any = SimpleNamespace(number=3, slot=0, core=None)
    out = os.open(os.devnull, os.O_WRONLY)
    try:
        with pytest.raises(OSError, match="Too many open files"):
            fork_member(workload, assignment, [], [out])
    finally:
        os.close(out)
    (pid,) = forked
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
