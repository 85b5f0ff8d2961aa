"""A probe on a host and the line to it: started through ssh or srun, asked, and gone with its line."""

from __future__ import annotations

import io
import json
import os
import select
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from launch.deploy.line import JUDGE, Route, printable
from launch.deploy.line import _pythons as tried_by_deployment
from launch.doctor.diagnosis import NO_PYTHON, Diagnosis, brief, diagnose_end, diagnose_silence
from launch.doctor.probe import MARK
from launch.executors.child import end, spawn
from launch.host_schema import Host

PROGRAM = (
    *("cgroup.py", "listening.py", "memory.py"),
    *("__init__.py", "deploy/onhost/__init__.py", "deploy/onhost/look.py", "deploy/onhost/tree.py"),
    "deploy/onhost/trust.py",
    *("doctor/__init__.py", "doctor/probe.py", "doctor/probe_host.py", "doctor/probe_network.py"),
    "doctor/probe_software.py",
)
"""Files of this package that make the probe."""
MOST_NOISE_BYTES = 1 << 16
END_S = 1.0
_NEW_ENOUGH = "import sys; sys.exit(sys.version_info < (3, 11))"
_MAIN = "from launch.doctor.probe import main\n\nmain()\n"
# The program stays in memory: a disk that is full or read-only is to be found, not to be met.
_START = (
    "import os, runpy, sys; "
    "file = os.memfd_create('probe'); "
    "os.write(file, sys.stdin.buffer.read(int(sys.argv[1]))); "
    "runpy.run_path('/proc/self/fd/%d' % file, run_name='__main__')"
)
# Neither line breaks nor exclamation marks nor backslashes, which some login shells see even in quotes.
_FIND = (
    f"{JUDGE}"
    't=$1 b=$2 n=$3; shift 3; for p; do case $p in "~/"*) p=$HOME/${p#??};; '
    '=*) p=${p#=}; judge "$p" || continue;; esac; '
    'if command -v "$p" >/dev/null 2>&1; then '
    'if "$p" -I -c "$t" </dev/null >/dev/null 2>&1; then exec "$p" -P -c "$b" "$n"; fi; '
    'f="$f; $p is $("$p" -V 2>&1 | head -n 1)"; fi; done; '
    f'echo "{NO_PYTHON}${{f:-; tried $*}}" >&2; exit 127'
)


class Unreachable(Exception):
    """The host cannot be asked; ``diagnosis`` says why."""

    def __init__(self, diagnosis: Diagnosis) -> None:
        self.diagnosis = diagnosis
        super().__init__(f"{diagnosis.cause}; {diagnosis.step}")


class ProbeLine:
    """A conversation with the probe on one host; not to be used by two threads at once.

    Args:
        host: which.
        route: how the host is reached; not asked where it is this machine.
    """

    def __init__(self, host: Host, route: Route) -> None:
        self.host = host
        self.noise = ""
        """What came on standard output that the probe did not print: login shells do."""
        self._program = "sh" if host.local else route.name
        archive = _archive()
        remote = ["sh", "-c", _FIND, "sh", _NEW_ENOUGH, _START, str(len(archive)), *_pythons(host)]
        self._answers = False
        command = remote if host.local else route.command(host, remote)
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  closed by close()
        self._buffer = bytearray()
        self._process = spawn(command, stderr=self._stderr, env=None if host.local else route.environment)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout
        self._send(archive)

    def greet(self, limit_s: float) -> None:
        """Wait until the probe runs.

        Raises:
            Unreachable: it does not, or not in time.
        """
        self._answer(limit_s)
        self._answers = True

    def ask(self, request: Mapping[str, Any], limit_s: float) -> dict[str, Any]:
        """The answer to ``request``.

        Raises:
            Unreachable: the line broke, or there was none in time.
        """
        self._send(json.dumps(request).encode() + b"\n")
        return self._answer(limit_s)

    def close(self) -> None:
        """End the line and, with its input, the probe."""
        with suppress(BrokenPipeError):
            self._in.close()
        try:
            self._process.wait(END_S if self._answers else 0)
        except subprocess.TimeoutExpired:
            end(self._process)
        self._out.close()
        self._stderr.close()

    def _send(self, data: bytes) -> None:
        with suppress(BrokenPipeError):  # its output ends too, which says why
            self._in.write(data)
            self._in.flush()

    def _answer(self, limit_s: float) -> dict[str, Any]:
        deadline_s = time.monotonic() + limit_s
        poll = select.poll()
        poll.register(self._out, select.POLLIN)
        while True:
            while (end := self._buffer.find(b"\n")) >= 0:
                line = self._buffer[:end].decode(errors="replace")
                del self._buffer[: end + 1]
                if line.startswith(MARK):
                    try:
                        answer: dict[str, Any] = _printable(json.loads(line[len(MARK) :]))
                    except ValueError:
                        cause = f"its answer is cut short: {brief(line)}"
                        raise Unreachable(Diagnosis(cause, "look at what else prints there")) from None
                    return answer
                self._overhear(line + "\n")
            left_s = deadline_s - time.monotonic()
            if left_s <= 0 or not poll.poll(left_s * 1000):
                self._answers = False
                raise Unreachable(
                    diagnose_silence(self.host, self._program, limit_s, self._said(), self.noise)
                )
            chunk = os.read(self._out.fileno(), 1 << 16)
            if not chunk:
                self._overhear(self._buffer.decode(errors="replace"))
                status = self._ended()
                raise Unreachable(diagnose_end(self.host, self._program, status, self._said(), self.noise))
            self._buffer += chunk
            if len(self._buffer) > MOST_NOISE_BYTES and b"\n" not in self._buffer:
                self._overhear(self._buffer.decode(errors="replace"))
                self._buffer.clear()

    def _overhear(self, text: str) -> None:
        self.noise += printable(text) if text.strip() else ""
        if len(self.noise) > MOST_NOISE_BYTES:
            self._answers = False
            cause = f"it prints without end: {brief(self.noise)}"
            raise Unreachable(Diagnosis(cause, "look at its login files; they should print nothing"))

    def _ended(self) -> int:
        """Status of a child that has closed its output."""
        try:
            return self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            return 0

    def _said(self) -> str:
        self._stderr.seek(0)
        said = self._stderr.read(MOST_NOISE_BYTES).decode(errors="replace")
        return "\n".join(map(printable, said.splitlines()))


def _printable(answer: Any) -> Any:
    """An answer whose texts can be shown."""
    if isinstance(answer, dict):
        return {_printable(key): _printable(value) for key, value in answer.items()}
    if isinstance(answer, list):
        return [_printable(value) for value in answer]
    return printable(answer) if isinstance(answer, str) else answer


def _pythons(host: Host) -> list[str]:
    """Commands to try: those that a run tries, in its order."""
    if host.python is not None:
        return [host.python]
    if host.local:
        return [sys.executable]
    return tried_by_deployment()


def _archive() -> bytes:
    """The probe as an archive that Python runs."""
    archive = io.BytesIO()
    launch = Path(__file__).resolve().parents[1]
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("__main__.py", _MAIN)
        file.writestr("launch/deploy/__init__.py", "")  # the one here imports what hosts lack
        for name in PROGRAM:
            file.write(launch / name, f"launch/{name}")
    return archive.getvalue()
