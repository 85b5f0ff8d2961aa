"""One request on standard input, one answer on standard output.

A request is a line of JSON, behind which a tar archive may stand. The answer is a line of JSON behind
``MARK``, before which a login shell may have printed what it likes. What cannot be done is said on standard
error, with exit code ``REFUSED``.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import tarfile
import threading
from collections.abc import Callable
from typing import Any

from launch.deploy.onhost.look import compare_data, look, wait
from launch.deploy.onhost.take import code, data, environment, parts
from launch.deploy.onhost.tree import Refused

MARK = b"\x00decentral answer\n"
REFUSED = 3
_LOOK_EVERY_S = 0.5

OPERATIONS: dict[str, Callable[..., dict[str, Any]]] = {
    "look": look,
    "compare_data": compare_data,
    "wait": wait,
    "code": code,
    "parts": parts,
    "environment": environment,
    "data": data,
}


def end_with(parent: int) -> None:
    """End this process, in order, once its parent has or nobody reads its answer: the line is cut then.

    A connection that ssh sessions share (ControlMaster) outlives them, and so does this process's parent. Its
    input cannot tell: that ends where the request does.
    """
    answer = select.poll()
    answer.register(sys.stdout.fileno(), 0)  # tells of errors alone: its other end is closed
    while os.getppid() == parent and not answer.poll(_LOOK_EVERY_S * 1000):
        pass  # the kernel's parent-death signal would leave half a folder, and pip
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Read one request, do it, answer."""
    os.umask(0o077)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(REFUSED))
    threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
    request = json.loads(sys.stdin.buffer.readline())
    operation = OPERATIONS[request["do"]]
    payload = (sys.stdin.buffer,) if request["do"] in ("code", "parts", "environment", "data") else ()
    try:
        answer = operation(request, *payload)
    except (Refused, tarfile.TarError) as error:
        print(error, file=sys.stderr)
        sys.exit(REFUSED)
    except OSError as error:
        print(f"{error.filename or 'this host'}: {error.strerror}", file=sys.stderr)
        sys.exit(REFUSED)
    sys.stdout.buffer.write(MARK + json.dumps(answer).encode() + b"\n")
    sys.stdout.buffer.flush()
