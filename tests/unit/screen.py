"""A clock and a screen of a test's own, for what a run shows."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console


class ManualClock:
    """Stands still until it is told the time."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.reads = 0

    def __call__(self) -> float:
        self.reads += 1
        return self.now_s


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def screen(stream: io.StringIO, height: int = 24) -> Console:
    return Console(file=stream, force_terminal=True, width=120, height=height, color_system=None, _environ={})


def lines(stream: io.StringIO) -> list[str]:
    """What was written, less movements of the cursor."""
    text = re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "", stream.getvalue())
    return [line.strip() for line in text.splitlines() if line.strip()]
