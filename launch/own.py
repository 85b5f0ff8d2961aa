"""Modules of the user's own, which parts written ``module:Class`` come from.

They are found as Python finds modules, and beside the experiment file. Those that are plain Python go to
other hosts with the code, and every host says before anything is started whether it has the same.
"""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from decentral.config import Experiment
from decentral.errors import ConfigError
from launch.deploy.deployment import CHECKOUT
from launch.deploy.onhost.tree import CODE_FOLDERS
from launch.deploy.onhost.trust import distrust
from launch.deploy.packages import Packages
from launch.files import parts_of
from launch.host_schema import Host
from launch.modules import Module, add_folders, find, locate
from launch.parts import module_of


@dataclass(frozen=True)
class OwnModules:
    """All that an experiment needs.

    Attributes:
        modules: them, and what they import from the folders that they lie in.
        imports: the modules whose classes the experiment names.
    """

    modules: tuple[Module, ...] = ()
    imports: tuple[str, ...] = ()

    @property
    def sent(self) -> list[tuple[str, Path]]:
        """Files for other hosts: name there, and path here."""
        return [(name, module.root / name) for module in self.modules for name in module.files]

    @property
    def folders(self) -> list[str]:
        """Where they are found on this machine."""
        return list(dict.fromkeys(str(module.root) for module in self.modules))

    @property
    def wanted(self) -> dict[str, Any]:
        """What an agent is to check (``launch.modules.check_here``)."""
        digests = {module.name: module.digest for module in self.modules}
        return {"imports": list(self.imports), "digests": digests}

    @property
    def listed(self) -> dict[str, dict[str, str | None]]:
        """For the manifest."""
        return {module.name: {"folder": str(module.root), "hash": module.digest} for module in self.modules}


NONE = OwnModules()


def admit(experiment: Experiment, folder: Path) -> None:
    """Let modules that parts name be found in ``folder`` if they are found nowhere else.

    The folder comes last, so that nothing in it takes the place of another module.

    Raises:
        ConfigError: there is one, and other users can change what lies there.
    """
    folder = folder.resolve()
    for name in sorted({module.partition(".")[0] for module in _named(experiment)}):
        there = next((path for path in (folder / f"{name}.py", folder / name) if _is_source(path)), None)
        if there is None or find(name) is not None:
            continue
        if (why := distrust(str(folder)) or distrust(str(there))) is not None:
            raise ConfigError(
                f"module {name} lies in {folder}, where others may change it: {why}; chmod go-w it, or "
                f"move it"
            )
        add_folders([str(folder)])


def own_modules(experiment: Experiment) -> OwnModules:
    """The modules that ``experiment``, which is checked, has its parts from, but for this project's."""
    imports = tuple(sorted(_named(experiment)))
    names = dict.fromkeys(module.partition(".")[0] for module in imports)
    found = {name: module for name in names if (module := locate(name)) and not _in_environment(module)}
    installed = {Path(sysconfig.get_path(which)) for which in ("purelib", "platlib", "stdlib")}
    roots = {module.root for module in found.values()} - installed
    beside = [name for name, loaded in list(sys.modules.items()) if _home(name, loaded) in roots]
    for name in beside:
        if name not in found and (module := locate(name)) is not None:
            found[name] = module
    kept = tuple(module for module in imports if module.partition(".")[0] in found)
    return OwnModules(tuple(found[name] for name in sorted(found)), kept)


def check_own(own: OwnModules, hosts: Sequence[Host]) -> list[str]:
    """Why ``hosts`` cannot get these modules, one sentence each."""
    bare = [host.name for host in hosts if not host.local and host.python is None]
    return [
        f"module {module.name} cannot be sent to other hosts: {module.obstacle}; install it on host"
        f"{'s' * (len(bare) > 1)} {', '.join(bare)} and set python = ... there"
        for module in own.modules
        if module.obstacle is not None and bare
    ]


def differences(manifest: Mapping[str, Any], own: OwnModules) -> list[str]:
    """How modules differ from those that a run was begun with."""
    before = manifest.get("modules") or {}
    return [
        f"module {module.name} in {module.root} is not what the run was begun with"
        for module in own.modules
        if (before.get(module.name) or {}).get("hash") != module.digest
    ]


def _named(experiment: Experiment) -> set[str]:
    """Modules that parts are written with, but for those of this project and of Python itself."""
    modules = {module_of(part.name) for arm in experiment.arms for _, part in parts_of(arm)}
    theirs = {*CODE_FOLDERS, *sys.stdlib_module_names}
    return {module for module in modules if module and module.partition(".")[0] not in theirs}


def _is_source(path: Path) -> bool:
    return path.is_file() if path.suffix == ".py" else (path / "__init__.py").is_file()


def _in_environment(module: Module) -> bool:
    """Whether it is of a package that every host gets, or has."""
    if not (CHECKOUT / "setup.cfg").is_file():
        return False
    owners = map(canonicalize_name, packages_distributions().get(module.name, ()))
    return str(module.root) == sysconfig.get_path("purelib") and bool(
        {*owners} & Packages.of(CHECKOUT).versions.keys()
    )


def _home(name: str, loaded: Any) -> Path | None:
    """The folder that a loaded module lies in; None of parts of packages and of what is not the user's."""
    file = getattr(loaded, "__file__", None)
    if "." in name or file is None or name == "__main__" or name in CODE_FOLDERS:
        return None
    return Path(file).parent.parent if hasattr(loaded, "__path__") else Path(file).parent
