"""Frames between launcher and agent, however the bytes arrive."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decentral.errors import RunFailed
from launch.protocol import MAX_FRAME_BYTES, FrameReader, FrameWriter

LEAVES = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary()
MESSAGES = st.dictionaries(
    st.text(max_size=8),
    LEAVES | st.lists(LEAVES, max_size=4) | st.dictionaries(st.integers(0, 99), LEAVES, max_size=3),
)


class Pipe:
    def __init__(self) -> None:
        self.out, self.into = os.pipe()
        self.reader = FrameReader(self.out, "the agent on host h")

    def close(self) -> None:
        os.close(self.out)
        self.hang_up()

    def hang_up(self) -> None:
        if self.into >= 0:
            os.close(self.into)
            self.into = -1


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    made.close()


def frame(body: bytes) -> bytes:
    return struct.pack("<I", len(body)) + body + b"\n"


@given(st.lists(MESSAGES, max_size=5), st.data())
def test_messages_arrive_whatever_the_chunks(messages: list[dict[str, Any]], data: st.DataObject) -> None:
    pipe = Pipe()
    try:
        stream = b"".join(frame(msgpack.packb(message)) for message in messages)
        cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=10).map(sorted))
        got = []
        for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
            if start < end:
                os.write(pipe.into, stream[start:end])
                got += pipe.reader.read()
        assert got == messages
        assert not pipe.reader.ended
        pipe.hang_up()
        assert pipe.reader.read() == []
        assert pipe.reader.ended
    finally:
        pipe.close()


def test_what_is_written_is_read(pipe: Pipe) -> None:
    writer = FrameWriter(pipe.into)
    writer.write({"is": "exited", "member": 3, "status": -9})
    writer.write({"is": "over"})
    assert writer.pending == 0
    assert pipe.reader.read() == [{"is": "exited", "member": 3, "status": -9}, {"is": "over"}]


def test_a_frame_larger_than_the_pipe_waits_and_never_blocks(pipe: Pipe) -> None:
    message = {"is": "failed", "what": "x" * 3_000_000}
    writer = FrameWriter(pipe.into)
    writer.write(message)
    writer.write({"is": "over"})
    assert writer.pending > 2_000_000
    got: list[dict[str, Any]] = []
    while len(got) < 2:
        got += pipe.reader.read()
        writer.flush()
    assert got == [message, {"is": "over"}]
    assert writer.pending == 0


def test_nobody_reads(pipe: Pipe) -> None:
    writer = FrameWriter(pipe.into)
    os.close(pipe.out)
    with pytest.raises(BrokenPipeError):
        writer.write({"is": "over"})
    pipe.out = os.open(os.devnull, os.O_RDONLY)


def test_nothing_is_written_to_a_number_that_is_another_file_by_now(pipe: Pipe) -> None:
    writer = FrameWriter(pipe.into)
    writer.write({"is": "file", "data": bytes(1 << 20)})
    assert writer.pending
    writer.shut()
    number = pipe.into
    pipe.hang_up()
    other = os.memfd_create("other")
    try:
        assert other == number
        writer.write({"do": "beat"})
        writer.flush()
        assert os.fstat(other).st_size == 0
        assert writer.pending == 0
    finally:
        os.close(other)


def test_a_stream_that_ends_within_a_frame_has_ended(pipe: Pipe) -> None:
    os.write(pipe.into, frame(msgpack.packb({"is": "over"}))[:-1])
    assert pipe.reader.read() == []
    assert not pipe.reader.ended
    pipe.hang_up()
    assert pipe.reader.read() == []
    assert pipe.reader.ended


def test_every_frame_ends_a_line(pipe: Pipe) -> None:
    """srun keeps what follows the last line break, so a frame without one would never arrive."""
    FrameWriter(pipe.into).write({"is": "over"})
    assert os.read(pipe.out, 1000).endswith(b"\n")


def test_a_frame_that_does_not_end_is_damage(pipe: Pipe) -> None:
    os.write(pipe.into, frame(msgpack.packb({"is": "over"}))[:-1] + b"x")
    with pytest.raises(RunFailed, match="does not end where it says"):
        pipe.reader.read()


@pytest.mark.parametrize("text", [b"Traceback (most recent call last):\n", b"warning: ...\n", b"\n\n\n\n"])
def test_text_between_frames_is_damage(pipe: Pipe, text: bytes) -> None:
    os.write(pipe.into, text)
    with pytest.raises(RunFailed, match=r"the agent on host h sent a frame of \d+ bytes"):
        pipe.reader.read()


def test_the_longest_frame_is_accepted_and_one_byte_more_is_not(pipe: Pipe) -> None:
    os.write(pipe.into, struct.pack("<I", MAX_FRAME_BYTES))
    assert pipe.reader.read() == []
    other = Pipe()
    os.write(other.into, struct.pack("<I", MAX_FRAME_BYTES + 1))
    with pytest.raises(RunFailed, match=str(MAX_FRAME_BYTES + 1)):
        other.reader.read()
    other.close()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        b"\x81\xa2is",
        b"\x81\xa2is\xa1x trailing",
        b"\xa1\xff",
        b"\x07",
        b"\x93\x01\x02\x03",
        b"\xc0",
        b"\x81\x90\x01",
    ],
)
def test_a_damaged_body_is_damage(pipe: Pipe, body: bytes) -> None:
    os.write(pipe.into, frame(body))
    with pytest.raises(RunFailed, match="the agent on host h sent"):
        pipe.reader.read()


@given(st.binary(max_size=200))
def test_any_bytes_give_tables_or_a_report_of_damage(stream: bytes) -> None:
    pipe = Pipe()
    try:
        os.write(pipe.into, stream)
        pipe.hang_up()
        while not pipe.reader.ended:
            try:
                assert all(isinstance(message, dict) for message in pipe.reader.read())
            except RunFailed as damage:
                if "the agent on host h" not in str(damage):
                    raise
                return
    finally:
        pipe.close()
