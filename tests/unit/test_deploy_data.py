"""Data sets are sent where they are not, and only the files that differ."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from decentral.errors import PreflightError
from launch.deploy.data import send_data
from launch.deploy.deployment import Deployment
from launch.deploy.line import HostFailure, Lines, Route
from launch.deploy.onhost.tree import listing
from launch.executors.ssh import ssh_command
from launch.hosts import Host
from tests.folder_hosts import Lab, checkout, lab

__all__ = ["checkout", "lab"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data sets"
    (folder / "set a").mkdir(parents=True)
    (folder / "set a" / "one").write_bytes(bytes(3 << 20))
    (folder / "two").write_text("two")
    return folder


@pytest.fixture
def far(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """Hosts that do not see the launcher's data either."""
    ask = Lines.ask

    def ask_from_afar(
        lines: Lines, host: Host, step: str, request: dict[str, Any], *rest: Any
    ) -> dict[str, Any]:
        return ask(lines, host, step, request | {"source": "/nowhere"}, *rest)

    monkeypatch.setattr(Lines, "ask", ask_from_afar)
    return lab


def sent(lab: Lab) -> list[str]:
    return [line.split(" copied")[0] for line in lab.told if "data sets" in line]


def test_only_what_differs_is_sent(far: Lab, data: Path) -> None:
    host = far.host("h1")
    (place,) = far.deploy(host, send=data)
    assert place.data == f"{place.folder}/data"
    assert sent(far) == ["host h1: 3 MiB of data sets"]
    assert Path(place.data, "set a", "one").stat().st_size == 3 << 20

    kept = os.stat(f"{place.data}/set a/one").st_ino
    (data / "two").write_text("changed")
    (place,) = far.deploy(host, send=data)
    assert sent(far) == ["host h1: 0 MiB of data sets"]
    assert Path(f"{place.folder}/data/two").read_text() == "changed"
    assert os.stat(f"{place.folder}/data/set a/one").st_ino == kept


def test_what_was_sent_is_used_later(far: Lab, data: Path) -> None:
    host = far.host("h1")
    (place,) = far.deploy(host, send=data)
    assert far.deploy(host) == [place]


def test_a_host_that_sees_the_same_files_gets_none(lab: Lab, data: Path) -> None:
    (place,) = lab.deploy(lab.host("h1"), send=data)
    assert place.data == str(data)
    assert sent(lab) == []


def test_hosts_that_share_a_folder_and_see_the_data_get_none(lab: Lab, data: Path) -> None:
    """Nobody makes the folder for data sets in the shared one, and nobody waits for it."""
    one = lab.host("h1")
    (lab.path / "h2").symlink_to(lab.path / "h1")
    places = lab.deploy(one, Host(name="h2"), send=data)
    assert [place.data for place in places] == [str(data)] * 2
    assert sent(lab) == []


def test_hosts_that_share_a_folder_are_sent_the_data_once(far: Lab, data: Path) -> None:
    one = far.host("h1")
    (far.path / "h2").symlink_to(far.path / "h1")
    places = far.deploy(one, Host(name="h2"), send=data)
    assert [place.data for place in places] == [f"{far.path}/h{i}/.cache/decentral/data" for i in (1, 2)]
    assert sent(far) == ["host h1: 3 MiB of data sets"]


@pytest.mark.parametrize("sees", ["h1", "h2"])
def test_one_of_two_that_share_a_folder_sees_the_data(
    sees: str, lab: Lab, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = Lines.ask

    def ask_from_afar(
        lines: Lines, host: Host, step: str, request: dict[str, Any], *rest: Any
    ) -> dict[str, Any]:
        return ask(lines, host, step, request | ({} if host.name == sees else {"source": "/nowhere"}), *rest)

    monkeypatch.setattr(Lines, "ask", ask_from_afar)
    one = lab.host("h1")
    (lab.path / "h2").symlink_to(lab.path / "h1")
    for place, name in zip(lab.deploy(one, Host(name="h2"), send=data), ("h1", "h2"), strict=True):
        assert place.data == (str(data) if name == sees else place.sent_data)


def test_hosts_that_cannot_be_written_share_nothing(
    lab: Lab, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They need nothing, as they see everything; the second must not be told to wait for the first."""
    monkeypatch.setattr(
        Deployment, "_look", lambda *given, look=Deployment._look: look(*given) | {"sees_code": True}
    )
    hosts = [lab.host(name, python=sys.executable, folder="/proc/decentral") for name in ("h1", "h2")]
    asked: list[str] = []
    ask = Lines.ask

    def note(lines: Lines, host: Host, step: str, request: dict[str, Any], *rest: Any) -> dict[str, Any]:
        asked.append(f"{request['do']} {host.name}")
        return ask(lines, host, step, request, *rest)

    monkeypatch.setattr(Lines, "ask", note)
    assert [place.data for place in lab.deploy(*hosts, send=data)] == [str(data)] * 2
    assert sorted(asked) == ["compare_data h1", "compare_data h2", "look h1", "look h2"]


def test_a_host_with_a_folder_of_its_own_gets_none(lab: Lab, data: Path) -> None:
    (lab.path / "h1" / "mine").mkdir(parents=True)
    (place,) = lab.deploy(lab.host("h1", data="~/mine"), send=data)
    assert place.data == f"{lab.path}/h1/mine"
    assert sent(lab) == []


def test_an_empty_source_is_refused(lab: Lab, tmp_path: Path) -> None:
    with pytest.raises(PreflightError, match="holds no files"):
        lab.deploy(lab.host("h1"), send=tmp_path / "none")


def test_a_file_that_cannot_be_read_is_named(far: Lab, data: Path) -> None:
    """It vanished after the folder was listed."""
    files = listing(str(data)) | {"gone": [7, 7]}
    with pytest.raises(
        HostFailure, match=r"host h1: copying the data sets failed: cannot read .*/gone: No such file"
    ):
        send_data(Lines(Route("ssh", ssh_command)), data, files, far.host("h1"))
