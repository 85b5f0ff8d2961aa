"""One member of a run in a process of its own, for tests: it receives, counts and says what it has.

``python -m tests.integration.receiving FOLDER MAX_PAYLOAD_BYTES``; told over standard input, one word a line:
the book in hexadecimal once, then ``report`` any number of times. It ends when its input does.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from io import FileIO
from pathlib import Path
from typing import Any

import zmq

from decentral.transports.addresses import Listen, decode_book
from decentral.transports.zeromq import FOR_NODES, ZmqTransport

RUN = b"\x00runrunr"
RECEIVER, HONEST, FUZZERS = 0, 1, (2, 3)
MEMBERS = 4
MAX_PAYLOAD_BYTES = 65_536


def memory_kb(what: str) -> int:
    """A line of this process's status: ``VmRSS`` or ``VmHWM``, its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{what}:"))


def say(**what: Any) -> None:
    """One line of JSON."""
    print(json.dumps(what), flush=True)


def main() -> None:
    """Receive until the input ends."""
    transport = ZmqTransport(
        node=RECEIVER,
        run=RUN,
        folder=Path(sys.argv[1]),
        max_payload_bytes=int(sys.argv[2]),
        timeout_s=None,
        listen=Listen("127.0.0.1"),
        kinds=FOR_NODES,
        members=MEMBERS,
    )
    assert transport.endpoint is not None
    say(address=transport.endpoint.address, key=transport.endpoint.key.decode())
    # Unbuffered: a line that were read ahead would never be polled.
    told = FileIO(sys.stdin.fileno(), closefd=False)
    transport.connect(decode_book(bytes.fromhex(told.readline().decode())))
    accepted: Counter[int] = Counter()
    in_order = True
    poller = zmq.Poller()
    poller.register(transport.inbox, zmq.POLLIN)
    poller.register(told, zmq.POLLIN)
    while True:
        ready = dict(poller.poll())
        while (messages := transport.receive_now()) is not None:
            first = messages[0]
            if first.sender == HONEST:
                in_order = in_order and first.round == accepted[HONEST] == int(first.values[0])
            accepted[first.sender] += 1
        if told.fileno() in ready:
            if not told.readline():
                break
            say(
                accepted=dict(accepted),
                in_order=in_order,
                refused=transport.refused,
                rss_kb=memory_kb("VmRSS"),
                peak_kb=memory_kb("VmHWM"),
            )
    transport.close()


if __name__ == "__main__":
    main()
