"""An algorithm of the user's own comes to hosts over real ssh, with what it imports; the same models."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab.hosts_file import write_hosts
from tests.lab.lab import Lab
from tests.lab.launching import Run
from tests.own_parts import ALGORITHM, EXPERIMENT, HELPER

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(600)]
ROWS = "[" + ", ".join(f"[{3 * node}, {3 * node + 1}, {3 * node + 2}]" for node in range(6)) + "]"


def test_it_comes_to_three_hosts_with_the_files_that_its_parts_name(lab3: Lab, tmp_path: Path) -> None:
    rows = tmp_path / "rows of mine.json"
    rows.write_text(ROWS, encoding="utf-8")
    experiment = EXPERIMENT.replace(
        'name = "quadratic"', f'name = "quadratic"\npartition = {{ name = "file", path = "{rows}" }}'
    )
    found = {}
    for where in ("here", "hosts"):
        folder = tmp_path / where
        folder.mkdir(mode=0o700)
        (folder / "my_rumor.py").write_text(ALGORITHM, encoding="utf-8")
        (folder / "my_average.py").write_text(HELPER, encoding="utf-8")
        words = ("--hosts", write_hosts(lab3, tmp_path / "hosts.toml")) if where == "hosts" else ()
        with Run(folder, experiment, *words) as run:
            manifest = run.ended(300)
            assert manifest["state"] == "done", manifest["cause"]
            assert run.code() == 0, run.output
            found[where] = run.digests("*")
            assert sorted(manifest["modules"]) == ["my_average", "my_rumor"]
    assert len(found["here"]) == 6
    assert found["hosts"] == found["here"]
    assert all(run.nodes_on(name) for name in lab3.addresses)
