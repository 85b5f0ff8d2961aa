"""Runs that go on after a host is lost: without its nodes, or later from a checkpoint on other hosts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lab.experiments import endless, long
from tests.lab.hosts_file import write_hosts
from tests.lab.lab import Lab
from tests.lab.launching import START_S, Run, held, lines_of, wait_for

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(900)]
ARMS = ("synchronous", "asynchronous")
COMPLETE = "asynchronous/seed-*/checkpoints/*/checkpoint.json"
ROUNDS, CHECKPOINT_EVERY = 1000, 50
"""Seconds, in which a node is stopped, so that no host is lost after the end."""


def power_cut(lab: Lab) -> None:
    lab.power_cut(2)


def pull_cable(lab: Lab) -> None:
    lab.pull_cable(2)


@pytest.mark.parametrize("strike", [power_cut, pull_cable])
def test_without_the_nodes_of_a_lost_host(strike: Callable[[Lab], None], lab3: Lab, tmp_path: Path) -> None:
    """The others end their rounds; who is lost, and of what, is in the manifest and in every log."""
    hosts = write_hosts(lab3, tmp_path / "hosts.toml")
    asynchronous = strike is pull_cable
    experiment = endless(asynchronous=asynchronous, rounds=ROUNDS, on_node_failure="continue")
    with Run(tmp_path / "run", experiment, "--hosts", hosts) as run:
        run.under_way()
        doomed = set(run.nodes_on("h2"))
        assert 0 < len(doomed) < 12
        with held(lab3, run, 1):
            strike(lab3)
            wait_for("nobody goes on", lambda: "go on without" in run.output, 60)
        manifest = run.ended(400)
        assert manifest["state"] == "done", manifest["cause"]
        (job,) = manifest["jobs"]
        assert {loss["node"] for loss in job["lost"]} == doomed
        for loss in job["lost"]:
            assert "host h2" in loss["cause"]
            assert 0 < loss["round"] < ROUNDS
        for node, lines in run.node_events().items():
            if node not in doomed:
                assert (lines[-1]["event"], lines[-1]["reason"]) == ("end", "done")
                assert lines[-1]["round"] == ROUNDS
                assert {line["peer"] for line in lines if line["event"] == "lost"} == doomed
        assert run.metrics("*")[-1]["models"] == 12 - len(doomed)
        assert run.code() == 0, run.output
        assert "Traceback" not in run.output


def test_on_other_hosts_from_a_checkpoint(lab3: Lab, tmp_path: Path) -> None:
    """A power cut in the second arm; the two other hosts end it with the models of an undisturbed run."""
    with Run(tmp_path / "here", long(ROUNDS), "--executor", "inline") as here:
        assert here.ended(300)["state"] == "done", here.output
        expected = {arm: (here.digests(arm), here.metrics(arm)) for arm in ARMS}
    hosts = write_hosts(lab3, tmp_path / "hosts.toml")
    with Run(tmp_path / "run", long(ROUNDS, checkpoint_every=CHECKPOINT_EVERY), "--hosts", hosts) as run:
        run.under_way(arm="asynchronous")
        wait_for("no checkpoint", lambda: list(run.run_folder.glob(COMPLETE)), START_S)
        with held(lab3, run, 1, "asynchronous"):
            lab3.power_cut(2)
            assert run.ended(60)["state"] == "failed"
        assert run.code() == 4, run.output
        before = {arm: begun(run, arm) for arm in ARMS}
        two = write_hosts(lab3, tmp_path / "two.toml", hosts=(1, 3))
        again = run.resumed("--hosts", two)
        assert again.returncode == 0, again.stdout
        assert {arm: (run.digests(arm), run.metrics(arm)) for arm in ARMS} == expected
        assert begun(run, "synchronous") == before["synchronous"], "a finished arm is not run again"
        assert run.manifest["state"] == "done"


def begun(run: Run, arm: str) -> list[float]:
    """When the nodes of ``arm`` began, by their logs."""
    logs = sorted(run.run_folder.glob(f"{arm}/seed-*/nodes/*.jsonl"))
    return [lines_of(log)[0]["start_unix_s"] for log in logs]
