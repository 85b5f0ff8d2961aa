"""The process in whose network namespace the switch is; it outlives the lab's owner by a moment.

It runs in a network namespace of its own, so that no firewall rule of the machine sees the bridge. Standard
input is a pipe that only the owner holds: when it ends, because the owner was killed, the keeper ends the
hosts, removes the folder and then itself, and the switch with all cables goes with it. ``--stay``: a lab of
the command line has no owner and ends with ``down``.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from tests.lab.registry import clear


def main() -> None:
    """See the module."""
    folder = Path(sys.argv[1])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    print(os.getpid(), flush=True)
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 1)
    if "--stay" in sys.argv:
        while True:
            signal.pause()
    os.read(0, 1)
    clear(folder, keeper=False)


if __name__ == "__main__":
    main()
