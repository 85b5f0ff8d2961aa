"""Between two hosts, against raw pyzmq with and without CURVE: ``python -m tests.bench.curve``.

Three pairs of processes move the same frames over one tcp connection: ``raw`` (PUSH/PULL, no security),
``curve`` (the same with CURVE), and ``decentral`` (``ZmqTransport``: CURVE, book of keys, verified headers,
senders bound to their keys). All receivers touch every frame's values. Trials are interleaved, and ratios are
those of one round of trials.

Both ends run here over the loopback address; to measure between two emulated hosts, name their network
namespaces and addresses::

    python -m tests.bench.curve --sender-ns hlab1 --sender-address 10.77.0.11 \\
        --receiver-ns hlab2 --address 10.77.0.12
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import zmq

from decentral.messages import Message
from decentral.transports.addresses import Endpoint, Listen
from decentral.transports.zeromq import ZmqTransport
from tests.bench.transport import MALLOC

RUN = bytes(8)
MAP = bytes(8)
SENDER, RECEIVER = 0, 1
SIZES = ((1, 36_000), (10, 36_000), (1, 360_000), (1, 4_000_000))
"""(frames that travel together, bytes of each); the second is a round of fragments for one neighbor."""
WARM_BATCHES = 20
MARK_BYTES = 16_000_000
"""What the raw pairs let wait at either end."""


class Load(NamedTuple):
    """What is moved: so many multiparts of so many frames of so many bytes."""

    batches: int
    frames: int
    nbytes: int

    @property
    def mark(self) -> int:
        """Multiparts that may wait at either end."""
        return max(4, MARK_BYTES // (self.frames * self.nbytes))


def say(**what: object) -> None:
    """One line to the other end."""
    print(json.dumps(what), flush=True)


def hear() -> dict[str, str]:
    """One line from the other end."""
    heard: dict[str, str] = json.loads(sys.stdin.readline())
    return heard


def raw_receiver(address: str, load: Load, *, secure: bool) -> float:
    """Receive everything; returns seconds without the first batches."""
    context = zmq.Context()
    socket = context.socket(zmq.PULL)
    socket.setsockopt(zmq.RCVHWM, load.mark)
    key, secret = zmq.curve_keypair()
    if secure:
        socket.curve_server = True
        socket.curve_secretkey = secret
    socket.bind(f"tcp://{address}:*")
    say(address=socket.getsockopt_string(zmq.LAST_ENDPOINT), key=key.decode() if secure else "")
    for number in range(WARM_BATCHES + load.batches):
        if number == WARM_BATCHES:
            began = time.perf_counter()
        for frame in socket.recv_multipart(copy=False)[1:]:
            np.frombuffer(frame.buffer, dtype=np.float32)[0]
    took = time.perf_counter() - began
    context.destroy(linger=0)
    return took


def raw_sender(load: Load) -> None:
    """Send as fast as accepted, copying each payload once."""
    told = hear()
    context = zmq.Context()
    socket = context.socket(zmq.PUSH)
    socket.setsockopt(zmq.SNDHWM, load.mark)
    if told["key"]:
        socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
        socket.curve_serverkey = told["key"].encode()
    socket.connect(told["address"])
    payload = np.ones(load.nbytes // 4, dtype=np.float32)
    for _ in range(WARM_BATCHES + load.batches):
        socket.send_multipart(
            [b"header", *(zmq.Frame(payload.data, copy=True) for _ in range(load.frames))], copy=False
        )
    socket.close(linger=-1)
    context.term()


def our_receiver(address: str, load: Load) -> float:
    """Receive and verify everything; returns seconds without the first batches."""
    with tempfile.TemporaryDirectory() as folder:
        transport = _transport(RECEIVER, Path(folder), address, load.frames * load.nbytes)
        _exchange(transport, SENDER)
        # A word now and then lets the sender go on, as emulated time does: it never blocks by itself.
        credit = Message(RECEIVER, 0, 0, np.zeros(1, dtype=np.float32), MAP)
        every = load.mark // 2
        for number in range(WARM_BATCHES + load.batches):
            if number == WARM_BATCHES:
                began = time.perf_counter()
            for message in transport.receive(lambda: "fragments"):
                message.values[:1]
            if number % every == 0:
                transport.send([(SENDER, [credit])])
        took = time.perf_counter() - began
        transport.send([(SENDER, [credit])])
        sys.stdin.readline()
        transport.close()
    return took


def our_sender(address: str, load: Load) -> None:
    """Send ``batches`` rounds of fragments, two credits ahead."""
    with tempfile.TemporaryDirectory() as folder:
        transport = _transport(SENDER, Path(folder), address, 4)
        _exchange(transport, RECEIVER)
        values = np.ones(load.nbytes // 4, dtype=np.float32)
        every = load.mark // 2
        for number in range(WARM_BATCHES + load.batches):
            if number >= 2 * every and number % every == 0:
                transport.receive(lambda: "credit")
            transport.send(
                [(RECEIVER, [Message(SENDER, number, k, values, MAP) for k in range(load.frames)])]
            )
        for _ in range(3):  # the two that it was ahead, and the last
            transport.receive(lambda: "credit")
        transport.close()


def _transport(node: int, folder: Path, address: str, nbytes: int) -> ZmqTransport:
    return ZmqTransport(
        node=node, run=RUN, folder=folder, max_payload_bytes=nbytes, timeout_s=60.0, listen=Listen(address)
    )


def _exchange(transport: ZmqTransport, other: int) -> None:
    assert transport.endpoint is not None
    say(address=transport.endpoint.address, key=transport.endpoint.key.decode())
    told = hear()
    transport.connect({other: Endpoint(told["address"], told["key"].encode())})


def end(role: str, how: str, address: str, load: Load) -> None:
    """One end of a pair; the receiver's last line says how long it took."""
    if role == "sender":
        if how == "decentral":
            our_sender(address, load)
        else:
            raw_sender(load)
    elif how == "decentral":
        say(took=our_receiver(address, load))
    else:
        say(took=raw_receiver(address, load, secure=how == "curve"))


def pair_gb_per_s(how: str, options: argparse.Namespace, frames: int, nbytes: int) -> float:
    """Gigabytes per second between two new processes."""
    load = Load(max(10, int(options.gigabytes * 1e9 / (frames * nbytes))), frames, nbytes)

    def start(role: str, namespace: str | None, address: str) -> subprocess.Popen[str]:
        inside = ["ip", "netns", "exec", namespace] if namespace else []
        numbers = map(str, load)
        command = [
            *inside,
            sys.executable,
            "-P",
            "-m",
            "tests.bench.curve",
            "--end",
            role,
            how,
            address,
            *numbers,
        ]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    with (
        start("receiver", options.receiver_ns, options.address) as receiver,
        start("sender", options.sender_ns, options.sender_address or options.address) as sender,
    ):
        assert receiver.stdin
        assert receiver.stdout
        assert sender.stdin
        assert sender.stdout
        sender.stdin.write(receiver.stdout.readline())
        sender.stdin.flush()
        if how == "decentral":
            receiver.stdin.write(sender.stdout.readline())
            receiver.stdin.flush()
        assert sender.wait() == 0
        receiver.stdin.close()
        took: float = json.loads(receiver.stdout.readline())["took"]
    return load.batches * frames * nbytes / 1e9 / took


def main() -> None:
    """Print one JSON line per size: medians over rounds of trials."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gigabytes", type=float, default=0.5, help="moved per trial")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--address", default="127.0.0.1", help="of the receiver")
    parser.add_argument("--sender-address", help="of the sender; default: the receiver's")
    parser.add_argument("--receiver-ns", help="network namespace of the receiver")
    parser.add_argument("--sender-ns", help="network namespace of the sender")
    parser.add_argument("--end", nargs=6, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.end:
        role, how, address, *numbers = options.end
        end(role, how, address, Load(*map(int, numbers)))
        return
    if (options.receiver_ns or options.sender_ns) and not shutil.which("ip"):
        parser.error(
            "network namespaces need iproute2: install it or leave --receiver-ns and --sender-ns out"
        )
    os.environ.update(MALLOC)  # of the ends
    for frames, nbytes in SIZES:
        trials = [
            {how: pair_gb_per_s(how, options, frames, nbytes) for how in ("raw", "curve", "decentral")}
            for _ in range(options.repeats)
        ]
        result: dict[str, object] = {"frames": frames, "bytes_per_frame": nbytes}
        for how in ("raw", "curve", "decentral"):
            result[f"{how}_gb_per_s"] = round(statistics.median(trial[how] for trial in trials), 2)
        for one, other in (("curve", "raw"), ("decentral", "curve"), ("decentral", "raw")):
            ratio = statistics.median(trial[one] / trial[other] for trial in trials)
            result[f"{one}_of_{other}"] = round(ratio, 2)
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
