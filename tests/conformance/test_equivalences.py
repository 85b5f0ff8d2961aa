"""Equivalences and invariants of algorithms.md section 14 for the synchronous algorithms."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.harness import arm, composed, mixing_matrix, run

MOSAIC = {"name": "mosaic"}
EPIDEMIC = {"name": "epidemic"}
WHOLE = {"count": 1, "map": "per_tensor"}
EL_LOCAL = {"name": "epidemic", "settings": {"degree": 3}}
EL_ORACLE = {"name": "regular", "settings": {"degree": 3}}
STATIC = {"name": "regular", "settings": {"degree": 3, "dynamic": False}}
VIRTUAL = {"name": "vn_regular", "settings": {"degree": 3}}


@pytest.mark.parametrize("topology", [EL_LOCAL, EL_ORACLE], ids=["EL-Local", "EL-Oracle"])
def test_mosaic_with_one_fragment_is_epidemic_learning(topology: dict[str, Any], tmp_path: Path) -> None:
    """14.3, to the bit."""
    mosaic = run(arm(algorithm=MOSAIC, fragments=WHOLE, topology=topology), tmp_path / "a")
    epidemic = run(arm(algorithm=EPIDEMIC, fragments=WHOLE, topology=topology), tmp_path / "b")
    assert mosaic.models.tobytes() == epidemic.models.tobytes()


def test_static_mosaic_with_one_fragment_is_dpsgd(tmp_path: Path) -> None:
    """14.3: on a regular graph Metropolis-Hastings weights are uniform; sums are ordered differently."""
    mosaic = run(arm(algorithm=MOSAIC, fragments=WHOLE, topology=STATIC), tmp_path / "a")
    dpsgd = run(arm(algorithm={"name": "dpsgd"}, fragments=WHOLE, topology=STATIC), tmp_path / "b")
    np.testing.assert_allclose(mosaic.models, dpsgd.models, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("fragment_map", ["per_tensor", "global", "contiguous"])
@pytest.mark.parametrize("count", [2, 5])
def test_equal_matrices_make_fragments_irrelevant(fragment_map: str, count: int, tmp_path: Path) -> None:
    """14.4, to the bit: per parameter the same values are added in the same order."""
    shared = {"name": "regular", "settings": {"degree": 3, "per_fragment": False}}
    cut = run(arm(topology=shared, fragments={"count": count, "map": fragment_map}), tmp_path / "a")
    whole = run(arm(topology=shared, fragments=WHOLE), tmp_path / "b")
    assert cut.models.tobytes() == whole.models.tobytes()


@pytest.mark.parametrize(
    "topology", [EL_LOCAL, EL_ORACLE, STATIC, VIRTUAL], ids=["local", "oracle", "static", "vn"]
)
@pytest.mark.parametrize("count", [1, 4])
def test_one_round_is_the_matrix_product(topology: dict[str, Any], count: int, tmp_path: Path) -> None:
    """Mosaic eq. (1): X[C_k] <- W^(k) X[C_k], against dense matrices; ``vn`` is Shatter (14.3)."""
    settings = arm(
        topology=topology,
        fragments={"count": count, "map": "global"},
        train={"lr": 0.0},
        run={"max_rounds": 1, "test_after": 1, "init": "independent"},
    )
    composition = composed(settings)
    loaded = composition.task.load()
    x = np.stack([loaded.initial(composition.seeds.integer("model", i)) for i in range(settings.nodes)])
    fragments = composition.fragmenter.split([prod(shape) for _, shape in composition.task.shapes()])
    expected = x.astype(np.float64)
    for k in range(count):
        columns = fragments.indices(k)
        expected[:, columns] = mixing_matrix(composition, 0, k) @ x[:, columns]
    np.testing.assert_allclose(run(settings, tmp_path).models, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("algorithm", "topology", "fragments"),
    [
        (MOSAIC, EL_ORACLE, {"count": 4, "map": "global"}),
        (EPIDEMIC, EL_ORACLE, WHOLE),
        ({"name": "dpsgd"}, {"name": "star"}, WHOLE),
        ({"name": "dpsgd"}, {"name": "small_world", "settings": {"degree": 4, "rewiring": 0.5}}, WHOLE),
    ],
    ids=["mosaic", "el-oracle", "dpsgd-star", "dpsgd-small-world"],
)
def test_symmetric_mixing_keeps_the_mean(
    algorithm: dict[str, Any], topology: dict[str, Any], fragments: dict[str, Any], tmp_path: Path
) -> None:
    """14.6."""
    settings = arm(
        algorithm=algorithm,
        topology=topology,
        fragments=fragments,
        train={"lr": 0.0},
        run={"max_rounds": 10, "test_after": 5, "init": "independent"},
    )
    composition = composed(settings)
    loaded = composition.task.load()
    x = np.stack([loaded.initial(composition.seeds.integer("model", i)) for i in range(settings.nodes)])
    after = run(settings, tmp_path).models
    np.testing.assert_allclose(after.mean(axis=0), x.mean(axis=0), rtol=1e-4, atol=1e-6)
    assert after.std(axis=0).max() < x.std(axis=0).max()


@pytest.mark.parametrize("topology", [EL_LOCAL, EL_ORACLE, VIRTUAL], ids=["local", "oracle", "vn"])
def test_volume_does_not_depend_on_the_number_of_fragments(topology: dict[str, Any], tmp_path: Path) -> None:
    """14.10: K*r messages and r*4d bytes per node and round (for vn_regular less what it sends to itself)."""
    for count in (1, 2, 8):
        settings = arm(topology=topology, fragments={"count": count, "map": "global"})
        d = sum(prod(shape) for _, shape in composed(settings).task.shapes())
        result = run(settings, tmp_path / str(count))
        rounds, degree = settings.run.max_rounds, 3
        sent = [end["sent"] for end in (lines[-1] for lines in result.nodes)]
        volume = [end["total_bytes"] for end in (lines[-1] for lines in result.nodes)]
        if topology is VIRTUAL:
            assert max(sent) <= count * degree * rounds
            continue
        assert sent == [count * degree * rounds] * settings.nodes
        assert volume == [degree * 4 * d * rounds] * settings.nodes


def test_epidemic_disagreement_contracts_at_least_as_theory_says() -> None:
    """14.11: E of the pairwise disagreement after one EL-Local step is at most beta_s of the one before."""
    n, s, draws = 20, 4, 400
    beta = (1 / s) * (1 - (1 - s / (n - 1)) ** n) - 1 / (n - 1)
    topology = composed(
        arm(
            nodes=n,
            algorithm=EPIDEMIC,
            fragments=WHOLE,
            topology={"name": "epidemic", "settings": {"degree": s}},
        )
    )
    x = np.random.default_rng(0).normal(size=(n, 8))
    before = np.mean([np.sum((a - b) ** 2) for a in x for b in x])
    after = []
    for t in range(draws):
        y = mixing_matrix(topology, t, 0) @ x
        after.append(np.mean([np.sum((a - b) ** 2) for a in y for b in y]))
    error = 3 * np.std(after) / np.sqrt(draws)
    assert np.mean(after) <= beta * before + error
