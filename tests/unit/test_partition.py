"""Partitioners: what all of them promise, and the numbers of algorithms.md 9.4 and 9.5."""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Callable
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import decentral.partition
from decentral.errors import ConfigError, DataError
from decentral.partition.by_group import ByGroup
from decentral.partition.degree_noniid import DegreeNonIid
from decentral.partition.dirichlet import Dirichlet
from decentral.partition.file import File
from decentral.partition.iid import Iid
from decentral.partition.shards import Shards
from decentral.partition.shards_dealt import ShardsDealt
from decentral.partition.simple import Simple
from decentral.seeding import Seeds
from decentral.tasks.base import Examples, Partitioner

MODULES = sorted(module.name for module in pkgutil.iter_modules(decentral.partition.__path__))
FOUND: dict[str, Callable[..., Partitioner]] = {
    name: cls
    for module in MODULES
    for name, cls in importlib.import_module(f"decentral.partition.{module}").PARTITIONERS.items()
}


def cifar_like() -> Examples:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 5000))
    return Examples(count=50_000, labels=labels)


def build(name: str, examples: Examples, n: int, folder: Path) -> Partitioner:
    """The partitioner with its defaults; a required ``path`` gets a file that deals rows round-robin."""
    cls: Any = FOUND[name]
    required = [field.name for field in fields(cls) if field.default is MISSING]
    if required == ["path"]:
        path = folder / "rows.json"
        path.write_text(json.dumps([list(range(node, examples.count, n)) for node in range(n)]))
        return FOUND[name](path=str(path))
    assert not required, f"{name}: give {required} defaults, so that this test and users can do without"
    return FOUND[name]()


def test_every_file_defines_a_partitioner_of_its_own_name() -> None:
    assert list(FOUND) == MODULES
    assert {"iid", "simple", "shards", "shards_dealt", "dirichlet", "by_group", "file"} <= set(FOUND)


@pytest.mark.parametrize("name", sorted(FOUND))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    n=st.integers(1, 9),
    sizes=st.tuples(st.integers(1, 400), st.integers(1, 6), st.integers(1, 20)),
    seed=st.integers(0, 2**32),
)
def test_shards_are_disjoint_nonempty_in_range_and_repeatable(
    name: str, tmp_path: Path, n: int, sizes: tuple[int, int, int], seed: int
) -> None:
    count, classes, owners = sizes
    draw = np.random.default_rng(seed)
    groups = draw.integers(0, owners, count)
    examples = Examples(count=count, labels=draw.integers(0, classes, count), groups=groups)
    partitioner = build(name, examples, n, tmp_path)
    try:
        parts = partitioner.split(examples, n, Seeds(seed).rng("partition"))
    except ConfigError as error:
        refusal = str(error)
    else:
        refusal = ""
    if refusal:
        # Allowed where rows or groups are few for the defaults, or after the promised number of retries.
        assert count < 10 * n * classes or len(np.unique(groups)) < n or "after 1000 retries" in refusal
        assert "; use" in refusal or "; correct" in refusal
        return
    assert len(parts) == n
    assert all(part.dtype == np.int64 and part.ndim == 1 and part.size > 0 for part in parts)
    together = np.concatenate(parts)
    assert together.min() >= 0
    assert together.max() < count
    assert len(np.unique(together)) == len(together)
    again = partitioner.split(examples, n, Seeds(seed).rng("partition"))
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))


@pytest.mark.parametrize("name", sorted(set(FOUND) - {"simple", "file", "by_group"}))
def test_another_seed_gives_another_partition(name: str) -> None:
    examples = cifar_like()
    first, second = (FOUND[name]().split(examples, 10, Seeds(seed).rng("partition")) for seed in (1, 2))
    assert any(not np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("name", ["shards", "shards_dealt", "dirichlet", "degree_noniid"])
def test_without_labels_they_name_an_alternative(name: str) -> None:
    with pytest.raises(ConfigError, match="no classes; use partition iid"):
        FOUND[name]().split(Examples(count=1000), 4, Seeds(1).rng("partition"))


@pytest.mark.parametrize(
    ("partitioner", "count", "message"),
    [
        (Iid(), 5, r"iid\(n=6\): 5 rows .* use n <= 5"),
        (Simple(), 5, r"simple\(n=6\): 5 rows .* use n <= 5"),
        (DegreeNonIid(), 5, r"degree_noniid\(n=6\): 5 rows .* use n <= 5"),
        (Shards(shards=5), 29, r"shards\(n=6, shards=5\): 29 rows give 4 per node"),
        (ShardsDealt(shards=5), 29, r"shards_dealt\(n=6, shards=5\): 29 rows cannot fill 30 shards"),
        (Dirichlet(), 11, r"dirichlet\(n=6\): 11 rows cannot give every node 2, one per class; use n <= 5"),
        (ByGroup(), 29, r"by_group\(n=6\): there are 2 groups, fewer than nodes; use n <= 2"),
    ],
)
def test_too_few_rows_are_refused(partitioner: Partitioner, count: int, message: str) -> None:
    examples = Examples(count=count, labels=np.arange(count) % 2, groups=np.arange(count) % 2)
    with pytest.raises(ConfigError, match=message):
        partitioner.split(examples, 6, Seeds(1).rng("partition"))


@pytest.mark.parametrize("partitioner", [Iid(), Simple()])
def test_equal_parts_use_every_row(partitioner: Partitioner) -> None:
    parts = partitioner.split(Examples(count=50_000), 60, Seeds(1).rng("partition"))
    assert [len(part) for part in parts] == [834] * 20 + [833] * 40
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(50_000))


def test_simple_keeps_the_order() -> None:
    parts = Simple().split(Examples(count=7), 3, Seeds(1).rng("partition"))
    assert [part.tolist() for part in parts] == [[0, 1, 2], [3, 4], [5, 6]]


def test_shards_have_divshares_sizes_on_cifar() -> None:
    examples = cifar_like()
    assert examples.labels is not None
    parts = Shards(shards=5).split(examples, 60, Seeds(1).rng("partition"))
    assert [len(part) for part in parts] == [830] * 59 + [850]
    assert 50_000 - sum(len(part) for part in parts) == 180
    # A first shard of 166 rows comes from an untouched circle: at most two neighboring classes, in order.
    first = examples.labels[parts[0][:166]]
    assert len(np.unique(first)) <= 2
    assert set(np.diff(first).tolist()) <= {0, 1, -9}
    assert np.mean([len(np.unique(examples.labels[part])) for part in parts]) < 8


def test_a_shard_joins_what_earlier_draws_left_and_wraps() -> None:
    """One class, so the circle is 0..N-1: replay the draws by hand on a list."""
    examples = Examples(count=24, labels=np.zeros(24, dtype=np.int64))
    parts = Shards(shards=2).split(examples, 3, Seeds(5).rng("partition"))
    draws = Seeds(5).rng("partition")
    circle = list(range(24))
    for part in parts:
        expected = []
        for _ in range(2):
            start = int(draws.integers(len(circle)))
            circle = circle[start:] + circle[:start]
            expected += circle[:4]
            circle = circle[4:]
        assert part.tolist() == expected


def test_shards_dealt_gives_two_hundredths_of_the_sorted_rows() -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 600))
    parts = ShardsDealt(shards=2).split(Examples(count=6000, labels=labels), 100, Seeds(1).rng("partition"))
    assert {len(part) for part in parts} == {60}
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(6000))
    for part in parts:
        halves = labels[part].reshape(2, 30)
        assert (halves == halves[:, :1]).all()


@pytest.mark.parametrize("alpha", [0.1, 1.0, 100.0])
def test_dirichlet_uses_every_row_and_leaves_nobody_short(alpha: float) -> None:
    parts = Dirichlet(alpha=alpha).split(cifar_like(), 60, Seeds(1).rng("partition"))
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(50_000))
    assert min(len(part) for part in parts) >= 10


def test_dirichlet_skews_more_with_a_smaller_alpha() -> None:
    examples = cifar_like()
    assert examples.labels is not None

    def largest_share(alpha: float) -> float:
        parts = Dirichlet(alpha=alpha).split(examples, 20, Seeds(1).rng("partition"))
        assert examples.labels is not None
        return float(np.mean([np.bincount(examples.labels[part]).max() / len(part) for part in parts]))

    assert largest_share(0.1) > 0.45 > largest_share(1.0) > 0.2 > largest_share(1000.0)


def test_dirichlet_gives_nothing_more_to_a_full_node() -> None:
    """Sizes stay below N / n plus the largest class: only the class that fills a node may overshoot."""
    parts = Dirichlet(alpha=0.1).split(cifar_like(), 60, Seeds(3).rng("partition"))
    assert max(len(part) for part in parts) < 50_000 / 60 + 5000


def test_dirichlet_gives_up_with_advice() -> None:
    with pytest.raises(
        ConfigError, match=r"alpha=0.001\): after 5 retries .* use a larger alpha or max_retries"
    ):
        Dirichlet(alpha=0.001, max_retries=5).split(cifar_like(), 60, Seeds(1).rng("partition"))


def test_by_group_gives_contiguous_blocks_of_users() -> None:
    groups = np.random.default_rng(0).permutation(np.repeat(np.arange(610), 20))
    parts = ByGroup().split(Examples(count=len(groups), groups=groups), 60, Seeds(1).rng("partition"))
    owners = [np.unique(groups[part]) for part in parts]
    assert [len(users) for users in owners] == [11] * 10 + [10] * 50
    assert np.array_equal(np.concatenate(owners), np.arange(610))
    assert [len(part) for part in parts] == [220] * 10 + [200] * 50


def test_by_group_shuffles_whole_groups() -> None:
    groups = np.repeat(np.arange(40), 3)
    parts = ByGroup(shuffle=True).split(Examples(count=120, groups=groups), 4, Seeds(1).rng("partition"))
    owners = [set(groups[part].tolist()) for part in parts]
    assert [len(part) for part in parts] == [30] * 4
    assert set.union(*owners) == set(range(40))
    assert sum(map(len, owners)) == 40
    assert owners[0] != set(range(10))


def test_by_group_needs_groups() -> None:
    with pytest.raises(ConfigError, match="no owners; use partition iid"):
        ByGroup().split(Examples(count=10), 2, Seeds(1).rng("partition"))


@pytest.mark.parametrize(("p", "low", "high"), [(0.0, 0.09, 0.14), (0.7, 0.7, 0.76), (1.0, 1.0, 1.0)])
def test_degree_noniid_sets_the_share_of_the_main_class(p: float, low: float, high: float) -> None:
    """Ten nodes, ten classes (SWIFT's setting): each node's own class holds p + (1 - p) / 10 of its rows."""
    examples = cifar_like()
    assert examples.labels is not None
    parts = DegreeNonIid(p=p).split(examples, 10, Seeds(1).rng("partition"))
    assert [len(part) for part in parts] == [5000] * 10
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(50_000))
    for node, part in enumerate(parts):
        shares = np.bincount(examples.labels[part], minlength=10) / len(part)
        assert low <= shares.max() <= high
        assert p == 0.0 or shares.argmax() == node


def test_degree_noniid_moves_on_to_the_next_class_after_each_node() -> None:
    labels = np.repeat(np.arange(3), 8)
    parts = DegreeNonIid(p=1.0).split(Examples(count=24, labels=labels), 4, Seeds(1).rng("partition"))
    assert [np.bincount(labels[part], minlength=3).tolist() for part in parts] == [
        [6, 0, 0],
        [0, 6, 0],
        [0, 0, 6],
        [2, 2, 2],
    ]


def test_file_reads_json_and_npz(tmp_path: Path) -> None:
    rows = [[5, 1], [0], [9, 8, 7]]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    np.savez(tmp_path / "rows.npz", *[np.asarray(part) for part in rows])
    for name in ("rows.json", "rows.npz"):
        parts = File(path=str(tmp_path / name)).split(Examples(count=10), 3, Seeds(1).rng("partition"))
        assert [part.tolist() for part in parts] == rows


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([[0], [1]], "2 row lists for 3 nodes"),
        ([[0], [1], []], "node 2 needs a non-empty flat list of integers"),
        ([[0], [1], [2.5]], "node 2 needs a non-empty flat list of integers"),
        ([[0], [1], [[2]]], "node 2 needs a non-empty flat list of integers"),
        ([[0], [1], [10]], r"node 2 has row 10, but rows are 0\.\.9"),
        ([[0], [1], [-1]], r"node 2 has row -1, but rows are 0\.\.9"),
        ([[0], [1], [2, 0]], "row 0 belongs to nodes 0 and 2"),
        ([[0], [1], [2, 2]], "node 2 lists a row twice"),
        ([[0], [1], [2, [3]]], "not a readable list of row lists"),
        ({"0": [1]}, "not a readable list of row lists"),
    ],
)
def test_file_refuses_what_is_no_partition(tmp_path: Path, content: object, message: str) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=message):
        File(path=str(path)).split(Examples(count=10), 3, Seeds(1).rng("partition"))


def test_file_refuses_absent_damaged_foreign_and_pickled_files(tmp_path: Path) -> None:
    draw = Seeds(1).rng("partition")
    with pytest.raises(DataError, match="no such file"):
        File(path=str(tmp_path / "absent.json")).split(Examples(count=10), 3, draw)
    (tmp_path / "cut.json").write_text("[[0], [1")
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04 but not for long")
    np.savez(tmp_path / "objects.npz", np.array([{"a": 1}], dtype=object))
    np.savez(tmp_path / "named.npz", rows=np.arange(3))
    for name in ("cut.json", "cut.npz", "objects.npz", "named.npz"):
        with pytest.raises(DataError, match="not a readable list of row lists"):
            File(path=str(tmp_path / name)).split(Examples(count=10), 3, draw)
    with pytest.raises(ConfigError, match=r"must end in .json or .npz"):
        File(path="rows.pt")
