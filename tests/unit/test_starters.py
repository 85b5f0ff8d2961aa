"""Agents that are child processes of the launcher."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from launch.executors.starters import LocalStarter
from launch.hosts import Host
from tests.waiting import wait_for


@pytest.mark.parametrize(("data", "expected"), [("sets/mine", "home"), ("~/sets/mine", "home"), ("/d", "/d")])
def test_data_are_where_the_doctor_looks_for_them(
    data: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the home folder, as on all hosts, not from where the launcher happens to be."""
    monkeypatch.setenv("HOME", str(tmp_path))
    expected = str(tmp_path / "sets/mine") if expected == "home" else expected
    starter = LocalStarter()
    with tempfile.TemporaryFile() as log:
        process = starter.start(Host(name="here", local=True, data=data), log)
        try:
            place = Path(f"/proc/{process.pid}/environ")
            # Empty while the kernel puts a program into the process.
            environment = wait_for(place.read_bytes, 30.0, "an environment").split(b"\0")
        finally:
            starter.abandon(process)
            for stream in (process.stdin, process.stdout):
                assert stream is not None
                stream.close()
    assert f"DECENTRAL_DATA={expected}".encode() in environment
