"""A member that is sent anything at all from other hosts: it lives, stays small, and counts what it refuses.

20,000 multiparts by default; ``DECENTRAL_FULL=1`` sends 1,000,000.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decentral.messages import Message
from decentral.transports.addresses import Endpoint, Listen, encode_book
from decentral.transports.zeromq import ZmqTransport
from tests.integration.fuzzing import MAP, Flood, Fuzzer, Strangers
from tests.integration.receiving import FUZZERS, HONEST, MAX_PAYLOAD_BYTES, MEMBERS, RECEIVER, RUN

ROOT = Path(__file__).parents[2]
FULL = os.environ.get("DECENTRAL_FULL") == "1"
FRAMES = 1_000_000 if FULL else 20_000
WARM = 1000
"""Not counted in the growth of memory: connections are made and libraries loaded."""
HONEST_EVERY = 50
STRANGERS = 40
FLOOD_BYTES = 8 << 20
GROWTH_KB = 64 * 1024
REASONS = {
    *("malformed", "version", "oversized", "foreign", "replayed"),
    *("sender", "kind", "key", "unauthenticated"),
}
PATIENCE_S = 60.0


class Receiver:
    """The process."""

    def __init__(self, folder: Path, max_payload_bytes: int = MAX_PAYLOAD_BYTES) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tests.integration.receiving", str(folder), str(max_payload_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            text=True,
        )
        told = self._hear()
        self.endpoint = Endpoint(told["address"], told["key"].encode())

    def tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def report(self) -> dict[str, Any]:
        self.tell("report")
        return self._hear()

    def await_report(self, complete: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first report that is complete, or the last before patience ends."""
        deadline = time.monotonic() + PATIENCE_S
        while not complete(report := self.report()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return report

    def close(self) -> tuple[int, str]:
        """Exit status and what it said on standard error."""
        _, said = self._process.communicate(timeout=PATIENCE_S)
        return self._process.returncode, said

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()

    def _hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the receiver is gone: {self._process.communicate()}"
        heard: dict[str, Any] = json.loads(line)
        return heard


@pytest.fixture
def folder() -> Iterator[Path]:
    """Not ``tmp_path``: a socket's path may have 107 bytes."""
    made = Path(tempfile.mkdtemp(prefix="fz-"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def receiver(folder: Path) -> Iterator[Receiver]:
    made = Receiver(folder)
    yield made
    made.kill()


@pytest.fixture
def honest(folder: Path) -> Iterator[ZmqTransport]:
    (elsewhere := folder / "elsewhere").mkdir()
    made = ZmqTransport(
        node=HONEST,
        run=RUN,
        folder=elsewhere,
        max_payload_bytes=MAX_PAYLOAD_BYTES,
        timeout_s=PATIENCE_S,
        listen=Listen("127.0.0.1"),
    )
    yield made
    made.close()


@pytest.fixture
def strangers(receiver: Receiver) -> Iterator[Strangers]:
    made = Strangers(receiver.endpoint, random.Random(21))
    yield made
    made.close()


@dataclass
class Sent:
    """What was sent, and what is to become of it."""

    refused: Counter[str]
    accepted: dict[str, int]
    base_kb: int


def acquaint(receiver: Receiver, honest: ZmqTransport, fuzzers: list[Fuzzer]) -> None:
    """Everybody knows the receiver, and it knows them."""
    honest.connect({RECEIVER: receiver.endpoint})
    book = {fuzzer.number: fuzzer.connect(receiver.endpoint) for fuzzer in fuzzers}
    assert honest.endpoint is not None
    book[HONEST] = honest.endpoint
    assert len(book) + 1 == MEMBERS
    receiver.tell(encode_book(book).hex())


def send(receiver: Receiver, honest: ZmqTransport, fuzzers: list[Fuzzer], strangers: Strangers) -> Sent:
    """Everything, in one seeded order."""
    chance = random.Random(22)
    sent = Sent(Counter(), {str(HONEST): 0}, 0)
    for count in range(FRAMES):
        fuzzer = chance.choice(fuzzers)
        reason = fuzzer.send()
        if reason is None:
            sent.accepted[str(fuzzer.number)] = sent.accepted.get(str(fuzzer.number), 0) + 1
        else:
            sent.refused[reason] += 1
        if count % HONEST_EVERY == 0:
            number = count // HONEST_EVERY
            values = np.full(5, number, dtype=np.float32)
            honest.send([(RECEIVER, [Message(HONEST, number, 0, values, MAP)])])
            sent.accepted[str(HONEST)] += 1
        if count == WARM:
            sent.base_kb = receiver.report()["rss_kb"]
        if count % (FRAMES // STRANGERS) == 0:
            strangers.come()
    sent.refused += strangers.expected
    return sent


@pytest.mark.timeout(7200 if FULL else 300)
def test_anything_at_all_is_counted_and_harmless(
    receiver: Receiver, honest: ZmqTransport, strangers: Strangers
) -> None:
    fuzzers = [Fuzzer(number, random.Random(number)) for number in FUZZERS]
    acquaint(receiver, honest, fuzzers)
    try:
        sent = send(receiver, honest, fuzzers, strangers)
    finally:
        for fuzzer in fuzzers:
            fuzzer.close()
    report = receiver.await_report(
        lambda report: report["accepted"] == sent.accepted and report["refused"] == sent.refused
    )
    growth_kb = report["peak_kb"] - sent.base_kb
    print(f"\n{FRAMES} multiparts, {growth_kb} kB more memory: {report}")
    assert report["refused"] == sent.refused
    assert report["accepted"] == sent.accepted
    assert report["in_order"]
    assert set(sent.refused) == REASONS
    assert growth_kb <= GROWTH_KB
    code, said = receiver.close()
    assert code == 0
    assert said
    assert all("refused a connection from " in line for line in said.splitlines())


@pytest.mark.timeout(300)
def test_strangers_that_never_end_their_handshake_take_no_memory(folder: Path, honest: ZmqTransport) -> None:
    """Of a member that may be sent long frames: none of theirs is held."""
    receiver = Receiver(folder, max_payload_bytes=8 * FLOOD_BYTES)
    try:
        honest.connect({RECEIVER: receiver.endpoint})
        assert honest.endpoint is not None
        receiver.tell(encode_book({HONEST: honest.endpoint}).hex())
        base_kb = receiver.report()["rss_kb"]
        flood = Flood(receiver.endpoint, STRANGERS, FLOOD_BYTES)
        refused = {"unauthenticated": STRANGERS}
        report = receiver.await_report(lambda report: report["refused"] == refused)
        flood.close()
        growth_kb = report["peak_kb"] - base_kb
        print(f"\n{STRANGERS} strangers with {FLOOD_BYTES} bytes each, {growth_kb} kB more memory: {report}")
        assert report["refused"] == refused
        assert growth_kb <= GROWTH_KB
        honest.send([(RECEIVER, [Message(HONEST, 0, 0, np.zeros(5, dtype=np.float32), MAP)])])
        accepted = {str(HONEST): 1}
        assert receiver.await_report(lambda report: report["accepted"] == accepted)["refused"] == refused
        assert receiver.close()[0] == 0
    finally:
        receiver.kill()
