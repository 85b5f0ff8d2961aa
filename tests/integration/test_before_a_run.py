"""What hosts lack is found once their agents have said so, before there is a run folder."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from decentral.config import load
from decentral.errors import PreflightError
from launch.executors.starters import LocalStarter
from launch.hosts import Host, Hosts
from launch.session import RunOptions, run_experiment
from tests.harness import SilentDisplay

WORK = """
name = "work"
nodes = 4
algorithm = "dpsgd"
topology = "ring"
data = { name = "quadratic" }
train = { lr = 0.05, batch = 2, local_steps = 1 }
run = { max_rounds = 2 }
"""
PORTS = range(21500, 21520)


@pytest.fixture(autouse=True)
def agents_are_child_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("launch.executors.remote.starter_for", lambda hosts, **_: LocalStarter())


@pytest.fixture
def occupied() -> Iterator[None]:
    """All ports of ``PORTS`` are taken at 127.0.0.2."""
    with ExitStack() as stack:
        for port in PORTS:
            taken = stack.enter_context(socket.socket())
            with suppress(OSError):  # somebody else has it: as good
                taken.bind(("127.0.0.2", port))
                taken.listen()
        yield


def refusal(folder: Path, hosts: Sequence[dict[str, Any]]) -> str:
    """Why ``WORK`` cannot run on ``hosts``."""
    toml = folder / "work.toml"
    toml.write_text(WORK)
    made = tuple(Host(folder=str(folder / "hosts"), **keys) for keys in hosts)
    options = RunOptions(
        out=folder / "out", executor="processes", command=(), hosts=Hosts(hosts=made, source="t", kind="ssh")
    )
    with pytest.raises(PreflightError) as caught:
        run_experiment(load(toml), options, SilentDisplay())
    assert list((folder / "out").iterdir()) == []
    return str(caught.value)


@pytest.mark.usefixtures("occupied")
def test_a_range_that_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Nothing runs on the launcher's machine, so what it has left does not matter.
    monkeypatch.setattr("launch.preflight.memory_available", lambda: 0)
    span = f"{PORTS[0]}-{PORTS[-1]}"
    keys = {"ports": span, "cores": 1}
    found = refusal(tmp_path, [{"name": f"h{i}", "bind": f"127.0.0.{i}", **keys} for i in (1, 2)])
    assert found == (
        f"host h2: 2 processes need a port each and only 0 of ports = {span} are free (taken: "
        f"{', '.join(map(str, PORTS[:5]))}, ...); set a longer range"
    )


def test_an_address_of_another_host(tmp_path: Path) -> None:
    found = refusal(tmp_path, [{"name": "h1", "bind": "127.0.0.1"}, {"name": "h2", "bind": "192.0.2.7"}])
    assert found == (
        "host h2: cannot listen on bind = 192.0.2.7: Cannot assign requested address; "
        'give this host bind = "its IP address" in the hosts file'
    )
