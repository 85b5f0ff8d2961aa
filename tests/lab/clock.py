"""Real-time clocks that are off, as those of hosts without NTP are.

A time namespace shifts the monotonic and the boot clock only, so a library in LD_PRELOAD shifts what
processes are told. It is made here, since libfaketime (0.9.10) breaks sleeping: ``clock_nanosleep`` until a
monotonic time fails with EINVAL now and then.
"""

from __future__ import annotations

import base64
import tempfile
from pathlib import Path

from tests.lab.commands import run
from tests.lab.requirements import compiler

SOURCE = Path(__file__).with_name("clock.c")


def skewed_clock(seconds: int) -> str:
    """The library for a clock that is ``seconds`` ahead, in base64.

    Raises:
        LabError: it cannot be compiled.
    """
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, "clock.so")
        options = ["-shared", "-fPIC", "-nostdlib", f"-DSKEW={seconds}L"]
        run(compiler() or "cc", *options, "-o", str(library), str(SOURCE))
        return base64.b64encode(library.read_bytes()).decode("ascii")
