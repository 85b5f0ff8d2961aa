"""Waiting for other processes, which nothing tells of what they do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_for(condition: Callable[[], T | None], timeout_s: float, what: str = "the awaited state") -> T:
    """Poll ``condition`` until it gives something; what it gave.

    Args:
        condition: of other processes, so that there is nothing to wait on.
        timeout_s: after which the test fails.
        what: is awaited, for the message.
    """
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s:g} s"
        time.sleep(0.02)
    return found
