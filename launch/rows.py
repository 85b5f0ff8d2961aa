"""Who trains on which rows and is scored on which, once the data is loaded."""

from __future__ import annotations

import numpy as np

from decentral.arrays import IntArray
from decentral.config.problems import sentence
from decentral.errors import ConfigError
from decentral.tasks.base import Examples, LoadedTask, Split
from launch import parts
from launch.compose import Composition


def held_out(composition: Composition, examples: Examples) -> IntArray:
    """Training rows set aside for validation, ascending: a seeded share ``data.validation`` of all."""
    share = composition.arm.data.validation
    if share == 0:
        return np.empty(0, dtype=np.int64)
    count = max(1, int(share * examples.count))
    rows = composition.seeds.rng("data").choice(examples.count, size=count, replace=False)
    return np.sort(rows)


def shards(composition: Composition, loaded: LoadedTask) -> list[IntArray]:
    """Training rows of nodes 0..n-1, those set aside for validation left out; none where nothing is trained.

    The rows are set aside before the others are dealt, so that no node is left without any.

    Raises:
        ConfigError: the rows cannot be dealt so.
    """
    if composition.untrained:
        return [np.empty(0, dtype=np.int64)] * composition.arm.nodes
    examples = loaded.examples
    kept = np.setdiff1d(np.arange(examples.count), held_out(composition, examples))
    labels = None if examples.labels is None else examples.labels[kept]
    groups = None if examples.groups is None else examples.groups[kept]
    remaining = Examples(count=kept.size, labels=labels, groups=groups)
    try:
        dealt = composition.partitioner.split(
            remaining, composition.arm.nodes, composition.seeds.rng("partition")
        )
    except ConfigError as error:
        raise ConfigError([parts.located("data.partition", text) for text in error.problems]) from error
    return [kept[rows] for rows in dealt]


def evaluation_rows(
    composition: Composition, loaded: LoadedTask, shard: IntArray | None, *, final: bool = False
) -> tuple[Split, IntArray | None]:
    """On what a model is scored: a split of ``loaded`` and rows of it, all where None.

    Args:
        composition: the run.
        loaded: its data.
        shard: training rows of the node whose model it is; None for the mean of all nodes' models, which
            is scored on everybody's rows also under ``evaluate.scope = "local"``.
        final: on the whole split instead of the curves' subset of ``evaluate.samples`` rows.

    Raises:
        ConfigError: ``evaluate.scope = "local"`` where the task has no owners of rows, or an owner no rows.
    """
    if composition.untrained:
        return "test", None
    wanted = composition.arm.evaluate
    split: Split = "train" if wanted.split == "validation" else "test"
    rows = held_out(composition, loaded.examples) if split == "train" else None
    if wanted.scope == "local" and shard is not None:
        own = _local_rows(loaded, split, shard)
        rows = own if rows is None else np.intersect1d(rows, own)
        if rows.size == 0:
            expectation = f"a node's owners have no row in the {wanted.split} split"
            raise ConfigError(sentence("evaluate.scope", "local", expectation, 'use "global"'))
    count = loaded.rows(split) if rows is None else rows.size
    if final or wanted.samples is None or wanted.samples >= count:
        return split, rows
    chosen = np.sort(composition.seeds.rng("evaluate").choice(count, size=wanted.samples, replace=False))
    return split, chosen if rows is None else rows[chosen]


def _local_rows(loaded: LoadedTask, split: Split, shard: IntArray) -> IntArray:
    try:
        return loaded.local_rows(split, shard)
    except ConfigError as error:
        raise ConfigError([parts.located("evaluate.scope", text) for text in error.problems]) from error
