"""What this machine must have before anything is started."""

from __future__ import annotations

import resource
import shutil
import tempfile
from pathlib import Path

import psutil

from decentral.config import Experiment
from decentral.errors import PreflightError
from decentral.tasks.base import size_of
from launch.compose import compose
from launch.paths import unwritable
from launch.rounds import most_rounds

BYTES_PER_LOG_LINE = 400
UNKNOWN_ROUNDS = 10_000
"""Rounds to have room for where a wall clock's time limit alone ends a run."""
AGENT_BYTES = 600 << 20
NODE_BYTES = 20 << 20
DESCRIPTORS_PER_NODE = 3


def preflight(experiment: Experiment, out: Path, *, inline: bool = False) -> None:
    """Refuse what cannot work here: unwritable or full disk, too little memory, too few file descriptors.

    Raises:
        PreflightError: says what is there, what is needed and what to change.
    """
    _writable(out)
    _space(experiment, out)
    _memory(experiment, 0 if inline else NODE_BYTES)
    _descriptors(experiment, 1 if inline else DESCRIPTORS_PER_NODE)


def _writable(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out) as probe:
            probe.write(bytes(4096))
            probe.flush()
    except OSError as error:
        raise unwritable(out, error) from error


def _space(experiment: Experiment, out: Path) -> None:
    needed = 10 << 20  # report and figures
    for arm in experiment.arms:
        d = size_of(compose(arm, experiment.seeds[0]).task.shapes())
        rounds = most_rounds(arm, experiment.seeds[0]) or UNKNOWN_ROUNDS
        lines = rounds * (1 + 1 / arm.run.test_after)
        per_node = lines * BYTES_PER_LOG_LINE + (4 * d if arm.run.save_models else 0)
        needed += int(per_node * arm.nodes * len(experiment.seeds))
    free = shutil.disk_usage(out).free
    if free < needed:
        raise PreflightError(
            f"{out} has {free >> 20} MiB free: this run writes about {needed >> 20} MiB; free space, set "
            f"run.save_models = false, or choose another folder with --out"
        )


def _memory(experiment: Experiment, node_bytes: int) -> None:
    available = psutil.virtual_memory().available
    for arm in experiment.arms:
        d = size_of(compose(arm, experiment.seeds[0]).task.shapes())
        # Live model, gradient, three snapshots under way, and the observer's copy.
        needed = AGENT_BYTES + arm.nodes * (node_bytes + 6 * 4 * d)
        if needed > available:
            raise PreflightError(
                f'arm "{arm.name}": {arm.nodes} nodes need about {needed >> 20} MiB of memory and '
                f"{available >> 20} MiB are available; use fewer nodes or a smaller model"
            )


def _descriptors(experiment: Experiment, per_node: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    nodes = max(arm.nodes for arm in experiment.arms)
    needed = 64 + per_node * nodes
    if needed > hard:
        raise PreflightError(
            f"{nodes} nodes need {needed} file descriptors per process and this host allows {hard}; "
            f"raise the limit with ulimit -n or use fewer nodes"
        )
