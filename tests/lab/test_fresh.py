"""From a fresh checkout to a report on hosts that have nothing of this project; the next run brings nothing.

The checkout's .venv leads to the packages of the running Python: installing them takes minutes and a package
index, and is tests/e2e's affair. All else is what a user has: the script, real ssh, bare hosts.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
import venv
from pathlib import Path

import pytest

from launch.deploy.onhost.tree import code_paths
from tests.lab.experiments import short
from tests.lab.hosts_file import write_hosts
from tests.lab.lab import Lab
from tests.lab.launching import Run
from tests.lab.requirements import unmet
from tests.lab.view import ROOT

pytestmark = [pytest.mark.lab, pytest.mark.slow]
FULL = os.environ.get("DECENTRAL_FULL") == "1"
RUN_S = 1500
READY = """
source "$0"
printf '%s\\nextra none\\n' "$(wanted_stamp "$(version_of "$bootstrap_venv/bin/python")")" >"$bootstrap_stamp"
"""
COMMAND = """#!{python}
from launch.cli import main

main()
"""
BRINGS = re.compile(
    r"^\[[\d:]+\] ((?:copying|installing|host \S+: (?:environment|\d+ MiB)) .*)$", re.MULTILINE
)


def brought(output: str) -> list[str]:
    """The lines of a launcher that say what it brings to hosts."""
    return BRINGS.findall(output)


@pytest.mark.timeout(600)
def test_code_is_brought_once(lab3: Lab, tmp_path: Path) -> None:
    hosts = write_hosts(lab3, tmp_path / "hosts.toml", folder="/srv/fresh")
    for number, lines in enumerate((["copying the code to h1, h2, h3"], [])):
        with Run(tmp_path / f"run{number}", short(2), "--hosts", hosts) as run:
            assert run.code(300) == 0, run.output
            assert brought(run.output) == lines


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of this checkout's code, and a .venv that its script finds complete."""
    root = tmp_path / "checkout"
    for name in code_paths(str(ROOT)):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, root / name)
    venv.create(root / ".venv", symlinks=True)
    (site,) = (root / ".venv").glob("lib/python3.*/site-packages")
    (site / "fresh.pth").write_text(f"{root}\n{sysconfig.get_path('purelib')}\n")
    command = root / ".venv" / "bin" / "decentral"
    command.write_text(COMMAND.format(python=command.with_name("python")))
    command.chmod(0o755)
    subprocess.run(["bash", "-c", READY, root / "launch" / "bootstrap.sh"], check=True)
    return root


def launched(checkout: Path, hosts: Path, *words: str, **variables: str) -> str:
    """What ``run_cluster.sh`` prints; it must end with a report."""
    experiment = checkout.parent / "experiment.toml"
    experiment.write_text(short(5))
    removed = ("PYTHONPATH", "PYTHON", "DECENTRAL_DATA", "DECENTRAL_SSH")
    inherited = {name: value for name, value in os.environ.items() if name not in removed}
    command = [checkout / "launch" / "run_cluster.sh", experiment, "--hosts", hosts, *words]
    done = subprocess.run(
        command,
        cwd=checkout.parent,
        env=inherited | variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=RUN_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("report: ")]
    assert Path(line.removeprefix("report: ")).is_file()
    return done.stdout


@pytest.mark.timeout(2 * RUN_S)
@pytest.mark.skipif(not FULL, reason="copies all packages to every host; set DECENTRAL_FULL=1")
def test_hosts_with_folders_of_their_own(checkout: Path, tmp_path: Path) -> None:
    if reason := unmet():
        pytest.skip(reason)
    with Lab(2) as lab:
        hosts = write_hosts(lab, tmp_path / "hosts.toml", python=None)
        first = brought(launched(checkout, hosts))
        assert first[0] == "copying the code to h1, h2"
        assert first[1].startswith("copying the environment to h1, h2: ")
        assert sorted(line.partition(" ready")[0] for line in first[2:]) == [
            f"host h{i}: environment" for i in (1, 2)
        ]
        assert brought(launched(checkout, hosts)) == []


@pytest.mark.timeout(2 * RUN_S)
@pytest.mark.skipif(not FULL, reason="copies all packages to a folder; set DECENTRAL_FULL=1")
def test_hosts_with_a_shared_folder(checkout: Path, tmp_path: Path) -> None:
    """At first they see the launcher's data sets too, then others that they do not see."""
    if reason := unmet():
        pytest.skip(reason)
    shared, seen, unseen = tmp_path / "shared", tmp_path / "shared" / "sets", tmp_path / "sets"
    for folder in (seen, unseen):
        folder.mkdir(parents=True)
        (folder / "rows").write_bytes(bytes(1 << 20))
    with Lab(2, shared=[shared]) as lab:
        folder = shared / "decentral"
        hosts = write_hosts(lab, tmp_path / "hosts.toml", python=None, folder=str(folder))
        first = brought(launched(checkout, hosts, "--send-data", DECENTRAL_DATA=str(seen)))
        assert first[0] == "copying the code to h1"
        assert first[1].startswith("copying the environment to h1: ")
        assert not (folder / "data").exists()
        second = brought(launched(checkout, hosts, "--send-data", DECENTRAL_DATA=str(unseen)))
        assert second == [f"host h1: 1 MiB of data sets copied to {folder}/data"]
        assert (folder / "data" / "rows").stat().st_size == 1 << 20
        assert brought(launched(checkout, hosts, "--send-data", DECENTRAL_DATA=str(unseen))) == []
