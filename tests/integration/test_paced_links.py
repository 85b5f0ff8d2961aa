"""Paced links between real processes: within the promised bounds, or flagged; overload is always flagged.

The file is also the program that plays one node: ``test_paced_links.py NODE NODES FOLDER CONTENTION LOAD``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decentral.accounts import link_rows
from decentral.fidelity import NOT_TRUSTWORTHY, TRUSTWORTHY, merge
from decentral.messages import Message
from decentral.network.model import NetworkModel
from decentral.seeding import Seeds
from decentral.speech import Role
from decentral.transports.zeromq import ZmqTransport
from decentral.wall import WallMedium

NODES, ROUNDS, ROUND_S, FRAGMENTS, FLOATS = 3, 20, 0.1, 8, 9_000
UPLINK_BPS, LATENCY_NS = 60e6, 5_000_000
TIMEOUT_S = 60.0


def play(node: int, n: int, folder: Path, contention: Any, *, busy: bool) -> dict[str, Any]:
    """Rounds of computing and refilling, between the words of whoever started this process."""
    rates = np.full(n, UPLINK_BPS)
    model = NetworkModel(
        n=n,
        uplink_bps=rates,
        downlink_bps=rates,
        latency_ns=np.array([[LATENCY_NS]]),
        contention=contention,
        seeds=Seeds(5),
    )
    transport = ZmqTransport(
        node=node, run=b"\x00" * 8, folder=folder, max_payload_bytes=1 << 20, timeout_s=TIMEOUT_S
    )
    medium = WallMedium(
        node=node,
        observer=n,
        model=model,
        transport=transport,
        by_round=False,
        batch_bytes=1 << 20,
        timeout_s=TIMEOUT_S,
    )
    others = [j for j in range(n) if j != node]
    matrix = np.ones((150, 150), dtype=np.float32)

    def work(poll: Callable[[], None] | None) -> None:
        end_s = time.monotonic() + ROUND_S
        while time.monotonic() < end_s:
            if busy:
                matrix @ matrix
            else:
                time.sleep(0.01)

    meet("bound")
    medium.start()
    for t in range(ROUNDS):
        outgoing = [
            (j, Message(node, t, k, np.full(FLOATS, t, np.float32), b"mapmapma"))
            for k in range(FRAGMENTS)
            for j in others
        ]
        medium.put(outgoing, role=Role.LATEST, flush=True)
        medium.compute(work, 0)
    medium.leave(drop=True)
    meet("left")
    medium.close()
    transport.close()
    return medium.report()


def meet(word: str) -> None:
    """Say ``word`` and wait until everybody has."""
    print(word, flush=True)
    sys.stdin.readline()


@contextmanager
def started(command: list[str], core: int | None) -> Iterator[subprocess.Popen[str]]:
    """A process, on one core or any; killed and waited for at the end."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        try:
            if core is not None:
                os.sched_setaffinity(process.pid, {core})
            yield process
        finally:
            process.kill()


def run_nodes(contention: str, *, core: int | None = None, hogs: int = 0) -> list[dict[str, Any]]:
    """The reports of nodes that ran together, on one core with ``hogs`` other processes or on any."""
    folder = tempfile.mkdtemp(prefix="wall-")  # not tmp_path: a socket's path may have 107 bytes
    try:
        with ExitStack() as stack:
            busy = "busy" if hogs else "idle"
            nodes = [
                stack.enter_context(
                    started([sys.executable, __file__, str(i), str(NODES), folder, contention, busy], core)
                )
                for i in range(NODES)
            ]
            for word in ("bound", "left"):
                for node in nodes:
                    assert node.stdout is not None
                    assert node.stdout.readline() == f"{word}\n"
                if word == "bound":
                    for _ in range(hogs):
                        stack.enter_context(started([sys.executable, "-c", "while True: pass"], core))
                for node in nodes:
                    assert node.stdin is not None
                    node.stdin.write("\n")
                    node.stdin.flush()
            reports = []
            for node in nodes:
                output, _ = node.communicate(timeout=TIMEOUT_S)
                assert node.returncode == 0
                reports.append(json.loads(output))
            return reports
    finally:
        shutil.rmtree(folder)


def check_accounts(reports: list[dict[str, Any]]) -> None:
    rows = link_rows(reports)
    fates = [name for name in rows[0] if name not in {"node", "to"} and not name.startswith("made")]
    for row in rows:
        for k in range(NODES - 1):
            assert row["made"][k] == ROUNDS * FRAGMENTS
            for suffix, made in (("", "made"), ("_bytes", "made_bytes")):
                ours = [name for name in fates if name.endswith("_bytes") == bool(suffix)]
                assert sum(row[name][k] for name in ours) == row[made][k]


@pytest.mark.parametrize("contention", ["uplink", "both"])
def test_links_between_processes_keep_their_promises_or_are_flagged(contention: str) -> None:
    reports = run_nodes(contention)
    check_accounts(reports)
    merged = merge([report["fidelity"] for report in reports], NODES)
    assert len(merged["links"]) == NODES * (NODES - 1)
    assert merged["verdict"] == (NOT_TRUSTWORTHY if merged["reasons"] else TRUSTWORTHY)
    if merged["reasons"]:
        pytest.skip(f"this machine has other things to do: {'; '.join(merged['reasons'])}")
    if contention == "uplink":
        assert all(link["asked_bps"] == pytest.approx(UPLINK_BPS) for link in merged["links"])
    timed = [link for link in merged["links"] if link["achieved_bps"] is not None]
    ratios = sorted(link["achieved_bps"] / link["asked_bps"] for link in timed)
    assert ratios[len(ratios) // 2] == pytest.approx(1.0, abs=0.06)
    lates_s = sorted(link["achieved_latency_s"] - link["asked_latency_s"] for link in merged["links"])
    assert 0 <= lates_s[len(lates_s) // 2] < 0.0021


def test_overload_is_flagged() -> None:
    reports = run_nodes("uplink", core=min(os.sched_getaffinity(0)), hogs=4)
    check_accounts(reports)
    merged = merge([report["fidelity"] for report in reports], NODES)
    assert merged["verdict"] == NOT_TRUSTWORTHY
    assert merged["reasons"]


if __name__ == "__main__":
    number, count, where, shared, load = sys.argv[1:]
    told = play(int(number), int(count), Path(where), shared, busy=load == "busy")
    print(json.dumps(told), flush=True)
