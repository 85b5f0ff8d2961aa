"""The program that ``decentral doctor`` runs on every host: says what is there, measures the network.

It is sent over standard input and run from memory, so it needs the standard library alone; it writes nothing
but an unnamed file that tests whether the disk takes one. Requests are lines of JSON; answers are lines of
JSON behind ``MARK``, since login shells print what they like before. It ends when its input does.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

from launch.doctor.probe_host import facts
from launch.doctor.probe_network import listen, measure

MARK = "decentral-probe "


def clock(request: dict[str, Any]) -> dict[str, Any]:
    """This host's real time now."""
    return {"unix_s": time.time()}


def main() -> None:
    """Answer requests until there are no more."""
    operations = {"facts": facts, "clock": clock, "listen": listen, "measure": measure}
    print(flush=True)  # ends a line that a login shell left open
    print(f"{MARK}{json.dumps({'hello': os.getpid()})}", flush=True)
    for line in sys.stdin.buffer:
        request = json.loads(line)
        print(f"{MARK}{json.dumps(operations[request['do']](request))}", flush=True)
