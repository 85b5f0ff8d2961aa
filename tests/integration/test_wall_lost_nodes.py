"""Real time goes on without lost nodes: processes are killed, and the others end in order and say so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from decentral.config import Arm
from decentral.fidelity import NOT_TRUSTWORTHY, TRUSTWORTHY
from tests.asynchronous import accounts, star
from tests.integration.test_lost_nodes import NODES, check, run_killing, run_losing_a_host, slow

ROUNDS, HOLD_AT = 48, 20
PATIENCE_S = 0.02
"""What is left of a run when a node is killed lasts longer."""


def real(name: str, folder: Path, **tables: Any) -> Arm:
    """A run in real time, in whose middle nodes wait until those that are to be killed are."""
    made = slow(name, folder, ROUNDS, HOLD_AT, **tables)
    run = made.run.model_copy(update={"clock": "wall", "failure_deadline_s": PATIENCE_S})
    return made.model_copy(update={"run": run})


def check_links(folder: Path, killed: set[int], *, pushed: bool = True) -> None:
    """All that are left gave an account; what was ``pushed`` to lost nodes arrived at nobody."""
    sums = accounts(folder)
    assert set(sums) == set(range(NODES)) - killed
    assert not pushed or sum(each["dropped_lost_node"] for each in sums.values()) > 0
    fidelity = json.loads((folder / "fidelity.json").read_text(encoding="utf-8"))
    assert fidelity["verdict"] in (TRUSTWORTHY, NOT_TRUSTWORTHY)
    assert not any("without an account" in reason for reason in fidelity["reasons"])


@pytest.mark.parametrize("name", ["mosaic", "dpsgd", "divshare", "adpsgd", "swift", "swarm"])
def test_a_killed_node(name: str, tmp_path: Path) -> None:
    made = real(name, tmp_path)
    outcome, killer = run_killing(made, tmp_path, lambda node, round: [3] if round >= 5 else [], [3])
    check(made, tmp_path, outcome, {3})
    check_links(tmp_path, {3}, pushed=name not in ("adpsgd", "swarm"))
    assert len(killer.notes) == 1
    assert killer.notes[0].endswith("; the others go on without it")


def test_a_killed_receiver_holds_nobody_up(tmp_path: Path) -> None:
    """Shared downlinks: transfers to it wait for its word, which never comes."""
    links = star(stragglers=2, sd_mbps=0.0, fast_mbps=20.0, latency_ms=1.0, contention="both")
    made = real("mosaic", tmp_path, network=links)
    outcome, _ = run_killing(made, tmp_path, lambda node, round: [2, 6] if round >= 5 else [], [2, 6])
    check(made, tmp_path, outcome, {2, 6})
    check_links(tmp_path, {2, 6})


@pytest.mark.parametrize("name", ["mosaic", "adpsgd"])
def test_a_lost_host(name: str, tmp_path: Path) -> None:
    """The one without observer."""
    lost = run_losing_a_host(real(name, tmp_path), tmp_path, NODES)
    check_links(tmp_path, lost, pushed=name != "adpsgd")
