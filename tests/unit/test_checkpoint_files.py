"""A checkpoint's file holds what was written, or says that it does not."""

from __future__ import annotations

import math
import os
import random
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decentral.checkpoint import files
from decentral.checkpoint.files import checked, read, write
from decentral.checkpoint.plain import Decoder, Encoder
from decentral.errors import CheckpointError, PreflightError
from decentral.messages import Kind, Message
from decentral.network.flows import Flow
from decentral.network.model import INFINITE_NS, Item
from decentral.speech import Answer, Put, Role, Served, Speech, Totals
from decentral.standing import Standing
from tests.emulated import MAP, item, message

whole = st.integers(-(2**63), 2**63 - 1)
plain = st.recursive(
    st.none() | st.booleans() | whole | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(whole | st.tuples(st.integers(0, 9), st.integers(0, 9)), inner)
        | st.sets(whole)
        | st.lists(inner).map(deque)
    ),
    max_leaves=20,
)


def again(value: Any) -> Any:
    """``value`` after a round trip."""
    encoder = Encoder()
    packed = encoder.pack(value)
    return Decoder([array.data.cast("B") for array in encoder.arrays]).unpack(packed)


@given(plain)
def test_plain_values_come_back_with_their_types(value: Any) -> None:
    came = again(value)
    assert came == value
    assert type(came) is type(value)


def test_what_a_run_is_made_of_comes_back() -> None:
    put = Put(5, True, [item(1, 8, 0), item(2, 8, 1, Role.REQUEST)])
    answer = Answer(3, 7, True, [(1, 2)], [Served(1, 2, -1, False)], [4], Totals(1, 2, 3, 4))
    standing = Standing(eager=True, promise_ns=INFINITE_NS, counts={-1: 2}, mailbox={(1, 0): 8})
    standing.speech = Speech(0, 5, [put], -1, 2, INFINITE_NS, 0)
    value = {"agenda": [(5, 2, 0, 1, put)], "answer": answer, "standing": [standing], "nan": math.nan}
    came = again(value)
    assert came["agenda"] == value["agenda"]
    assert came["answer"] == answer
    assert math.isnan(came["nan"])
    (restored,) = came["standing"]
    for name in Standing.__slots__:
        assert getattr(restored, name) == getattr(standing, name), name
    role = came["agenda"][0][4].items[1].role
    assert type(role) is Role


def test_a_transfer_in_two_places_is_one_transfer() -> None:
    flow = Flow(1, Item(2, 8, 0, 0, 0, 0), 3, 4, 64)
    flow.rate, flow.lost = 1.5e6, True
    came = again({"active": {2: flow}, "ends": [(9, 1, 3, flow)]})
    assert came["active"][2] is came["ends"][0][3]
    for name in Flow.__slots__:
        assert getattr(came["active"][2], name) == getattr(flow, name), name


def test_arrays_come_back_to_the_bit_and_each_is_stored_once() -> None:
    values = np.array([1.5, -0.0, np.nan, np.inf], dtype=np.float32)
    sent = [Message(0, 3, 0, values, MAP, 9, Kind.REQUEST, number, 2) for number in range(40)]
    table = np.arange(6, dtype=np.int64).reshape(2, 3)
    encoder = Encoder()
    packed = encoder.pack({"sent": sent, "table": table, "empty": np.zeros((0, 2))})
    assert [array.nbytes for array in encoder.arrays] == [16, 48, 0]
    came = Decoder([array.tobytes() for array in encoder.arrays]).unpack(packed)  # type: ignore[misc]
    for before, after in zip(sent, came["sent"], strict=True):
        assert after.values.tobytes() == values.tobytes()
        assert after._replace(values=None) == before._replace(values=None)
        assert type(after.kind) is Kind
    assert came["table"].tolist() == table.tolist()
    assert came["empty"].shape == (0, 2)
    came["table"][0, 0] = 7  # restored state can be written to


@pytest.mark.parametrize("value", [object(), lambda: None, Path("x"), {"a": [print]}, 1j, 2**70])
def test_what_cannot_be_kept_is_named(value: Any) -> None:
    with pytest.raises(CheckpointError, match="cannot keep"):
        Encoder().pack(value)


def test_an_unknown_class_is_not_made() -> None:
    encoder = Encoder()
    packed = encoder.pack(item(1, 8, 0)).replace(b"Item", b"Iron")
    with pytest.raises(CheckpointError, match="something unknown"):
        Decoder([]).unpack(packed)


def test_a_file_is_written_whole_and_checked_before_it_is_used(tmp_path: Path) -> None:
    value = {"x": np.linspace(0, 1, 50, dtype=np.float32), "heard": [(0, [message(1)])]}
    path = tmp_path / "deep" / "node-000.ckpt"
    written = write(path, value)
    assert (written.name, written.nbytes) == ("node-000.ckpt", path.stat().st_size)
    assert sorted(os.listdir(path.parent)) == ["node-000.ckpt"]
    assert read(path, written)["x"].tobytes() == value["x"].tobytes()  # type: ignore[attr-defined]
    other = write(tmp_path / "other", {"x": 1})
    with pytest.raises(CheckpointError, match="it is not whole"):
        read(path, other)
    with pytest.raises(CheckpointError, match="another checkpoint"):
        read(path, written._replace(digest=other.digest))
    with pytest.raises(CheckpointError, match="cannot be read: No such file"):
        read(tmp_path / "missing")


def test_no_damage_goes_unnoticed(tmp_path: Path) -> None:
    """Every byte flipped, every length cut off: named each time, nothing is ever unpacked from it."""
    path = tmp_path / "f"
    write(path, {"x": np.arange(9, dtype=np.float32), "n": [1, (2, "three")]})
    whole = path.read_bytes()
    chance = random.Random(1)
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=str(path)):
            read(path)
        path.write_bytes(whole[:position])
        with pytest.raises(CheckpointError, match=str(path)):
            read(path)
    path.write_bytes(whole + b"!")
    with pytest.raises(CheckpointError, match="damaged"):
        checked(path)


def test_another_format_version_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "FORMAT_VERSION", 2)
    write(tmp_path / "f", {})
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="format version 2, this program reads 1"):
        read(tmp_path / "f")


def test_a_folder_in_the_way_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    with pytest.raises(PreflightError, match=f"cannot write {tmp_path / 'f'}"):
        write(tmp_path / "f", {})
    assert os.listdir(tmp_path) == ["f"]


def test_the_folders_of_a_file_are_on_the_disk_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is not synced into the folder above it may be gone after a power cut, with the file in it."""
    synced: list[str] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{fd}"))
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    folder = tmp_path / "checkpoints" / "000003"
    write(folder / "a.ckpt", 1)
    assert synced[:2] == [str(tmp_path), str(folder.parent)]
    assert synced[-1] == str(folder)
    synced.clear()
    write(folder / "b.ckpt", 1)
    assert {str(tmp_path), str(folder.parent)}.isdisjoint(synced), "once"
    assert synced[-1] == str(folder)
