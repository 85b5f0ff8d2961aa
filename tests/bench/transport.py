"""Handed over to aggregated, against raw pyzmq, between two processes: ``python tests/bench/transport.py``.

Both sides move the same number of frames of the same size over one ipc PUSH/PULL pair. ``raw`` only touches
the first float of what it receives; ``decentral`` queues, sends, verifies, stores and averages.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import zmq

from decentral.fragments import Fragmenter, Fragments
from decentral.messages import Message
from decentral.mixing import Part, average
from decentral.queues import InQueue, Traffic
from decentral.seeding import Seeds
from decentral.transports.batches import grouped
from decentral.transports.zeromq import ZmqTransport

RUN = bytes(8)
SENDERS = 4
"""Nodes whose fragments are averaged in one round, as at degree 4; all in one process."""
RECEIVER = SENDERS
ROUNDS_AHEAD = 2
WARM_ROUNDS = 8
"""Not timed: connections are made and buffers touched for the first time."""


def raw_sender(folder: Path, frames: int, nbytes: int, rounds: int, barrier: Barrier) -> None:
    """Send ``rounds`` multiparts of ``frames`` frames, copying each payload once, as fast as accepted."""
    context = zmq.Context()
    socket = context.socket(zmq.PUSH)
    socket.setsockopt(zmq.SNDHWM, 4)
    socket.connect(f"ipc://{folder}/raw")
    payload = np.ones(nbytes // 4, dtype=np.float32)
    barrier.wait()
    for _ in range(rounds + SENDERS * WARM_ROUNDS):
        socket.send_multipart(
            [b"header", *(zmq.Frame(payload.data, copy=True) for _ in range(frames))], copy=False
        )
    barrier.wait()
    context.destroy(linger=-1)


def raw_receiver(folder: Path, rounds: int, barrier: Barrier) -> float:
    """Receive everything; returns seconds."""
    context = zmq.Context()
    socket = context.socket(zmq.PULL)
    socket.setsockopt(zmq.RCVHWM, 4)
    socket.bind(f"ipc://{folder}/raw")
    barrier.wait()
    for number in range(rounds + SENDERS * WARM_ROUNDS):
        if number == SENDERS * WARM_ROUNDS:
            began = time.perf_counter()
        for frame in socket.recv_multipart(copy=False)[1:]:
            np.frombuffer(frame.buffer, dtype=np.float32)[0]
    took = time.perf_counter() - began
    barrier.wait()
    context.destroy(linger=0)
    return took


def our_sender(folder: Path, frames: int, nbytes: int, rounds: int, barrier: Barrier) -> None:
    """Queue and send ``SENDERS`` nodes' fragments of every round to one receiver."""
    transports = [_transport(i, folder, frames * nbytes) for i in range(SENDERS)]
    fragments = _fragments(frames, nbytes)
    x = np.ones(fragments.d, dtype=np.float32)
    values = [x[fragments.slice(k)] for k in range(frames)]
    barrier.wait()
    for t in range(rounds + WARM_ROUNDS):
        if t >= ROUNDS_AHEAD:
            transports[0].receive(lambda: "credit")  # bounds what is under way, as the raw pair's mark does
        for i, transport in enumerate(transports):
            outgoing = [
                (RECEIVER, Message(i, t, k, values[k], fragments.map_hash, sequence=t * frames + k))
                for k in range(frames)
            ]
            transport.send(grouped(outgoing, frames * nbytes))
    barrier.wait()
    for transport in transports:
        transport.close()


def our_receiver(folder: Path, frames: int, nbytes: int, rounds: int, barrier: Barrier) -> float:
    """Receive, verify, store and average ``SENDERS`` messages a fragment and round; returns seconds."""
    transport = _transport(RECEIVER, folder, frames * nbytes)
    fragments = _fragments(frames, nbytes)
    x = np.zeros(fragments.d, dtype=np.float32)
    queue = InQueue(Traffic(), keep_rounds=True)
    credit = Message(RECEIVER, 0, 0, np.zeros(1, dtype=np.float32), fragments.map_hash)
    barrier.wait()
    for t in range(rounds + WARM_ROUNDS):
        if t == WARM_ROUNDS:
            began = time.perf_counter()
        while queue.arrived(t) < SENDERS * frames:
            for message in transport.receive(lambda: "fragments"):
                queue.put(message)
        transport.send([(0, [credit])])
        average(
            x,
            [Part(m.sender, m.fragment, fragments.slice(m.fragment), m.values) for m in queue.take_round(t)],
        )
    took = time.perf_counter() - began
    barrier.wait()
    transport.close()
    return took


def _fragments(frames: int, nbytes: int) -> Fragments:
    return Fragmenter(count=frames, map="contiguous", seeds=Seeds(1)).split([frames * nbytes // 4])


def _transport(node: int, folder: Path, nbytes: int) -> ZmqTransport:
    return ZmqTransport(node=node, run=RUN, folder=folder, max_payload_bytes=nbytes, timeout_s=60.0)


def pair_gb_per_s(
    sender: Callable[..., None], receiver: Callable[..., float], args: tuple[int, ...], gb: float
) -> float:
    """Gigabytes per second from ``sender``'s process to ``receiver`` in this one."""
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as scratch:
        barrier = context.Barrier(2)
        child = context.Process(target=sender, args=(Path(scratch), *args, barrier))
        child.start()
        needed = args if receiver is our_receiver else args[-1:]
        took = receiver(Path(scratch), *needed, barrier)
        child.join()
    return gb / took


MALLOC = {
    # What the launcher sets for its processes (launch/executors/local.py).
    "MALLOC_MMAP_THRESHOLD_": "1073741824",
    "MALLOC_TRIM_THRESHOLD_": "1073741824",
    "MALLOC_TOP_PAD_": "67108864",
}


def main() -> None:
    """Print one JSON line per size: medians over trials in which raw is measured before and after."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=0.5, help="moved per trial")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    if not MALLOC.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **MALLOC})
    for frames, nbytes in ((1, 360_000), (10, 36_000), (16, 22_460), (1, 4_000_000)):
        rounds = max(8, int(options.gigabytes * 1e9 / (SENDERS * frames * nbytes)))
        gb = rounds * SENDERS * frames * nbytes / 1e9
        raw_args, args = (frames, nbytes, rounds * SENDERS), (frames, nbytes, rounds)
        raw = [pair_gb_per_s(raw_sender, raw_receiver, raw_args, gb)]
        ours: list[float] = []
        for _ in range(options.repeats):
            ours.append(pair_gb_per_s(our_sender, our_receiver, args, gb))
            raw.append(pair_gb_per_s(raw_sender, raw_receiver, raw_args, gb))
        ratios = [2 * mine / (raw[i] + raw[i + 1]) for i, mine in enumerate(ours)]
        print(
            json.dumps(
                {
                    "frames": frames,
                    "bytes_per_frame": nbytes,
                    "raw_gb_per_s": round(statistics.median(raw), 2),
                    "decentral_gb_per_s": round(statistics.median(ours), 2),
                    "median_ratio": round(statistics.median(ratios), 2),
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
