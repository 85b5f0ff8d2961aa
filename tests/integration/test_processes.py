"""Real processes over ipc: the same bits as inline, the same bits twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from launch.executors.local import LocalExecutor
from tests.harness import arm, run

ARMS: dict[str, dict[str, Any]] = {
    "mosaic": {},
    "mosaic-local": {"topology": {"name": "epidemic", "settings": {"degree": 3}}},
    "mosaic-virtual-nodes": {"topology": {"name": "vn_regular", "settings": {"degree": 3}}},
    "epidemic": {"algorithm": {"name": "epidemic"}, "fragments": {"count": 1}},
    "dpsgd": {
        "algorithm": {"name": "dpsgd"},
        "fragments": {"count": 1},
        "topology": {"name": "regular", "settings": {"degree": 3, "dynamic": False}},
    },
    "perturbed": {"run": {"max_rounds": 5, "test_after": 2, "init": "perturb(4)"}},
}


@pytest.fixture(scope="module")
def executor() -> Iterator[LocalExecutor]:
    """One agent for all tests of this file."""
    made = LocalExecutor()
    made.start()
    yield made
    made.close()


@pytest.mark.parametrize("name", ARMS)
def test_processes_and_inline_agree_to_the_bit(name: str, executor: LocalExecutor, tmp_path: Path) -> None:
    settings = arm(**ARMS[name])
    processes = run(settings, tmp_path / "processes", executor=executor)
    inline = run(settings, tmp_path / "inline")
    assert processes.models.tobytes() == inline.models.tobytes()
    assert processes.column("end", "model_sha256") == inline.column("end", "model_sha256")
    for key in ("train_loss", "total_bytes", "total_meta", "sent"):
        assert processes.column("round", key) == inline.column("round", key)
    assert processes.column("evaluation", "test_loss") == inline.column("evaluation", "test_loss")
    strip = ("round", "consensus", "test_loss", "test_distance", "models")
    assert [[line.get(key) for key in strip] for line in processes.metrics] == [
        [line.get(key) for key in strip] for line in inline.metrics
    ]


def test_many_parameters_agree_to_the_bit(executor: LocalExecutor, tmp_path: Path) -> None:
    """Numerical libraries would use several threads for this many, which sum in another order."""
    data = {"name": "quadratic", "settings": {"d": 400, "rows": 64}}
    settings = arm(nodes=4, data=data, topology={"name": "ring"}, run={"max_rounds": 2, "test_after": 1})
    processes = run(settings, tmp_path / "processes", executor=executor)
    inline = run(settings, tmp_path / "inline")
    assert processes.models.tobytes() == inline.models.tobytes()
    assert [line.get("consensus") for line in processes.metrics] == [
        line.get("consensus") for line in inline.metrics
    ]


def test_torch_model_agrees_to_the_bit(executor: LocalExecutor, tmp_path: Path) -> None:
    settings = arm(
        nodes=4,
        data={"name": "digits", "partition": {"name": "dirichlet", "settings": {"alpha": 0.5}}},
        fragments={"count": 8},
        train={"lr": 0.05, "batch": 8, "local_steps": 4},
        run={"max_rounds": 4, "test_after": 2},
        evaluate={"samples": 50},
    )
    first = run(settings, tmp_path / "a", executor=executor)
    again = run(settings, tmp_path / "b", executor=executor)
    inline = run(settings, tmp_path / "c")
    assert first.models.tobytes() == again.models.tobytes() == inline.models.tobytes()


def test_sixty_nodes(executor: LocalExecutor, tmp_path: Path) -> None:
    settings = arm(nodes=60, topology={"name": "regular", "settings": {"degree": 4}})
    result = run(settings, tmp_path, executor=executor)
    assert len({line[0]["pid"] for line in result.nodes}) == 60
