"""Equivalences and invariants of algorithms.md section 14.

Those that are about schedules (9, 12, 13, 15) are in test_asynchronous.py.
"""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decentral.arrays import FloatArray
from decentral.recipients import draw_recipients
from decentral.resampled import ResampledFragments
from decentral.seeding import Seeds
from launch.build import load_workload
from tests.harness import arm, composed, events, mixing_matrix, run

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


SLOW_LINKS = {"name": "star", "settings": {"fast_mbps": 60.0, "stragglers": 4, "latency_ms": 0.01}}
"""Sixteen float32 take 8.5 us at 60 Mbit/s."""
HASTE = {"time_per_round": 5e-5}
"""As long as the fast nodes need for six models; the slow ones then send about one."""


@pytest.mark.parametrize("flush", [False, True], ids=["backlog", "flush"])
def test_divshare_with_one_fragment_is_swift_push(flush: bool, tmp_path: Path) -> None:
    """14.1, to the bit, with queues that overflow; with a flush it is the Omega = 1 point of Fig. 6."""
    common: dict[str, Any] = {
        "topology": None,
        "fragments": WHOLE,
        "network": SLOW_LINKS,
        "compute": HASTE,
        "run": {"max_rounds": 12, "test_after": 4},
    }
    own = {"recipients": 5, "flush": flush}
    share = run(arm(algorithm={"name": "divshare", "settings": own}, **common), tmp_path / "a")
    push = run(arm(algorithm={"name": "swift_push", "settings": own}, **common), tmp_path / "b")
    other = {**own, "flush": not flush}
    changed = run(arm(algorithm={"name": "divshare", "settings": other}, **common), tmp_path / "c")
    assert share.models.tobytes() == push.models.tobytes()
    first, second = (events(tmp_path / each / "network.jsonl") for each in "ab")
    assert [line for line in first if line["event"] == "links"] == [
        line for line in second if line["event"] == "links"
    ]
    assert share.models.tobytes() != changed.models.tobytes()


@pytest.mark.parametrize("resample", [False, True], ids=["one-map", "map-per-round"])
@pytest.mark.parametrize("count", [1, 4])
def test_divshare_on_an_infinite_network_is_el_local_one_round_late(
    count: int, resample: bool, tmp_path: Path
) -> None:
    """14.2: x_{k+1} = mean(own y_{k+1}, others' y_k), per fragment, against dense matrices."""
    own = {"recipients": 3, "resample": resample}
    settings = arm(
        algorithm={"name": "divshare", "settings": own},
        topology=None,
        fragments={"count": count, "map": "global"},
        run={"max_rounds": 7, "test_after": 7, "init": "independent"},
    )
    workload = load_workload(settings, 1, {})
    composition, n = workload.composition, settings.nodes
    seeds, sizes = composition.seeds, tuple(prod(shape) for _, shape in composition.task.shapes())
    maps = (
        ResampledFragments(composition.fragmenter, sizes) if resample else composition.fragmenter.split(sizes)
    )
    learners = [workload.loaded.learner(shard, composition.sgd) for shard in workload.shards]
    x = np.stack([workload.initial(i) for i in range(n)]).astype(np.float64)
    sent: FloatArray | None = None
    chosen: list[Any] = []
    for t in range(7):
        for i, learner in enumerate(learners):
            learner.x[:] = x[i]
            learner.train(2, seeds.rng("node/batch", i, t))
        trained = np.stack([learner.x.copy() for learner in learners])
        x = trained.astype(np.float64)
        for k in range(count if sent is not None else 0):
            assert sent is not None
            reached = np.array(
                [[j in chosen[i][k] for j in range(n)] for i in range(n)]
            ).T  # [receiver, sender]
            columns = maps.at(t - 1).indices(k)
            total = trained[:, columns] + reached @ sent[:, columns].astype(np.float64)
            x[:, columns] = total / (1 + reached.sum(axis=1, keepdims=True))
        sent = trained
        chosen = [
            draw_recipients(
                seeds.rng("node/recipients", i, t), np.delete(np.arange(n), i), fragments=count, count=3
            )
            for i in range(n)
        ]
    np.testing.assert_allclose(run(settings, tmp_path).models, x, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("count", [1, 2, 8])
def test_divshare_queues_j_models_whatever_the_number_of_fragments(count: int, tmp_path: Path) -> None:
    """14.10: F*J messages and J*4d bytes per node and round.

    On a fast network all but those of the last round are aggregated: no flush loses what had time to leave,
    no sender misses a refill or stops, no receiver loses what comes while it aggregates (B3, B5, B6, B8).
    """
    settings = arm(
        algorithm={"name": "divshare", "settings": {"recipients": 3}},
        topology=None,
        fragments={"count": count, "map": "per_tensor"},
    )
    result = run(settings, tmp_path)
    rounds, n, d = settings.run.max_rounds, settings.nodes, result.models.shape[1]
    assert rounds is not None
    ends = [lines[-1] for lines in result.nodes]
    assert [end["made"] for end in ends] == [count * 3 * rounds] * n
    assert [end["made_bytes"] for end in ends] == [3 * 4 * d * rounds] * n
    assert sum(end["aggregated"] for end in ends) == count * 3 * (rounds - 1) * n


def test_a_parameter_is_received_as_often_as_theory_says() -> None:
    """14.11: alpha_1 = E[1/(1 + R)] = (n-1)/(J n) (1 - (1 - J/(n-1))^n) = 0.16363 for n = 60, J = 6."""
    n, recipients, fragments, rounds = 60, 6, 10, 60
    expected = (n - 1) / (recipients * n) * (1 - (1 - recipients / (n - 1)) ** n)
    assert expected == pytest.approx(0.16363, abs=5e-6)
    seeds = Seeds(3)
    means = []
    for t in range(rounds):
        received = np.zeros((fragments, n))
        for i in range(n):
            peers = np.delete(np.arange(n), i)
            drawn = draw_recipients(
                seeds.rng("node/recipients", i, t), peers, fragments=fragments, count=recipients
            )
            assert not (drawn == i).any(), "a node never sends to itself"
            assert (np.diff(drawn, axis=1) > 0).all(), "without replacement"
            np.add.at(received, (np.arange(fragments)[:, None], drawn), 1)
        assert received.sum() == fragments * n * recipients
        means.append((1 / (1 + received)).mean())
    # Independent rounds give the error of the mean, about 2e-4.
    error = np.std(means, ddof=1) / np.sqrt(rounds)
    assert error < 4e-4
    assert np.mean(means) == pytest.approx(expected, abs=4 * error)


def test_every_set_of_recipients_is_equally_likely() -> None:
    """All 10 pairs of 5 peers: chi-square with 9 degrees of freedom stays below its 99.99 % quantile."""
    draws = 20_000
    drawn = draw_recipients(Seeds(0).rng("node/recipients", 0, 0), np.arange(1, 6), fragments=draws, count=2)
    _, counts = np.unique(drawn, axis=0, return_counts=True)
    assert len(counts) == 10
    assert ((counts - draws / 10) ** 2 / (draws / 10)).sum() < 33.7
    everyone = draw_recipients(Seeds(0).rng("x"), np.arange(1, 6), fragments=3, count=5)
    assert everyone.tolist() == [[1, 2, 3, 4, 5]] * 3


def test_a_synchronous_round_counts_only_if_it_is_over_by_the_limit(tmp_path: Path) -> None:
    """One node computes twice as long: neither it nor who waits for it ends a round after the limit."""
    slow = {"time_per_round": 1.0, "slow_nodes": 1, "slow_factor": 2.0, "slow_which": "first"}
    settings = arm(
        algorithm={"name": "dpsgd"},
        fragments={"count": 1},
        topology={"name": "regular", "settings": {"degree": 3, "dynamic": False}},
        compute=slow,
        run={"max_rounds": None, "time_limit_s": 5.0, "test_after": 2},
    )
    result = run(settings, tmp_path)
    times = [time for column in result.column("round", "time_s") for time in column]
    assert max(times) <= 5.0
    assert min(map(len, result.column("round", "time_s"))) == 2
