"""Hosts files for tests, as a user would write them."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.lab.lab import Lab


def hosts_toml(
    lab: Lab,
    *,
    hosts: Sequence[int] | None = None,
    python: str | None = sys.executable,
    extra: Mapping[int, Mapping[str, Any]] | None = None,
    **defaults: Any,
) -> str:
    """A hosts file with hosts of ``lab``.

    Args:
        lab: which is up.
        hosts: their numbers; all by default.
        python: of all hosts; None: they are to make an environment of their own.
        extra: further keys of single hosts, by number.
        **defaults: further keys of all hosts (``folder``, ``ports``, ``cores``, ...).
    """
    common = {
        "ssh_options": ["-F", str(lab.ssh_config)],
        **({"python": python} if python else {}),
        **defaults,
    }
    lines = ["[defaults]", *_keys(common)]
    for i in hosts or range(1, lab.n + 1):
        keys = {"name": f"h{i}", "address": lab.network.address(i), **(extra or {}).get(i, {})}
        lines += ["", "[[host]]", *_keys(keys)]
    return "\n".join(lines) + "\n"


def write_hosts(lab: Lab, path: Path, **keys: Any) -> Path:
    """``hosts_toml`` in a file; returns ``path``."""
    path.write_text(hosts_toml(lab, **keys), encoding="utf-8")
    return path


def _keys(table: Mapping[str, Any]) -> list[str]:
    # Strings, numbers, booleans and lists of them are written alike in JSON and TOML.
    return [f"{key} = {json.dumps(value)}" for key, value in table.items()]
