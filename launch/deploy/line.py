"""Asks a host for one thing: starts ``launch/deploy/onhost`` there through ssh or srun and reads its answer.

Nothing is expected there but sh and a Python: the line of shell below finds one that is new enough, a line of
Python takes the archive with ``onhost`` from standard input, and whatever the request holds follows as data.
"""

from __future__ import annotations

import io
import json
import os
import select
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias

from launch.deploy.onhost.serve import MARK
from launch.executors.child import end, spawn

if TYPE_CHECKING:
    from launch.hosts import Host

Payload: TypeAlias = Callable[[IO[bytes]], None]
"""Writes an archive to the stream it is given."""

FOLDER = "~/.cache/decentral"
"""Where things go on a host that names no folder."""
_LAST_LINES = 6
_MOST_NOISE_BYTES = 1 << 16
_MOST_BYTES = 1 << 28
"""Of an answer; the files of data sets are listed in one."""
_LEAST_S = 180.0
_SLOWEST_BYTES_PER_S = 250_000
_NEWEST_MINOR = 15
_TEST = "import sys; sys.exit(sys.version_info < (3, 11))"
_START = (
    "import runpy, sys, tempfile; "
    "file = tempfile.NamedTemporaryFile(suffix='.zip'); "
    "file.write(sys.stdin.buffer.read(int(sys.argv[1]))); "
    "file.flush(); "
    "runpy.run_path(file.name, run_name='__main__')"
)
# Both without line breaks, exclamation marks and backslashes, which some login shells see even in quotes.
JUDGE = (
    'judge() ( set -f; q=$1; u=$(id -u); [ -f "$q" ] || exit 1; while :; do m=$(ls -ldn -- "$q") || exit 1; '
    "case $m in l*) exit 1;; d????????[tT]*) ;; ?????w*|????????w*) exit 1;; esac; "
    "set -- $m; case $3 in 0|$u) ;; *) exit 1;; esac; "
    "case $q in /) exit 0;; esac; q=${q%/*}; q=${q:-/}; done ); "
)
"""Shell function: whether a path without links in it can be changed by this user and root only."""
ELSEWHERE = "="
"""Begins paths that are the launcher's: a file there on another host must be judged before it is run."""
_FIND = (
    f"{JUDGE}"
    't=$1 b=$2 n=$3 a=; shift 3; for p; do case "$p" in "~/"*) p="$HOME/${p#??}";; '
    '=*) p=${p#=}; if judge "$p"; then :; else a="$a $p (not there, or not safe)"; continue; fi;; esac; '
    'if "$p" -I -c "$t" </dev/null >/dev/null 2>&1; then exec "$p" -I -c "$b" "$n"; fi; a="$a $p"; done; '
    'echo "there is no Python 3.11 or newer; tried:$a" >&2; exit 127'
)


def limit_s(size: int) -> float:
    """How long sending ``size`` bytes may take."""
    return _LEAST_S + size / _SLOWEST_BYTES_PER_S


class HostFailure(Exception):
    """What was asked of one host was not done; the message says what and why."""


class _TooLong(Exception):
    """A host answers without end."""


@dataclass(frozen=True)
class Route:
    """How a host is reached.

    Args:
        name: of the program, for messages.
        command: the command that runs a program with arguments on a host, standard streams connected.
        environment: of that command; None: this process's.
    """

    name: str
    command: Callable[[Host, Sequence[str]], list[str]]
    environment: Mapping[str, str] | None = None


@dataclass
class Lines:
    """Asks hosts, from any number of threads."""

    route: Route
    _running: set[subprocess.Popen[bytes]] = field(default_factory=set)
    _cancelled: bool = False

    def ask(
        self, host: Host, step: str, request: dict[str, Any], limit_s: float, payload: Payload | None = None
    ) -> dict[str, Any]:
        """Have ``request`` carried out on ``host``.

        Args:
            host: where.
            step: what this is, for messages (``copying the code``).
            request: ``do`` and the arguments of that operation (``onhost/serve.py``).
            limit_s: how long it may take.
            payload: the archive that follows it.

        Raises:
            HostFailure: the host is not reached, refuses, or takes too long.
        """
        archive = _onhost()
        pythons = [host.python] if host.python is not None else _pythons()
        remote = ["sh", "-c", _FIND, "sh", _TEST, _START, str(len(archive)), *pythons]
        head = archive + json.dumps(request).encode() + b"\n"
        with tempfile.TemporaryFile() as stderr:
            process = spawn(self.route.command(host, remote), stderr=stderr, env=self.route.environment)
            self._running.add(process)
            if self._cancelled:
                end(process)
            try:
                noise, answer = _converse(process, head, payload, limit_s)
            except _TooLong:
                raise HostFailure(
                    f"host {host.name}: {step} failed: its answer is longer than {_MOST_BYTES >> 20} MiB"
                ) from None
            except subprocess.TimeoutExpired:
                raise HostFailure(
                    f"host {host.name}: {step} was not over after {limit_s:.0f} s{_last_of(stderr)}"
                ) from None
            except OSError as error:
                raise HostFailure(
                    f"host {host.name}: {step} failed: cannot read {error.filename}: {error.strerror}"
                ) from error
            finally:
                self._running.discard(process)
            if process.returncode != 0:
                said = _last_of(stderr) or f": {self.route.name} ended with code {process.returncode}"
                raise HostFailure(f"host {host.name}: {step} failed{said}")
        if answer is None:
            raise HostFailure(f"host {host.name}: {step} failed: it answered {noise[-200:]!r}")
        try:
            decoded: dict[str, Any] = json.loads(answer)
        except ValueError:
            raise HostFailure(f"host {host.name}: {step} failed: it answered {answer[:200]!r}") from None
        return decoded

    def cancel(self) -> None:
        """End everything that is under way, within 2 s; whoever waits for it gets a ``HostFailure``."""
        self._cancelled = True
        end(*list(self._running))


def _converse(
    process: subprocess.Popen[bytes], head: bytes, payload: Payload | None, limit_s: float
) -> tuple[bytes, bytes | None]:
    """Write all, read all; the child has ended afterwards.

    Returns:
        The end of what came before the answer, and the answer, if there was one.

    Raises:
        TimeoutExpired: it takes longer.
        _TooLong: the answer has no end.
    """
    stdin, process.stdin = process.stdin, None
    assert stdin is not None
    problems: list[OSError] = []
    feeder = threading.Thread(target=_feed, args=(stdin, head, payload, problems))
    feeder.start()
    try:
        answered = _read(process, limit_s)
    finally:
        end(process)
        feeder.join()
        assert process.stdout is not None
        process.stdout.close()
    if problems:
        raise problems[0]
    return answered


def _read(process: subprocess.Popen[bytes], limit_s: float) -> tuple[bytes, bytes | None]:
    """The answer is one line; what is printed after it is dropped, and most of what is printed before it."""
    assert process.stdout is not None
    deadline_s = time.monotonic() + limit_s
    noise, ended = bytearray(), False
    answer: bytearray | None = None
    poll = select.poll()
    poll.register(process.stdout, select.POLLIN)
    while True:
        left_s = deadline_s - time.monotonic()
        if left_s <= 0 or not poll.poll(left_s * 1000):
            raise subprocess.TimeoutExpired(process.args, limit_s)
        chunk = os.read(process.stdout.fileno(), 1 << 16)
        if not chunk:
            break
        if answer is None:
            noise += chunk
            before, found, after = noise.partition(MARK)
            if found:
                noise, answer = before, after
            else:
                del noise[:-_MOST_NOISE_BYTES]
        elif not ended:
            answer += chunk
        if answer is not None and not ended:
            ended = b"\n" in answer[-(1 << 16) :]
            if len(answer) > _MOST_BYTES:
                raise _TooLong
    process.wait(max(0.0, deadline_s - time.monotonic()))
    return bytes(noise), None if answer is None else bytes(answer.partition(b"\n")[0])


def _feed(stdin: IO[bytes], head: bytes, payload: Payload | None, problems: list[OSError]) -> None:
    try:
        stdin.write(head)
        if payload is not None:
            payload(stdin)
    except BrokenPipeError:
        pass  # the other end says why
    except OSError as error:  # a file that is to be sent cannot be read; the archive is cut short
        problems.append(error)
    finally:
        with suppress(BrokenPipeError):
            stdin.close()


def _last_of(stderr: IO[bytes]) -> str:
    stderr.seek(max(0, stderr.seek(0, io.SEEK_END) - _MOST_NOISE_BYTES))
    lines = stderr.read(_MOST_NOISE_BYTES).decode(errors="replace").strip().splitlines()[-_LAST_LINES:]
    lines = [printable(line) for line in lines]
    return (
        "".join(f"\n  {line}" for line in lines) if len(lines) > 1 else "".join(f": {line}" for line in lines)
    )


def _pythons() -> list[str]:
    """Commands to try on a host, those first whose environment can be a copy of this one."""
    base = own_base()
    minors = [sys.version_info[1], *range(_NEWEST_MINOR, 10, -1)]
    return [base, *dict.fromkeys(f"python3.{minor}" for minor in minors), "python3"]


def own_base() -> str:
    """The Python that this one is an environment of; to be judged on hosts before it is tried there."""
    return ELSEWHERE + os.path.realpath(getattr(sys, "_base_executable", sys.executable))


def printable(text: str) -> str:
    """What a host said, without characters that would command the terminal; line breaks stay."""
    return "".join(one if one.isprintable() or one == "\n" else "\N{REPLACEMENT CHARACTER}" for one in text)


def _onhost() -> bytes:
    """The program for the host: a zip archive that Python runs."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("__main__.py", "from launch.deploy.onhost.serve import main\n\nmain()\n")
        file.writestr("launch/__init__.py", "")
        file.writestr("launch/deploy/__init__.py", "")
        for path in sorted(Path(__file__).with_name("onhost").glob("*.py")):
            file.write(path, f"launch/deploy/onhost/{path.name}")
    return archive.getvalue()
