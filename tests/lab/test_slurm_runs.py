"""Runs inside a Slurm allocation of three hosts."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.lab.experiments import endless, short
from tests.lab.fixtures import ORPHANS_S
from tests.lab.launching import Run
from tests.lab.slurm import Slurm

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(600)]
FULL = os.environ.get("DECENTRAL_FULL") == "1"
HOST_S = 10.0


def test_three_hosts(slurm3: Slurm, tmp_path: Path) -> None:
    arms = ("synchronous", "asynchronous")
    with Run(tmp_path / "here", short()) as here:
        assert here.ended(300)["state"] == "done"
        expected = {arm: here.digests(arm) for arm in arms}
    with Run(
        tmp_path / "run", short(), "--slurm", before=("salloc", "-N3"), variables=slurm3.variables
    ) as run:
        manifest = run.ended(300)
        assert manifest["state"] == "done", manifest["cause"]
        assert {arm: run.digests(arm) for arm in arms} == expected
        assert all(run.nodes_on(f"h{i}") for i in (1, 2, 3))
        assert run.code() == 0, run.output


def test_power_cut_of_a_node(slurm3: Slurm, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """srun by itself would wait for ever, or for 18 s."""
    with Run(
        tmp_path / "run", endless(), "--slurm", before=("salloc", "-N3"), variables=slurm3.variables
    ) as run:
        run.under_way()
        struck = time.monotonic()
        slurm3.lab.power_cut(3)
        run.stopping()
        noticed_s = time.monotonic() - struck
        manifest = run.ended(60)
        named_s = time.monotonic() - struck
        _, left = slurm3.lab.quiet(struck + ORPHANS_S - time.monotonic())
        with capsys.disabled():
            print(f"\npower cut under srun: noticed {noticed_s:.1f} s, in the manifest {named_s:.1f} s")
        assert left == []
        assert manifest["exit_code"] == 4
        assert "host h3" in manifest["cause"]
        assert noticed_s <= HOST_S
        assert run.code() == 4, run.output  # neither the launcher nor salloc hangs


@pytest.mark.skipif(not FULL, reason="with DECENTRAL_FULL=1")
def test_killed_launcher(slurm3: Slurm, tmp_path: Path) -> None:
    with Run(
        tmp_path / "run", endless(), "--slurm", before=("salloc", "-N3"), variables=slurm3.variables
    ) as run:
        run.under_way()
        struck = time.monotonic()
        run.launcher.kill()
        _, left = slurm3.lab.quiet(struck + ORPHANS_S - time.monotonic())
        assert left == []
