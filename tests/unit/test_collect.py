"""Growing files get from a host to the run folder whole, in any pieces, and nowhere else."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import IO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decentral.arrays import FloatArray
from decentral.errors import PreflightError, RunFailed
from launch import collect
from launch.collect import Collector, land
from launch.process import save_model


class Pair:
    """A collector on one side and the folder where things land on the other."""

    def __init__(self, folder: Path) -> None:
        self.here, self.there = folder / "here", folder / "there"
        self.here.mkdir()
        self.pieces: list[tuple[str, int, int]] = []
        self.collector = Collector(self.here, self.take)

    def take(self, path: str, offset: int, piece: bytes) -> None:
        self.pieces.append((path, offset, len(piece)))
        land(self.there, "h", path, offset, piece)

    def collect_all(self) -> None:
        while self.collector.collect():
            pass

    def landed(self) -> dict[str, bytes]:
        files = self.there.rglob("*") if self.there.exists() else ()
        return {p.relative_to(self.there).as_posix(): p.read_bytes() for p in files if p.is_file()}


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.sampled_from(["a", "b/c"]), st.binary(max_size=40)), max_size=12))
def test_what_grows_lands_byte_by_byte(
    tmp_path_factory: pytest.TempPathFactory, writes: list[tuple[str, bytes]]
) -> None:
    pair = Pair(tmp_path_factory.mktemp("pair"))
    expected: dict[str, bytes] = {}
    for name, piece in writes:
        path = pair.here / name
        path.parent.mkdir(exist_ok=True)
        with path.open("ab") as file:
            file.write(piece)
        expected[name] = expected.get(name, b"") + piece
        pair.collector.collect()
        assert pair.landed() == expected
    before = len(pair.pieces)
    pair.collect_all()
    assert len(pair.pieces) == before, "what has been sent was sent again"


def test_a_file_that_is_begun_anew_replaces_the_old_one(pair: Pair) -> None:
    (pair.here / "a").write_bytes(b"0123456789")
    pair.collector.collect()
    (pair.here / "a").write_bytes(b"new")
    pair.collector.collect()
    assert pair.landed() == {"a": b"new"}


def test_what_is_not_complete_stays(pair: Pair) -> None:
    (pair.here / "links.part").write_bytes(b"half")
    (pair.here / ".lock").write_bytes(b"")
    (pair.here / ".hidden").mkdir()
    (pair.here / ".hidden" / "file").write_bytes(b"x")
    pair.collect_all()
    assert pair.landed() == {}


def test_a_model_is_there_whole_or_not(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is collected while it is written, and a disk that is full in the middle leaves nothing of it."""
    path = pair.here / "models" / "003.npy"
    path.parent.mkdir()
    x = np.arange(5, dtype=np.float32)
    save = np.save
    full = False

    def slowly(file: IO[bytes], array: FloatArray) -> None:
        file.write(b"half")
        file.flush()
        pair.collect_all()
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        file.seek(0)
        save(file, array)

    monkeypatch.setattr(np, "save", slowly)
    save_model(path, x)
    assert pair.landed() == {}
    full = True
    with pytest.raises(PreflightError, match=r"004\.npy: No space left"):
        save_model(path.with_name("004.npy"), x)
    assert list(path.parent.iterdir()) == [path]
    pair.collect_all()
    assert np.load(pair.there / "models" / "003.npy").tobytes() == x.tobytes()


def test_what_the_other_end_has_is_not_sent(pair: Pair) -> None:
    (pair.here / "a").write_bytes(b"0123456789")
    land(pair.there, "h", "a", 0, b"0123")
    pair.collector.known("a", 4)
    pair.collector.collect()
    assert pair.pieces == [("a", 4, 6)]
    assert pair.landed() == {"a": b"0123456789"}


def test_logs_go_before_checkpoints_and_lists_after_their_files(pair: Pair) -> None:
    for name in ("checkpoints/10/checkpoint.json", "checkpoints/10/node-000.ckpt", "checkpoints/9/a.ckpt"):
        (pair.here / name).parent.mkdir(parents=True, exist_ok=True)
        (pair.here / name).write_bytes(b"x")
    (pair.here / "nodes").mkdir()
    (pair.here / "nodes" / "000.jsonl").write_bytes(b"{}")
    pair.collect_all()
    assert [name for name, _, _ in pair.pieces] == [
        "nodes/000.jsonl",
        "checkpoints/9/a.ckpt",
        "checkpoints/10/node-000.ckpt",
        "checkpoints/10/checkpoint.json",
    ]


def test_one_round_sends_a_bounded_amount(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collect, "PIECE_BYTES", 4)
    monkeypatch.setattr(collect, "ROUND_BYTES", 8)
    (pair.here / "a").write_bytes(bytes(range(20)))
    pair.collector.collect()
    assert [size for _, _, size in pair.pieces] == [4, 4]
    pair.collect_all()
    assert pair.landed() == {"a": bytes(range(20))}


@pytest.mark.parametrize("path", ["/etc/x", "../x", "a/../../x", "", "a\0b"])
def test_paths_that_lead_out_are_refused(pair: Pair, path: str) -> None:
    with pytest.raises(RunFailed, match="leads out of the run folder"):
        land(pair.there, "h", path, 0, b"x")
    assert pair.landed() == {}


def test_a_gap_is_refused(pair: Pair) -> None:
    land(pair.there, "h", "a", 0, b"01")
    with pytest.raises(RunFailed, match="from byte 5 on and 2 are here"):
        land(pair.there, "h", "a", 5, b"x")


def test_an_unwritable_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PreflightError, match="cannot write"):
        land(tmp_path / "file", "h", "a", 0, b"x")
