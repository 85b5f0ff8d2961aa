"""The doctor inside a Slurm allocation: through srun, on the nodes that it has."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.slurm import Slurm

pytestmark = pytest.mark.lab
ROOT = Path(__file__).resolve().parents[2]


def doctor(slurm: Slurm, nodes: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "launch", "doctor", "--slurm"]
    return subprocess.run(
        ["salloc", "--quiet", f"--nodes={nodes}", "--exclusive", *command],
        env={**os.environ, **slurm.variables, "PYTHONPATH": str(ROOT), "COLUMNS": "300"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def test_the_nodes_of_an_allocation(slurm3: Slurm) -> None:
    done = doctor(slurm3, 3)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all is well: default-comparison can run on these 3 hosts" in done.stdout
    for i in (1, 2, 3):
        address = re.escape(slurm3.lab.network.address(i))
        assert re.search(rf"^ h{i} +yes +root .* {address} ", done.stdout, re.MULTILINE), done.stdout
    assert len(re.findall(r"^ h\d +h\d +[\d.e-]+ ms +[\d.e+]+ Mbit/s", done.stdout, re.MULTILINE)) == 4


def test_outside_an_allocation() -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "launch", "doctor", "--slurm"],
        env={**environ, "PYTHONPATH": str(ROOT), "SLURM_JOB_NODELIST": "h[1-3]"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (3, "")
    assert "SLURM_JOB_ID is not set" in done.stderr
