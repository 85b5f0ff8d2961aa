"""--send-data: agents on hosts that lack the data sets get them, and are told where they lie."""

from __future__ import annotations

import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from launch.deploy.line import Lines
from launch.host_schema import Host, Hosts
from launch.session import RunOptions, make_fleet
from tests.folder_hosts import Lab, checkout, lab
from tests.harness import SilentDisplay

__all__ = ["checkout", "lab"]


def test_an_agent_finds_the_data_sets_of_the_launcher(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = Lines.ask

    def ask_from_afar(
        lines: Lines, host: Host, step: str, request: dict[str, Any], *rest: Any
    ) -> dict[str, Any]:
        answer = ask(lines, host, step, request | {"source": "/nowhere"}, *rest)
        if "data" in answer:
            answer["data"] = dict.fromkeys(answer["data"])
        return answer

    monkeypatch.setattr(Lines, "ask", ask_from_afar)
    data = tmp_path / "data sets"
    (data / "toy").mkdir(parents=True)
    (data / "toy" / "rows").write_text("1 2 3")
    monkeypatch.setenv("DECENTRAL_DATA", str(data))
    host = lab.host("h1", python=sys.executable, bind="127.0.0.1")
    hosts = Hosts(hosts=(host,), source="the test", kind="ssh")
    options = RunOptions(out=tmp_path, executor="processes", command=(), hosts=hosts)

    there = lab.path / "h1" / ".cache" / "decentral" / "data"
    for send, seen in ((False, str(data)), (True, str(there))):
        with closing(make_fleet(replace(options, send_data=send), SilentDisplay())) as fleet:
            pid = fleet.meet()["h1"]["pid"]
            environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        assert f"DECENTRAL_DATA={seen}".encode() in environment
        assert there.exists() is send
    assert (there / "toy" / "rows").read_text() == "1 2 3"
