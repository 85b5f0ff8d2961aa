"""Which address a host's data sockets have."""

from __future__ import annotations

import tempfile
from pathlib import Path

import msgpack
import pytest

from decentral.errors import PreflightError
from launch.facts import data_address, facts, free_bytes


def test_what_the_hosts_file_declares_is_taken() -> None:
    assert data_address("10.1.2.3", {"SSH_CONNECTION": "1.1.1.1 1 127.0.0.1 22"}, []) == "10.1.2.3"


def test_then_the_address_that_ssh_came_in_by() -> None:
    assert (
        data_address(None, {"SSH_CONNECTION": "10.9.9.9 55 127.0.0.1 22"}, ["nowhere.invalid"]) == "127.0.0.1"
    )


def test_an_address_of_another_host_that_came_with_the_environment_is_no_address() -> None:
    environment = {"SSH_CONNECTION": "10.9.9.9 55 192.0.2.1 22"}
    assert data_address(None, environment, ["127.0.0.1"]) == "127.0.0.1"


@pytest.mark.parametrize("environment", [{}, {"SSH_CONNECTION": "broken"}])
def test_then_the_one_on_the_way_to_the_others(environment: dict[str, str]) -> None:
    assert data_address(None, environment, ["nowhere.invalid", "127.0.0.2"]) == "127.0.0.1"


def test_a_host_that_knows_none_is_refused() -> None:
    with pytest.raises(PreflightError, match="bind = "):
        data_address(None, {}, ["nowhere.invalid"])


def test_facts_are_plain_values(tmp_path: Path) -> None:
    told = facts(tmp_path)
    assert msgpack.unpackb(msgpack.packb(told)) == told
    assert told["cores"] >= 1
    assert told["disk_free"] > 0
    assert told["versions"]["torch"]


def test_space_of_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    assert free_bytes(tmp_path / "a" / "b") > 0
    assert free_bytes(Path(tempfile.gettempdir())) > 0
