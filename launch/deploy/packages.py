"""The packages that agents need, as they are installed here: names, versions, files."""

from __future__ import annotations

import configparser
import hashlib
import importlib.metadata
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from decentral.errors import PreflightError

LAUNCHER_ONLY = frozenset({"jinja2", "matplotlib", "packaging", "pandas", "rich", "typer"})
"""Packages of setup.cfg that only the command line and the reports use."""
CHECK = "import launch.zygote, launch.process, launch.timekeeper, sklearn.datasets, psutil"
"""Imports what an agent may import."""
_NOT_NEEDED = {
    "torch": ("torch/include/", "torch/test/", "torch/share/", "torch/bin/"),
    "scipy": ("/tests/",),
    "scikit-learn": ("/tests/",),
    "sympy": ("/tests/",),
    "networkx": ("/tests/",),
}
"""Parts of paths that nothing imports: headers and tests, half of the files and a fifth of the bytes."""
_NEEDED = ("torch/bin/torch_shm_manager",)
"""torch looks for this program when it is imported."""


@dataclass(frozen=True)
class PackageFile:
    """One file of a package.

    Args:
        name: relative to the folder of all packages.
        path: where it lies here.
        size: in bytes.
    """

    name: str
    path: Path
    size: int


@dataclass(frozen=True)
class Packages:
    """What agents need.

    Args:
        required: what setup.cfg asks for.
        constraints: text of constraints.txt.
    """

    required: tuple[Requirement, ...]
    constraints: str

    @classmethod
    def of(cls, checkout: Path) -> Packages:
        """Read setup.cfg and constraints.txt of a checkout."""
        setup = configparser.ConfigParser(interpolation=None)
        setup.read(checkout / "setup.cfg", encoding="utf-8")
        lines = setup["options"]["install_requires"].split("\n")
        required = [Requirement(line) for line in lines if line.strip()]
        return cls(
            tuple(one for one in required if canonicalize_name(one.name) not in LAUNCHER_ONLY),
            (checkout / "constraints.txt").read_text(encoding="utf-8"),
        )

    @cached_property
    def installed(self) -> dict[str, importlib.metadata.Distribution]:
        """What is required, and all that it requires, as installed here.

        Raises:
            PreflightError: something is not.
        """
        found: dict[str, importlib.metadata.Distribution] = {}
        left = list(self.required)
        while left:
            requirement = left.pop()
            name = canonicalize_name(requirement.name)
            if name in found:
                continue
            try:
                found[name] = importlib.metadata.distribution(name)
            except importlib.metadata.PackageNotFoundError as error:
                raise PreflightError(
                    f"this Python lacks the package {name}, so it cannot be copied to other hosts; "
                    f"install it or set python = ... for the hosts"
                ) from error
            for text in found[name].requires or ():
                needed = Requirement(text)
                if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                    left.append(needed)
        return dict(sorted(found.items()))

    @cached_property
    def versions(self) -> dict[str, str]:
        """Version of everything in ``installed``."""
        return {name: distribution.version for name, distribution in self.installed.items()}

    @cached_property
    def pinned(self) -> dict[str, str]:
        """The version of every package of which the constraints allow exactly one.

        Raises:
            PreflightError: a line of constraints.txt is none that pip would understand.
        """
        found: dict[str, str] = {}
        for line in self.constraints.splitlines():
            text = line.split(" #")[0].strip()
            if not text or text.startswith("#"):
                continue
            try:
                constraint = Requirement(text)
            except InvalidRequirement as error:
                reason = str(error).splitlines()[0]
                raise PreflightError(
                    f"constraints.txt: {text!r} is no constraint ({reason}); write NAME==VERSION"
                ) from error
            exact = [one.version for one in constraint.specifier if one.operator in ("==", "===")]
            applies = constraint.marker is None or constraint.marker.evaluate()
            if applies and len(exact) == 1 and not exact[0].endswith("*"):
                found[canonicalize_name(constraint.name)] = exact[0]
        return found

    @cached_property
    def pins(self) -> str:
        """Hash over what an environment of these packages holds."""
        names = sorted(str(one) for one in self.required)
        content = json.dumps([names, self.versions, self.constraints, _NOT_NEEDED])
        return hashlib.sha256(content.encode()).hexdigest()

    def missing(self, versions: dict[str, str | None]) -> list[str]:
        """What a Python with such packages lacks: ``numpy>=1.26 (has 1.20)``."""
        lacking = []
        for requirement in self.required:
            version = versions.get(canonicalize_name(requirement.name))
            if version is None:
                lacking.append(str(requirement))
            elif not requirement.specifier.contains(version, prereleases=True):
                lacking.append(f"{requirement} (has {version})")
        return lacking

    @cached_property
    def files(self) -> Sequence[PackageFile]:
        """The files of everything in ``installed`` that a host needs; compiled modules included, if here.

        Raises:
            PreflightError: a package does not say which files are its own.
        """
        found = []
        for name, distribution in self.installed.items():
            if distribution.files is None:
                raise PreflightError(
                    f"the package {name} is installed here without a list of its files, so it cannot be "
                    f"copied to other hosts; install it with pip or set python = ... for the hosts"
                )
            unneeded = _NOT_NEEDED.get(name, ())
            names = {str(file) for file in distribution.files if ".." not in file.parts}
            for file in sorted(names):
                if any(part in f"/{file}" for part in unneeded) and file not in _NEEDED:
                    continue
                path = Path(str(distribution.locate_file(file)))
                if path.is_file():
                    found.append(PackageFile(file, path, path.stat().st_size))
        return found
