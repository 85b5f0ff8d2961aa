"""Disks of other hosts that are full or cannot be written."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab.experiments import endless
from tests.lab.hosts_file import write_hosts
from tests.lab.lab import Lab
from tests.lab.launching import Run, held

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(600)]
SCRATCH = "/srv/scratch"


def test_full_disk_of_a_host_is_named(lab3: Lab, tmp_path: Path) -> None:
    lab3.host(2).small_disk(SCRATCH, 64)
    hosts = write_hosts(lab3, tmp_path / "hosts.toml", folder=SCRATCH)
    # The launcher refuses a run for which there is too little space from the beginning.
    with Run(tmp_path / "run", endless(rounds=15_000), "--hosts", hosts) as run:
        run.under_way()
        filling = ["dd", "if=/dev/zero", f"of={SCRATCH}/filler", "bs=4k", "count=100000"]
        with held(lab3, run, 1):
            assert "No space left" in lab3.exec(2, *filling, check=False).stderr
        manifest = run.ended(60)
        assert manifest["state"] == "failed"
        for word in ("h2", SCRATCH, "No space left on device"):
            assert word in manifest["cause"], manifest["cause"]
        assert manifest["exit_code"] == 4
        assert "Traceback" not in run.output


def test_read_only_folder_of_a_host_is_refused(lab3: Lab, tmp_path: Path) -> None:
    lab3.host(3).read_only(SCRATCH)
    hosts = write_hosts(lab3, tmp_path / "hosts.toml", folder=SCRATCH)
    with Run(tmp_path / "run", endless(), "--hosts", hosts) as run:
        assert run.code() == 3, run.output
        for word in ("h3", SCRATCH, "Read-only file system"):
            assert word in run.output
        assert "Traceback" not in run.output
