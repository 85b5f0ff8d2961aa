"""A node that the kernel kills for want of memory, in a real cgroup with a real limit.

Making one needs a memory cgroup that is the tests' to divide: ``DECENTRAL_TEST_CGROUP`` names its folder.
"""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIMIT_MIB = 768
"""Agent, eight nodes and launcher need less than 500 MiB on the quadratic."""
HUNGRY = """
name = "hungry"
nodes = 8
algorithm = { name = "tests.integration.faulty:Faulty", how = "eat" }
topology = { name = "regular", degree = 3 }
fragments = { count = 1 }
[data]
name = "quadratic"
[train]
lr = 0.05
batch = 2
local_steps = 2
[run]
max_rounds = 1000
test_after = 1000
save_models = false
"""


@pytest.fixture
def small_cgroup() -> Iterator[Path]:
    """A memory cgroup of ``LIMIT_MIB``, version 1 or 2."""
    named = os.environ.get("DECENTRAL_TEST_CGROUP")
    if named is None:
        pytest.skip(
            "DECENTRAL_TEST_CGROUP is unset; set it to the folder of a memory cgroup of the tests' own"
        )
    group = Path(named) / f"decentral-{uuid.uuid4().hex[:8]}"
    group.mkdir()
    try:
        limit = group / "memory.max"
        limit = limit if limit.exists() else group / "memory.limit_in_bytes"
        limit.write_text(str(LIMIT_MIB << 20))
        yield group
    finally:
        group.rmdir()


def test_a_node_that_the_kernel_kills_for_memory_is_named_so(small_cgroup: Path, tmp_path: Path) -> None:
    toml = tmp_path / "hungry.toml"
    toml.write_text(HUNGRY, encoding="utf-8")
    enter = (
        "import os, sys; open(sys.argv[1], 'w').write(str(os.getpid())); os.execv(sys.argv[2], sys.argv[2:])"
    )
    command = [sys.executable, "-P", "-m", "launch", "run", str(toml), "--out", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-c", enter, str(small_cgroup / "cgroup.procs"), *command],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 4, done.stderr
    assert "decentral: node 3 on host localhost ran out of memory" in done.stderr
    assert (
        f"(the kernel killed it; cgroup limit {LIMIT_MIB} MiB reached) after round 4 of 1000" in done.stderr
    )
