"""An algorithm of the user's own: run from beside its experiment file, here and on hosts that lack it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from decentral.errors import PreflightError
from launch.executors.fleet import Fleet
from launch.executors.starters import LocalStarter
from launch.modules import Module
from launch.own import OwnModules
from tests.fleets import loopback
from tests.folder_hosts import Lab
from tests.integration.test_launcher import ROOT
from tests.own_parts import HELPER, write_own

HOSTS = f"""[defaults]
python = {json.dumps(sys.executable)}
[[host]]
name = "h1"
bind = "127.0.0.1"
[[host]]
name = "h2"
bind = "127.0.0.2"
"""
NOBODY = {"host": "elsewhere", "boot": "x", "namespace": "y", "pid": 1, "started": 1}


def launched(*words: str | Path) -> str:
    """What ``decentral run`` prints, from a folder that has nothing to do with the experiment."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "launch", "run", *map(str, words)],
        check=False,
        cwd="/",
        timeout=600,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "300"},
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def only_run(out: Path) -> tuple[Path, dict[str, Any]]:
    """The one run folder there, and its manifest."""
    (path,) = out.glob("*/manifest.json")
    return path.parent, json.loads(path.read_text())


def models(run: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(run.glob("*/seed-1/models/*.npy"))]


@pytest.mark.timeout(900)
def test_it_runs_from_beside_its_experiment_goes_on_and_comes_to_hosts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toml = write_own(tmp_path / "mine")
    launched(toml, "--out", tmp_path / "here")
    run, manifest = only_run(tmp_path / "here")
    own = manifest["modules"]
    assert {name: entry["folder"] for name, entry in own.items()} == dict.fromkeys(
        ("my_average", "my_rumor"), str(toml.parent)
    )
    assert len(models(run)) == 6

    lab = Lab(tmp_path / "hosts", ROOT, monkeypatch)
    for name in ("h1", "h2"):
        lab.host(name)
    (tmp_path / "hosts.toml").write_text(HOSTS)
    said = launched(toml, "--out", tmp_path / "there", "--hosts", tmp_path / "hosts.toml")
    assert "copying modules of your own to h1, h2" in said
    there, known = only_run(tmp_path / "there")
    assert known["modules"] == own
    assert models(there) == models(run)
    (parts,) = [name for name in lab.kept("h2") if name.startswith("parts-")]
    names = os.listdir(lab.path / "h2" / ".cache" / "decentral" / parts)
    assert sorted(names) == [".used", "my_average.py", "my_rumor.py"]

    before = models(run)
    (toml.parent / "my_average.py").write_text(f"{HELPER}# changed\n")
    manifest["jobs"][0]["state"] = "waiting"
    manifest |= {"state": "running", "launcher": NOBODY}
    (run / "manifest.json").write_text(json.dumps(manifest))
    assert "WARNING: module my_average" in launched("--resume", run)
    assert models(run) == before


def test_a_host_without_it_is_named_before_anything_is_made() -> None:
    own = OwnModules((Module("my_absent", Path("/"), obstacle="it is compiled"),), ("my_absent",))
    fleet = Fleet(loopback(2), LocalStarter(), own=own)
    try:
        with pytest.raises(PreflightError) as caught:
            fleet.meet()
        for name in ("h1", "h2"):
            assert f"host {name}: module my_absent, which a part is of, is not installed" in str(caught.value)
    finally:
        fleet.close()
