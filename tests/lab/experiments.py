"""Experiments for tests on emulated hosts: tiny models, so that what is between the hosts decides."""

from __future__ import annotations

import json
from typing import Any

QUADRATIC = """
name = "lab"
nodes = 12
fragments = { count = 4, map = "global" }
[data]
name = "quadratic"
[train]
lr = 0.05
batch = 2
local_steps = 2
[network]
name = "star"
fast_mbps = 60.0
latency_ms = 0.01
[compute]
time_per_round = 5e-5
[run]
"""
SYNCHRONOUS = """
[[arm]]
name = "synchronous"
algorithm = "mosaic"
topology = { name = "regular", degree = 3 }
"""
ASYNCHRONOUS = """
[[arm]]
name = "asynchronous"
algorithm = { name = "divshare", recipients = 3 }
"""
DIGITS = """
name = "digits"
nodes = 12
[data]
name = "digits"
partition = { name = "dirichlet", alpha = 0.1 }
[train]
lr = 0.05
batch = 8
local_steps = 4
[network]
name = "star"
fast_mbps = 60.0
stragglers = 6
straggler_factor = 5.0
latency_ms = 0.1
[compute]
time_per_round = "match_comm"
[run]
"""
DIGITS_ARMS = """
[[arm]]
name = "epidemic"
algorithm = "epidemic"
topology = { name = "regular", degree = 3 }
[[arm]]
name = "divshare"
algorithm = { name = "divshare", recipients = 3 }
fragments = { count = 10 }
"""


def _table(keys: dict[str, Any]) -> str:
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())


def short(rounds: int = 25) -> str:
    """A synchronous and an asynchronous arm of ``rounds`` rounds on the quadratic."""
    return QUADRATIC + _table({"max_rounds": rounds, "test_after": 5}) + SYNCHRONOUS + ASYNCHRONOUS


def long(rounds: int, *, checkpoint_every: int | None = None) -> str:
    """The same, the second arm of many more rounds."""
    keys = _table({"max_rounds": rounds, "test_after": rounds // 4})
    if checkpoint_every is not None:
        keys += f"[checkpoint]\nevery = {checkpoint_every}\n"
    return QUADRATIC + keys + SYNCHRONOUS + "run = { max_rounds = 25, test_after = 5 }\n" + ASYNCHRONOUS


def digits(rounds: int = 20) -> str:
    """The same on digits, with torch and with stragglers."""
    return DIGITS + _table({"max_rounds": rounds, "test_after": 10}) + DIGITS_ARMS


def endless(*, asynchronous: bool = False, rounds: int = 1_000_000, nodes: int = 12, **run: Any) -> str:
    """One arm on the quadratic that nobody sees the end of; ``run``: further keys of that table."""
    settings = QUADRATIC.replace("nodes = 12", f"nodes = {nodes}")
    run = {"max_rounds": rounds, "test_after": 1000, "save_models": False, **run}
    return settings + _table(run) + (ASYNCHRONOUS if asynchronous else SYNCHRONOUS)
