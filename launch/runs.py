"""Finding runs and telling how they are, from outside."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from decentral.errors import ConfigError
from launch.launcher import Launcher
from launch.live import LIVE_VERSION, live_path

FRESH_S = 15.0
"""A run on another machine whose ``live.json`` is no older is taken to live; half a dozen versions of it."""

Life: TypeAlias = Literal["running", "stopped", "gone", "elsewhere", "ended"]


@dataclass(frozen=True)
class Seen:
    """A run folder as it is now.

    Attributes:
        folder: the run folder.
        manifest: manifest.json.
        live: live.json, if it is there.
        launcher: who runs it, where the manifest says so.
        life: ``running`` and ``stopped`` (by Ctrl-Z or SIGSTOP) where its launcher lives; ``gone`` where it
            ended without saying how; ``elsewhere`` where it is another machine's, whose processes cannot be
            seen from here; ``ended`` where the manifest says how.
    """

    folder: Path
    manifest: dict[str, Any]
    live: dict[str, Any] | None
    launcher: Launcher | None
    life: Life

    @property
    def name(self) -> str:
        """The folder's name, as it is given on the command line."""
        return self.folder.name

    @property
    def hosts(self) -> list[dict[str, Any]]:
        """What the manifest says of the hosts that the run has now, or had last."""
        sessions = self.manifest.get("resumed") or [self.manifest]
        return list(sessions[-1].get("hosts", []))

    @property
    def lives(self) -> bool:
        """As far as can be known from here."""
        if self.life == "elsewhere":
            return self.live is not None and time.time() - self.live["written_s"] <= FRESH_S
        return self.life in ("running", "stopped")


def look(folder: Path) -> Seen:
    """Read a run folder.

    Raises:
        ConfigError: it is none.
    """
    path = folder / "manifest.json"
    manifest = _read(path)
    if manifest is None:
        raise ConfigError(
            f"{folder} is no run folder: {path.name} is absent or damaged; give one that has it"
        )
    launcher = Launcher.named_in(manifest)
    life = _life(manifest, launcher)
    live = _read(live_path(folder))
    return Seen(folder, manifest, live if live and live.get("v") == LIVE_VERSION else None, launcher, life)


def _life(manifest: dict[str, Any], launcher: Launcher | None) -> Life:
    if launcher is not None and launcher.alive():
        # Also while the report of a run that ended is being written.
        return "stopped" if launcher.stopped() else "running"
    if manifest.get("state") != "running":
        return "ended"
    return "elsewhere" if launcher is not None and not launcher.here else "gone"


def find(run: Path | None, out: Path) -> Seen:
    """The run that the command line names, or else the newest in ``out`` that lives, or else the newest.

    Raises:
        ConfigError: there is no such run.
    """
    if run is not None:
        return look(named(run, out))
    runs = newest_first(out)
    if not runs:
        raise ConfigError(f"{out} holds no run; start one, or name a run folder or --out DIR")
    return next((seen for seen in runs if seen.lives), runs[0])


def named(run: Path, out: Path) -> Path:
    """A folder as given, or the one of that name in ``out``."""
    inside = out / run
    return inside if not run.exists() and run == Path(run.name) and inside.is_dir() else run


def newest_first(out: Path) -> list[Seen]:
    """Every run folder in ``out``."""
    found = []
    for path in out.glob("*/manifest.json"):
        try:
            found.append(look(path.parent))
        except ConfigError:  # damaged: not one that can be shown without being asked for
            continue
    return sorted(found, key=lambda seen: (str(seen.manifest.get("started_utc")), seen.name), reverse=True)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None
