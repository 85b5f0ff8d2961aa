"""The run folder: where everything lies, and its one file that is rewritten, the manifest."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from decentral.disk import unwritable
from decentral.errors import PreflightError

CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class JobFolder:
    """Files of one (arm, seed)."""

    path: Path

    def node_log(self, node: int) -> Path:
        """JSON lines of one node."""
        return self.path / "nodes" / f"{node:03d}.jsonl"

    def links(self, node: int) -> Path:
        """One node's report on its links under the wall clock."""
        return self.path / "nodes" / f"{node:03d}.links.json"

    @property
    def metrics(self) -> Path:
        """JSON lines of the observer."""
        return self.path / "metrics.jsonl"

    @property
    def network(self) -> Path:
        """Log of the emulated network."""
        return self.path / "network.jsonl"

    @property
    def fidelity(self) -> Path:
        """How well paced links kept their promises under the wall clock."""
        return self.path / "fidelity.json"

    def model(self, node: int) -> Path:
        """Final flat model of one node."""
        return self.path / "models" / f"{node:03d}.npy"

    @property
    def checkpoints(self) -> Path:
        """One folder per checkpoint (launch.checkpoints)."""
        return self.path / CHECKPOINTS

    def log(self, host: str) -> Path:
        """What the processes of one host printed."""
        return self.path / "logs" / f"{host}.log"


@dataclass(frozen=True)
class RunFolder:
    """Files of one run."""

    path: Path

    def job(self, slug: str, seed: int) -> JobFolder:
        """Folder of one arm and seed."""
        return JobFolder(self.path / slug / f"seed-{seed}")

    def write_text(self, name: str, text: str) -> None:
        """Write a file whole or not at all."""
        target = self.path / name
        temporary = target.with_name(f".{name}.{os.getpid()}")
        try:
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(target)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink()
            raise unwritable(target, error) from error

    def write_json(self, name: str, value: Any) -> None:
        """Write ``value`` as indented JSON, whole or not at all."""
        self.write_text(name, json.dumps(value, indent=1) + "\n")


def book_of(sockets: Path) -> Path:
    """Where a host's members find how to reach those on other hosts, in their private folder of sockets."""
    return sockets / "book"


def create_run_folder(out: Path, name: str) -> RunFolder:
    """A new folder ``<out>/<name>-<UTC stamp>``; a number is added where it exists already.

    Raises:
        PreflightError: ``out`` cannot be made or written.
    """
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    try:
        out.mkdir(parents=True, exist_ok=True)
        for number in range(1, 1000):
            path = out / (f"{name}-{stamp}" if number == 1 else f"{name}-{stamp}-{number}")
            try:
                path.mkdir()
            except FileExistsError:
                continue
            return RunFolder(path.resolve())
    except OSError as error:
        raise unwritable(out, error) from error
    raise PreflightError(
        f"{out} already holds 999 runs named {name}-{stamp}; choose another folder with --out"
    )
