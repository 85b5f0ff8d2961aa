"""Where nodes run, and what else goes on there, changes nothing: the same models to the bit."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.lab.experiments import digits, long, short
from tests.lab.hosts_file import write_hosts
from tests.lab.lab import Lab
from tests.lab.launching import START_S, Run, held, wait_for
from tests.lab.requirements import compiler

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(600)]
FULL = os.environ.get("DECENTRAL_FULL") == "1"
WORK = {"quadratic": (short(), ("synchronous", "asynchronous"))}
if FULL:
    WORK["digits"] = (digits(), ("epidemic", "divshare"))

Results = dict[str, tuple[list[str], list[dict[str, Any]]]]


def results(run: Run, arms: tuple[str, ...]) -> Results:
    """Digests and metrics of a run that must end well, by arm."""
    manifest = run.ended(300)
    assert manifest["state"] == "done", manifest["cause"]
    return {arm: (run.digests(arm), run.metrics(arm)) for arm in arms}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Results]:
    """What comes out on this machine alone, by the name of the work."""
    found = {}
    for name, (experiment, arms) in WORK.items():
        with Run(tmp_path_factory.mktemp("here"), experiment) as run:
            found[name] = results(run, arms)
            assert [len(digests) for digests, _ in found[name].values()] == [12, 12]
    return found


@pytest.mark.parametrize("work", WORK)
def test_three_hosts(work: str, lab3: Lab, here: dict[str, Results], tmp_path: Path) -> None:
    experiment, arms = WORK[work]
    hosts = write_hosts(lab3, tmp_path / "hosts.toml")
    with Run(tmp_path / "run", experiment, "--hosts", hosts) as run:
        assert results(run, arms) == here[work]
        placed = {name: sorted(run.nodes_on(name)) for name in ("h1", "h2", "h3")}
        assert sorted(node for nodes in placed.values() for node in nodes) == list(range(12))
        assert all(placed.values()), placed
        assert run.code() == 0, run.output
        assert (run.run_folder / "report.html").exists()


@pytest.mark.parametrize("work", WORK)
def test_ten_hosts(work: str, lab10: Lab, here: dict[str, Results], tmp_path: Path) -> None:
    experiment, arms = WORK[work]
    hosts = write_hosts(lab10, tmp_path / "hosts.toml")
    with Run(tmp_path / "run", experiment, "--hosts", hosts) as run:
        assert results(run, arms) == here[work]
        assert all(run.nodes_on(name) for name in lab10.addresses)


def test_two_runs_at_once(lab3: Lab, tmp_path: Path) -> None:
    """Both are in the middle of their second arm at one moment, and end as if alone."""
    experiment, arms = long(1000), ("synchronous", "asynchronous")
    with Run(tmp_path / "here", experiment, "--executor", "inline") as alone:
        expected = results(alone, arms)
    hosts = write_hosts(lab3, tmp_path / "hosts.toml")
    with (
        Run(tmp_path / "one", experiment, "--hosts", hosts) as one,
        Run(tmp_path / "other", experiment, "--hosts", hosts) as other,
    ):
        with ExitStack() as stack:
            for run in (one, other):
                run.under_way(arm="asynchronous")
                stack.enter_context(held(lab3, run, 1, "asynchronous"))
            assert {run.manifest["state"] for run in (one, other)} == {"running"}
        for run in (one, other):
            assert results(run, arms) == expected
            ends = [lines[-1] for arm in arms for lines in run.node_events(arm).values()]
            assert {line["event"] for line in ends} == {"end"}
            assert not [line for line in ends if any(key.startswith("refused_") for key in line)]


def header(run: Run, host: str) -> dict[str, Any]:
    """The first line of the log of some node on ``host``."""
    return run.node_events("synchronous")[min(run.nodes_on(host))][0]


LISTENER = """
import socket, sys
held = [socket.create_server((sys.argv[1], int(port))) for port in sys.argv[2:]]
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def occupied(lab: Lab, i: int, ports: range) -> Iterator[None]:
    """Somebody else listens on ``ports`` of host ``i``."""
    words = [sys.executable, "-P", "-c", LISTENER, lab.addresses[f"h{i}"], *map(str, ports)]
    with subprocess.Popen(
        lab.host(i).enter(*words), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        yield


def listening(lab: Lab, i: int) -> set[int]:
    """Ports of host ``i``'s own address on which somebody listens."""
    address = lab.addresses[f"h{i}"]
    lines = lab.exec(i, "ss", "-Hltn", "src", address).stdout.splitlines()
    return {int(line.split()[3].rpartition(":")[2]) for line in lines}


def test_clocks_minutes_apart_and_occupied_ports(lab3: Lab, here: dict[str, Results], tmp_path: Path) -> None:
    """Clocks do not matter, and ports that somebody else has are passed over."""
    if compiler() is None:
        pytest.skip("no C compiler; apt-get install tcc")
    experiment, arms = WORK["quadratic"]
    lab3.host(2).clock_skew(+240)
    lab3.host(3).clock_skew(-240)
    hosts = write_hosts(lab3, tmp_path / "hosts.toml", ports="20000-20019")
    taken = range(20000, 20010)
    with (
        occupied(lab3, 2, taken),
        Run(tmp_path / "run", experiment, "--hosts", hosts) as run,
    ):
        seen = wait_for("nobody listens", lambda: listening(lab3, 2) - {22, *taken}, START_S)
        assert results(run, arms) == here["quadratic"]
        began = {name: header(run, name)["start_unix_s"] for name in ("h1", "h2", "h3")}
    assert 180 < began["h2"] - began["h1"] < 300  # they were apart
    assert -300 < began["h3"] - began["h1"] < -180
    assert seen <= set(range(20010, 20020))


def test_a_range_that_is_full_is_named(lab3: Lab, tmp_path: Path) -> None:
    hosts = write_hosts(lab3, tmp_path / "hosts.toml", ports="20000-20019")
    out = tmp_path / "run"
    with (
        occupied(lab3, 2, range(20000, 20020)),
        Run(out, WORK["quadratic"][0], "--hosts", hosts) as run,
    ):
        assert run.process.wait(START_S) == 3, run.output
    assert re.search(
        r"host h2: \d+ processes need a port each and only 0 of ports = 20000-20019 are free", run.output
    )
    assert "Traceback" not in run.output
    assert not list(out.glob("out/*/manifest.json")), "it was found before the run folder was made"
