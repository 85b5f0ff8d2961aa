"""An experiment with an algorithm of the user's own, which imports a module that lies beside it."""

from __future__ import annotations

from pathlib import Path

import nodes.epidemic

EXPERIMENT = """
name = "mine"
nodes = 6
algorithm = "my_rumor:Rumor"
topology = { name = "regular", degree = 2 }
[data]
name = "quadratic"
[train]
lr = 0.05
batch = 2
local_steps = 2
[run]
max_rounds = 4
test_after = 2
"""
_SOURCE = Path(nodes.epidemic.__file__).read_text(encoding="utf-8")
ALGORITHM = (
    _SOURCE.replace("EpidemicLearning", "Rumor").replace("from decentral.mixing", "from my_average")
    + '"""Epidemic Learning by another name."""\n'
)
HELPER = 'from decentral.mixing import average\n\n__all__ = ["average"]\n'


def write_own(folder: Path) -> Path:
    """Write the experiment and its modules into a new ``folder``; the path of the experiment file."""
    folder.mkdir(mode=0o700)
    (folder / "my_rumor.py").write_text(ALGORITHM, encoding="utf-8")
    (folder / "my_average.py").write_text(HELPER, encoding="utf-8")
    (folder / "mine.toml").write_text(EXPERIMENT, encoding="utf-8")
    return folder / "mine.toml"
