"""Files that parts of an experiment name: read once, kept in the run folder, sent to other hosts.

Which settings name a file is said by their annotations (``decentral.files``). A path of the experiment file
is relative to the current directory; from then on the run uses its own copy, ``files/<hash>-<name>`` in the
run folder, so that every host reads the same and so does a run that goes on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from decentral.config import Arm, Experiment, Part
from decentral.config.problems import dotted, sentence
from decentral.disk import replace_synced, unwritable
from decentral.errors import ConfigError, DataError
from launch import parts
from launch.parts import PATHS, Kind
from launch.paths import RunFolder
from launch.scratch import PrivateFolder

FOLDER = "files"
MOST_BYTES = 32 << 20
"""Of all files of an arm together where they are sent to other hosts: one message holds them."""
_NAME_LENGTH = 80


def named(arm: Arm) -> Iterator[tuple[str, str]]:
    """Key and value of every setting of ``arm`` that names a file.

    Raises:
        ConfigError: a part is unknown.
    """
    for kind, part in parts_of(arm):
        for name in parts.file_settings(kind, part.name):
            if isinstance(value := part.settings.get(name), str):
                yield dotted(PATHS[kind], name), value


def contents(arm: Arm) -> dict[str, bytes]:
    """What the files that ``arm`` names hold, by path as it has it.

    Raises:
        DataError: names all that cannot be read.
    """
    found, problems = {}, []
    for key, path in named(arm):
        try:
            found[path] = Path(path).expanduser().read_bytes()
        except (OSError, RuntimeError) as error:  # the latter: ~ of nobody
            cause = getattr(error, "strerror", None) or str(error)
            problems.append(sentence(key, path, f"cannot be read ({cause})", "correct the path or the file"))
    if problems:
        raise DataError(problems)
    return found


def check_sizes(arm: Arm) -> None:
    """Refuse files that are too large to be sent to other hosts.

    Raises:
        ConfigError: they are; says what may be done.
    """
    sizes = {path: len(content) for path, content in contents(arm).items()}
    if sum(sizes.values()) > MOST_BYTES:
        key, path = max(named(arm), key=lambda item: sizes[item[1]])
        excess = (
            f"other hosts are sent at most {MOST_BYTES >> 20} MiB of files, and it has {sizes[path] >> 20}"
        )
        raise ConfigError(
            sentence(key, path, excess, "shorten it (.npz holds rows in less space than .json)")
        )


def content_of(experiment: Experiment) -> dict[str, bytes]:
    """What the files of all arms hold, by their paths as the experiment has them.

    Raises:
        DataError: one cannot be read.
    """
    found: dict[str, bytes] = {}
    for arm in experiment.arms:
        found |= {path: content for path, content in contents(arm).items() if path not in found}
    return found


def keep(found: Mapping[str, bytes], folder: RunFolder) -> dict[str, dict[str, str]]:
    """Write copies into the run folder.

    Returns:
        For the manifest, by path as the experiment has it: ``copy``, relative to the run folder, and
        ``sha256``.

    Raises:
        PreflightError: a copy cannot be written.
    """
    kept = {}
    for path, content in found.items():
        digest = hashlib.sha256(content).hexdigest()
        copy = f"{FOLDER}/{_copy_name(path, digest)}"
        _write(folder.path / copy, content)
        kept[path] = {"copy": copy, "sha256": digest}
    return kept


def with_copies(experiment: Experiment, kept: Any, folder: RunFolder) -> Experiment:
    """``experiment`` with the copies in place of the files that it names.

    Args:
        experiment: as it was asked for.
        kept: what ``keep`` returned; None: of a run that kept none.
        folder: of the run.

    Raises:
        ConfigError: a copy is missing or damaged.
    """
    copies = {}
    for path, entry in (kept or {}).items():
        try:
            copy, digest = folder.path / entry["copy"], entry["sha256"]
            whole = hashlib.sha256(copy.read_bytes()).hexdigest() == digest
        except (KeyError, TypeError) as error:
            raise ConfigError(
                f"{folder.path}: manifest.json does not say where the copy of {path} is; run the "
                f"experiment again"
            ) from error
        except OSError as error:
            raise ConfigError(
                f"{copy}: cannot be read: {error.strerror}; put a copy of {path} there"
            ) from error
        if not whole:
            raise ConfigError(f"{copy}: is not what the run was begun with; put a copy of {path} there")
        copies[path] = str(copy)
    return experiment.model_copy(update={"arms": tuple(_renamed(arm, copies) for arm in experiment.arms)})


@dataclass
class Received:
    """The files of a job on a host that was sent them, in a folder of this host alone."""

    _folder: PrivateFolder | None = field(default=None, init=False)

    def take(self, arm: Arm, sent: Mapping[str, bytes], base: Path) -> Arm:
        """``arm`` with files below ``base`` in place of those that the launcher has.

        Args:
            arm: as the launcher has it.
            sent: what its files hold, by path as it has it.
            base: this host's own folder.

        Raises:
            OSError, PreflightError: they cannot be written.
        """
        self.remove()
        if not sent:
            return arm
        self._folder = PrivateFolder(base / "scratch", "files-")
        here = {}
        for path, content in sent.items():
            copy = self._folder.path / _copy_name(path, hashlib.sha256(content).hexdigest())
            _write(copy, content)
            here[path] = str(copy)
        return _renamed(arm, here)

    def remove(self) -> None:
        """The job is over; may be called twice."""
        if self._folder is not None:
            self._folder.remove()
            self._folder = None


def parts_of(arm: Arm) -> list[tuple[Kind, Part]]:
    """The exchangeable parts of ``arm``, each with what it is."""
    found: list[tuple[Kind, Part]] = [
        ("algorithm", arm.algorithm),
        ("task", Part(name=arm.data.name, settings=arm.data.settings)),
        ("partition", arm.data.partition),
        ("network", arm.network),
    ]
    return found if arm.topology is None else [*found, ("topology", arm.topology)]


def _renamed(arm: Arm, paths: Mapping[str, str]) -> Arm:
    """``arm`` with other paths of files; what ``paths`` lacks stays."""
    changed: dict[Kind, Part] = {}
    for kind, part in parts_of(arm):
        own = {name: part.settings.get(name) for name in parts.file_settings(kind, part.name)}
        new = {name: paths[path] for name, path in own.items() if isinstance(path, str) and path in paths}
        changed[kind] = part.model_copy(update={"settings": {**part.settings, **new}})
    data = {"settings": changed["task"].settings, "partition": changed["partition"]}
    return arm.model_copy(
        update={
            "algorithm": changed["algorithm"],
            "topology": changed.get("topology"),
            "network": changed["network"],
            "data": arm.data.model_copy(update=data),
        }
    )


def _copy_name(path: str, digest: str) -> str:
    return f"{digest[:16]}-{Path(path).name[-_NAME_LENGTH:]}"


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(exist_ok=True)
        replace_synced(path, [content])
    except OSError as error:
        raise unwritable(path, error) from error
