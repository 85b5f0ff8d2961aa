"""Hosts, agents, nodes, lines and launchers that die in mid-run: named in time, and nothing is left anywhere.

Every test prints how long after the fault the launcher told all hosts to stop, when the manifest had the
cause, and when no process was left on any host.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.lab.experiments import endless
from tests.lab.fixtures import ORPHANS_S
from tests.lab.hosts_file import write_hosts
from tests.lab.lab import Lab
from tests.lab.launching import Run, agent, lines_of, node_process, wait_for

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(600)]
FULL = os.environ.get("DECENTRAL_FULL") == "1"
HOST_S = 10.0
PROCESS_S = 5.0
LATE_S = 5.0
"""Files are collected twice a second: 0.5 s lack on an idle machine, 0.9 s on a busy one."""


def power_cut(lab: Lab, run: Run) -> None:
    lab.power_cut(2)


def pull_cable(lab: Lab, run: Run) -> None:
    lab.pull_cable(2)


def kill_agent(lab: Lab, run: Run) -> None:
    os.kill(agent(lab, 2).pid, signal.SIGKILL)


def stop_agent(lab: Lab, run: Run) -> None:
    os.kill(agent(lab, 2).pid, signal.SIGSTOP)


def kill_line(lab: Lab, run: Run) -> None:
    (client,) = run.lines_to(lab.addresses["h2"])
    client.kill()


def kill_node(lab: Lab, run: Run) -> None:
    os.kill(node_process(lab, run, 2, min(run.nodes_on("h2"))).pid, signal.SIGKILL)


def segfault_node(lab: Lab, run: Run) -> None:
    os.kill(node_process(lab, run, 2, max(run.nodes_on("h2"))).pid, signal.SIGSEGV)


@dataclass(frozen=True)
class Fault:
    """What is done to host h2, and what must be said of it within ``within_s`` seconds.

    ``often``: also without DECENTRAL_FULL.
    """

    strike: Callable[[Lab, Run], None]
    cause: str
    within_s: float
    asynchronous: bool = False
    often: bool = False

    @property
    def name(self) -> str:
        return self.strike.__name__ + ("-asynchronous" if self.asynchronous else "")


NODE = r"node \d+ on host h2 was killed by SIG{} .*round \d+"
FAULTS = [
    Fault(power_cut, r"host h2\b", HOST_S, often=True),
    Fault(power_cut, r"host h2\b", HOST_S, asynchronous=True),
    Fault(pull_cable, r"host h2\b", HOST_S, asynchronous=True, often=True),
    Fault(pull_cable, r"host h2\b", HOST_S),
    Fault(kill_agent, r"host h2\b", PROCESS_S, often=True),
    Fault(kill_agent, r"host h2\b", PROCESS_S, asynchronous=True),
    Fault(stop_agent, r"host h2\b", HOST_S),
    Fault(kill_line, r"host h2\b", PROCESS_S),
    Fault(kill_line, r"host h2\b", PROCESS_S, asynchronous=True),
    Fault(kill_node, NODE.format("KILL"), PROCESS_S, asynchronous=True, often=True),
    Fault(kill_node, NODE.format("KILL"), PROCESS_S),
    Fault(segfault_node, NODE.format("SEGV"), PROCESS_S),
]
CHOSEN = [fault for fault in FAULTS if fault.often or FULL]


@pytest.mark.parametrize("fault", CHOSEN, ids=[fault.name for fault in CHOSEN])
def test_first_cause_is_named(
    fault: Fault, lab3: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hosts = write_hosts(lab3, tmp_path / "hosts.toml")
    with Run(tmp_path / "run", endless(asynchronous=fault.asynchronous), "--hosts", hosts) as run:
        run.under_way()
        struck = time.monotonic()
        fault.strike(lab3, run)
        run.stopping()
        noticed_s = time.monotonic() - struck
        manifest = run.ended(60)
        named_s = time.monotonic() - struck
        _, left = lab3.quiet(struck + ORPHANS_S - time.monotonic())
        gone_s = time.monotonic() - struck
        report(capsys, fault.name, noticed_s, named_s, gone_s)
        assert left == []
        assert (manifest["state"], manifest["exit_code"]) == ("failed", 4)
        assert re.search(fault.cause, manifest["cause"], re.DOTALL), manifest["cause"]
        assert noticed_s <= fault.within_s
        assert "Traceback" not in run.output


def report(
    capsys: pytest.CaptureFixture[str], what: str, noticed_s: float, named_s: float, gone_s: float
) -> None:
    """Show the times, also where the test passes."""
    with capsys.disabled():
        print(f"\n{what}: noticed {noticed_s:.1f} s, in the manifest {named_s:.1f} s, gone {gone_s:.1f} s")


def test_logs_of_a_host_that_died_late(lab3: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is lacking that was on its disk, which this test alone can see, for more than a second."""
    hosts = write_hosts(lab3, tmp_path / "hosts.toml", folder="/srv/late")
    # Few nodes, so that not everybody waits for a processor.
    with Run(tmp_path / "run", endless(nodes=4), "--hosts", hosts) as run:
        run.under_way(4)
        doomed = run.nodes_on("h3")
        reached = {node: len(lines) + 100 for node, lines in run.node_events().items()}
        wait_for(  # to die late is to have many lines behind one
            "no further 100 rounds",
            lambda: all(len(lines) > reached[node] for node, lines in run.node_events().items()),
            100,
        )
        lab3.power_cut(3)
        cut = time.time()  # hosts have the machine's clock
        assert run.ended(60)["state"] == "failed"
        late_s = []
        for log in lab3.disk(3, "/srv/late").rglob("nodes/*.jsonl"):
            there, here = lines_of(log), run.node_events()[int(log.stem)]
            assert here == there[: len(here)]
            lacking = there[len(here) :]
            late_s.append(cut - there[0]["start_unix_s"] - lacking[0]["wall_s"] if lacking else 0.0)
        with capsys.disabled():
            print(f"\nlines of a dead host are lacking for {max(late_s):.2f} s at most")
        assert len(late_s) == len(doomed)
        assert max(late_s) <= LATE_S


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM] if FULL else [signal.SIGINT])
def test_interrupted_launcher(
    number: signal.Signals, lab3: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hosts = write_hosts(lab3, tmp_path / "hosts.toml")
    with Run(tmp_path / "run", endless(), "--hosts", hosts) as run:
        run.under_way()
        struck = time.monotonic()
        run.process.send_signal(number)
        run.stopping()
        noticed_s = time.monotonic() - struck
        manifest = run.ended(60)
        named_s = time.monotonic() - struck
        _, left = lab3.quiet(struck + ORPHANS_S - time.monotonic())
        report(capsys, number.name, noticed_s, named_s, time.monotonic() - struck)
        assert left == []
        assert manifest["state"] == "interrupted"
        assert run.code() == 5, run.output
        assert "Traceback" not in run.output
        for lines in run.node_events().values():
            assert (lines[-1]["event"], lines[-1]["reason"]) == ("end", "interrupted")
        assert (run.run_folder / "report.html").exists()


@pytest.mark.skipif(not FULL, reason="with DECENTRAL_FULL=1")
def test_impatient_interrupt(lab3: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hosts = write_hosts(lab3, tmp_path / "hosts.toml")
    with Run(tmp_path / "run", endless(), "--hosts", hosts) as run:
        run.under_way()
        struck = time.monotonic()
        run.process.send_signal(signal.SIGINT)
        run.process.send_signal(signal.SIGINT)
        run.stopping()
        noticed_s = time.monotonic() - struck
        manifest = run.ended(60)
        named_s = time.monotonic() - struck
        _, left = lab3.quiet(struck + ORPHANS_S - time.monotonic())
        report(capsys, "SIGINT twice", noticed_s, named_s, time.monotonic() - struck)
        assert left == []
        assert manifest["state"] == "interrupted"
        assert run.code() == 5, run.output


@pytest.mark.parametrize("asynchronous", [False, True] if FULL else [False])
def test_killed_launcher(
    asynchronous: bool, lab3: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hosts = write_hosts(lab3, tmp_path / "hosts.toml")
    with Run(tmp_path / "run", endless(asynchronous=asynchronous), "--hosts", hosts) as run:
        run.under_way()
        struck = time.monotonic()
        run.process.kill()
        run.process.wait()
        _, left = lab3.quiet(struck + ORPHANS_S - time.monotonic())
        with capsys.disabled():
            print(f"\nSIGKILL: no process anywhere after {time.monotonic() - struck:.1f} s")
        assert left == []
        assert run.manifest["state"] == "running"  # nobody was left to say otherwise


@pytest.mark.skipif(not FULL, reason="with DECENTRAL_FULL=1")
def test_launcher_killed_while_a_cable_is_out(lab3: Lab, tmp_path: Path) -> None:
    """Nothing tells that host's agent: it must conclude from silence."""
    hosts = write_hosts(lab3, tmp_path / "hosts.toml")
    with Run(tmp_path / "run", endless(), "--hosts", hosts) as run:
        run.under_way()
        lab3.pull_cable(3)
        struck = time.monotonic()
        run.process.kill()
        run.process.wait()
        _, left = lab3.quiet(struck + ORPHANS_S - time.monotonic())
        assert left == []
