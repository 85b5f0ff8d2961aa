"""A run folder, and a process that says in it that it is the run's launcher."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

LAUNCHER = """
import json, signal, sys
from pathlib import Path
from launch.launcher import Launcher
signal.signal(signal.SIGTERM, lambda *_: None)
path = Path(sys.argv[1])
manifest = json.loads(path.read_text())
path.write_text(json.dumps(manifest | {"launcher": Launcher.this().to_manifest()}))
print("written", flush=True)
number = signal.sigwait({signal.SIGINT})
terminated = signal.sigtimedwait({signal.SIGTERM}, float(sys.argv[2])) is not None
path.write_text(json.dumps(manifest | {"state": "interrupted", "exit_code": 5, "cause": str(terminated)}))
"""
"""A launcher that runs nothing, and ends by SIGINT; its cause says whether SIGTERM came too, soon enough."""


def run_folder(path: Path, **fields: Any) -> Path:
    """A run folder of one job that runs, with the files of two nodes on one host."""
    entry = {"arm": "EL", "seed": 1, "folder": "el/seed-1", "state": "waiting", "cause": None}
    content = {"v": 1, "state": "running", "cause": None, "started_utc": path.name, "jobs": [entry], **fields}
    nodes, logs = path / "el" / "seed-1" / "nodes", path / "el" / "seed-1" / "logs"
    for folder in (nodes, logs):
        folder.mkdir(parents=True)
    for node in range(2):
        (nodes / f"{node:03d}.jsonl").write_text("".join(f'{{"round":{t}}}\n' for t in range(20)))
    (logs / "h1.log").write_text("hello\n")
    (path / "manifest.json").write_text(json.dumps(content))
    return path


@pytest.fixture
def launcher(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that says in ``tmp_path/run`` that it is the launcher of this run.

    Its parameter, if it is given one, is for how many seconds after SIGINT it waits whether SIGTERM comes.
    """
    run_folder(tmp_path / "run")
    block = "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})\n"
    arguments = tmp_path / "run" / "manifest.json", getattr(request, "param", 0.2)
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", block + LAUNCHER, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "written\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()
