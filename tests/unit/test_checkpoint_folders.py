"""Which checkpoint a job goes on from, and when the next one is due."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from decentral.checkpoint.files import write
from decentral.errors import CheckpointError, PreflightError
from launch.checkpoints import (
    LIST,
    Entry,
    commit,
    cut_logs,
    file_name,
    folder_of,
    log_of,
    newest,
    numbers,
)
from launch.due import Due
from launch.keeping import KEPT, forget_old, last_whole
from launch.paths import JobFolder

N = 2


def make(folder: JobFolder, number: int, *, listed: bool = True, forget: bool = True) -> None:
    """A checkpoint of two nodes, the observer and the timekeeper."""
    entries = []
    for member in range(N + 2):
        path = folder_of(folder, number) / file_name(member, N)
        log = log_of(folder, member, N)
        (folder.path / log).parent.mkdir(parents=True, exist_ok=True)
        (folder.path / log).write_bytes(b"x" * 35)
        entries.append(Entry(member, *write(path, {"of": member}), log, 10 * member))
    if listed:
        commit(folder, number, entries, time_s=number / 2, rounds=number, nominal_ns=5)
    if forget:
        forget_old(folder, last_whole(folder))


def test_the_newest_whole_one_counts(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path)
    assert newest(folder) == (None, [])
    make(folder, 1)
    make(folder, 2)
    make(folder, 3, listed=False)
    found, problems = newest(folder)
    assert found is not None
    assert (found.number, found.time_s, found.rounds, found.nominal_ns) == (2, 1.0, 2, 5)
    assert problems == [], "one that was being written is nothing wrong"
    assert [found.read(member)["of"] for member in range(N + 2)] == [0, 1, 2, 3]
    assert [entry.log for entry in found.entries] == [
        "nodes/000.jsonl", "nodes/001.jsonl", "metrics.jsonl", "network.jsonl",
    ]  # fmt: skip
    with pytest.raises(CheckpointError, match="no file of member 9"):
        found.read(9)


def test_older_ones_are_forgotten_and_remains_of_unfinished_ones_too(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path)
    for number in range(1, 6):
        make(folder, number, listed=number != 3)
    assert numbers(folder) == [4, 5]
    assert len(numbers(folder)) == KEPT


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "list", "half a list", "another's"])
def test_damage_is_named_and_the_one_before_is_used(damage: str, tmp_path: Path) -> None:
    folder = JobFolder(tmp_path)
    make(folder, 1)
    make(folder, 2)
    path = folder_of(folder, 2) / "observer.ckpt"
    if damage == "flip":
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif damage == "truncate":
        path.write_bytes(path.read_bytes()[:-5])
    elif damage == "remove":
        path.unlink()
    elif damage == "another's":
        path.write_bytes((folder_of(folder, 2) / "node-000.ckpt").read_bytes())
    else:
        path = folder_of(folder, 2) / LIST
        text = path.read_text(encoding="utf-8")
        path.write_text(text[: len(text) // 2] if damage == "half a list" else text.replace("30", "31"))
    found, problems = newest(folder)
    assert found is not None
    assert found.number == 1
    assert len(problems) == 1
    assert str(path) in problems[0]
    path.unlink(missing_ok=True)
    (folder_of(folder, 1) / "node-001.ckpt").unlink()
    found, problems = newest(folder)
    assert found is None, "nothing is left to go on from"
    assert any("node-001.ckpt" in problem for problem in problems)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"digest": 1}', "null", '{"digest": "x", "v": 1}'])
def test_a_list_that_is_none_is_named(content: str, tmp_path: Path) -> None:
    folder = JobFolder(tmp_path)
    make(folder, 1)
    (folder_of(folder, 1) / LIST).write_text(content)
    found, problems = newest(folder)
    assert found is None
    assert len(problems) == 1
    assert LIST in problems[0]


def test_logs_are_cut_to_the_checkpoint(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path)
    make(folder, 1)
    found, _ = newest(folder)
    assert found is not None
    cut_logs(folder, found)
    assert [(tmp_path / entry.log).stat().st_size for entry in found.entries] == [0, 10, 20, 30]
    (tmp_path / "metrics.jsonl").write_bytes(b"short")
    (tmp_path / "network.jsonl").write_bytes(b"x" * 40)
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl: has 5 bytes.*after 20: a part of the log"):
        cut_logs(folder, found)
    assert (tmp_path / "network.jsonl").stat().st_size == 40, "nothing is cut where not all can be"


def test_a_checkpoint_beyond_its_logs_is_passed_over(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path)
    make(folder, 1)
    make(folder, 2)
    path = folder_of(folder, 2) / LIST
    content = json.loads(path.read_text(encoding="utf-8"))
    entries = [Entry(**{**entry, "log_bytes": 36}) for entry in content["files"]]
    commit(folder, 2, entries, time_s=1.0, rounds=2, nominal_ns=5)
    found, problems = newest(folder)
    assert found is not None
    assert found.number == 1
    assert "a part of the log is lost" in problems[0]


def test_one_of_which_files_are_missing_keeps_the_one_before(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path)
    make(folder, 1)
    make(folder, 2)
    (folder_of(folder, 2) / file_name(0, N)).unlink()  # as where it is still on its way from a host
    make(folder, 3)
    assert numbers(folder) == [1, 2, 3]
    make(folder, 4)
    assert numbers(folder) == [3, 4]


def test_a_list_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path)
    with pytest.raises(PreflightError, match=LIST):
        commit(folder, 1, [], time_s=0.0, rounds=0, nominal_ns=1)


def test_the_list_says_all_that_is_needed(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path)
    make(folder, 1)
    content = json.loads((folder_of(folder, 1) / LIST).read_text(encoding="utf-8"))
    assert content["number"] == 1
    assert {"member", "name", "nbytes", "digest", "log", "log_bytes"} == set(content["files"][0])


def test_due_by_rounds_of_the_slowest() -> None:
    due = Due(2, every=5, every_s=None)
    assert not due.due(0.0)
    due.progress(0, 30)
    due.progress(1, 4)
    assert not due.due(1e9)
    due.progress(1, 6)
    assert (due.due(0.0), due.due(0.0)) == (True, False)
    due.progress(1, 9)
    assert not due.due(0.0)
    due.progress(1, 21)
    assert (due.due(0.0), due.due(0.0)) == (True, False)


def test_due_by_seconds_since_the_last() -> None:
    due = Due(1, every=10, every_s=60.0)
    assert [due.due(at) for at in (100.0, 159.0, 160.0, 219.0, 220.0)] == [False, False, True, False, True]
    due.progress(0, 10)
    assert due.due(221.0), "by rounds"
    assert not due.due(280.0)
    assert due.due(281.0)


def test_due_goes_on_after_a_resume() -> None:
    due = Due(2, every=5, every_s=None, rounds=7)
    assert not due.due(0.0)
    due.progress(0, 10)
    assert not due.due(0.0)
    due.progress(1, 10)
    assert due.due(0.0)
