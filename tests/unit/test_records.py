"""Logs: valid after every line, and an error that names the file where they cannot be written."""

from __future__ import annotations

import io
import json
import math
import os
from pathlib import Path

import pytest

from decentral.errors import PreflightError
from decentral.records import SCHEMA_VERSION, FileRecorder, MemoryRecorder

FULL = Path("/dev/full")


def lines(path: Path) -> list[dict[str, object]]:
    text = path.read_text(encoding="utf-8")
    assert text == "" or text.endswith("\n")

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def test_the_file_is_valid_after_every_line(tmp_path: Path) -> None:
    path = tmp_path / "nodes" / "007.jsonl"
    recorder = FileRecorder(path)
    assert lines(path) == []
    recorder.write("header", node=7, arm="Ω = 0.1\n")
    assert lines(path) == [{"v": SCHEMA_VERSION, "event": "header", "node": 7, "arm": "Ω = 0.1\n"}]
    for round_ in range(1, 4):
        recorder.write("round", node=7, round=round_, train_loss=1.5, final=False, cause=None)
        assert len(lines(path)) == round_ + 1
        assert lines(path)[-1] == {
            "event": "round",
            "node": 7,
            "round": round_,
            "train_loss": 1.5,
            "final": False,
            "cause": None,
        }
    recorder.close()
    assert len(lines(path)) == 4


def test_the_header_starts_with_version_and_event(tmp_path: Path) -> None:
    recorder = FileRecorder(tmp_path / "log")
    recorder.write("header", nodes=3)
    recorder.close()
    assert (tmp_path / "log").read_text().startswith('{"v":1,"event":"header",')


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_becomes_null(tmp_path: Path, value: float) -> None:
    path = tmp_path / "log"
    recorder = FileRecorder(path)
    recorder.write("round", train_loss=value, other=2.0)
    recorder.close()
    assert lines(path) == [{"event": "round", "train_loss": None, "other": 2.0}]
    memory = MemoryRecorder()
    memory.write("round", train_loss=value, other=2.0)
    assert memory.events == [{"event": "round", "train_loss": None, "other": 2.0}]


def test_floats_survive_to_the_bit(tmp_path: Path) -> None:
    values = [0.1, 1 / 3, 5e-324, 1.7976931348623157e308, -0.0]
    recorder = FileRecorder(tmp_path / "log")
    for value in values:
        recorder.write("round", x=value)
    recorder.close()
    read = [line["x"] for line in lines(tmp_path / "log")]
    assert [repr(value) for value in read] == [repr(value) for value in values]


def test_a_log_is_never_continued(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("earlier\n")
    with pytest.raises(PreflightError, match="File exists") as refusal:
        FileRecorder(path)
    assert str(path) in str(refusal.value)
    assert "--out" in str(refusal.value)
    assert path.read_text() == "earlier\n"


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "nodes" / "000.jsonl"
    with pytest.raises(PreflightError) as refusal:
        FileRecorder(path)
    assert str(path) in str(refusal.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to read-only folders")
def test_a_read_only_folder_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    path = tmp_path / "000.jsonl"
    with pytest.raises(PreflightError, match="Permission denied") as refusal:
        FileRecorder(path)
    tmp_path.chmod(0o700)
    assert str(path) in str(refusal.value)


@pytest.mark.skipif(not FULL.exists(), reason="needs the Linux device /dev/full")
def test_a_full_disk_is_reported_at_the_line_that_does_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "000.jsonl"

    def open_full(self: Path, mode: str, *, encoding: str) -> io.TextIOWrapper:
        assert (self, mode) == (path, "x")
        return open(FULL, "w", encoding=encoding)

    monkeypatch.setattr(Path, "open", open_full)
    recorder = FileRecorder(path)
    with pytest.raises(PreflightError, match="No space left on device") as refusal:
        recorder.write("header", node=0)
    assert str(path) in str(refusal.value)
    # What could not be written is still buffered: closing meets the same error and reports it likewise.
    with pytest.raises(PreflightError, match="No space left on device"):
        recorder.close()
    assert recorder._file.closed


def test_a_value_of_another_type_is_refused_loudly(tmp_path: Path) -> None:
    recorder = FileRecorder(tmp_path / "log")
    with pytest.raises(TypeError):
        recorder.write("round", x=object())  # type: ignore[arg-type]
    recorder.write("round", x=1)
    recorder.close()
    assert lines(tmp_path / "log") == [{"event": "round", "x": 1}]
