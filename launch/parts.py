"""Where names become classes, and tables of settings become instances.

Algorithms are the modules of ``nodes/`` and topologies those of ``topologies/``, each called like its module;
tasks, partitioners and networks are found by name in the modules of ``decentral.tasks``,
``decentral.partition`` and ``decentral.network``.
``package.module:Class`` works everywhere a name works. Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import pkgutil
import re
import sys
import typing
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError

import decentral.network
import decentral.partition
import decentral.tasks
import nodes
import topologies
from decentral.config import Part
from decentral.config.explain import explain
from decentral.config.problems import choose, dotted, sentence
from decentral.errors import ConfigError
from decentral.files import NamesFile

Kind: TypeAlias = Literal["algorithm", "topology", "task", "partition", "network"]

PATHS: Mapping[Kind, str] = {
    "algorithm": "algorithm",
    "topology": "topology",
    "task": "data",
    "partition": "data.partition",
    "network": "network",
}
"""Where each kind of part stands in the file."""

INJECTED: Mapping[Kind, Mapping[str, str]] = {
    "algorithm": {"local_steps": "train.local_steps", "topology": "topology", "fragmenter": "fragments"},
    "topology": {"n": "nodes", "seeds": "seeds", "fragments": "fragments.count"},
    "task": {},
    "partition": {},
    "network": {},
}
"""Fields that a part gets from the experiment instead of its own table, and the key each comes from."""

_PACKAGES: Mapping[Kind, tuple[ModuleType, str]] = {
    "algorithm": (nodes, "ALGORITHM"),
    "topology": (topologies, "TOPOLOGY"),
    "task": (decentral.tasks, "TASKS"),
    "partition": (decentral.partition, "PARTITIONERS"),
    "network": (decentral.network, "NETWORKS"),
}
_METHODS: Mapping[Kind, tuple[str, ...]] = {
    "algorithm": ("run",),
    "topology": ("targets", "sources", "symmetric"),
    "task": ("metric", "check", "shapes", "load"),
    "partition": ("split",),
    "network": ("build",),
}
_CLASS_PATH = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*)")
# What importing a module that is absent or broken raises; anything else is a bug worth its traceback.
IMPORT_FAILURES = (ImportError, SyntaxError, NameError, AttributeError, TypeError, ValueError, OSError)


def shipped(kind: Kind) -> dict[str, type]:
    """Every shipped part of ``kind`` by name."""
    package, attribute = _PACKAGES[kind]
    found: dict[str, type] = {}
    for info in pkgutil.iter_modules(package.__path__):
        if info.name.startswith("_"):
            continue
        value = getattr(importlib.import_module(f"{package.__name__}.{info.name}"), attribute, None)
        if isinstance(value, Mapping):
            found |= value
        elif value is not None:
            found[info.name] = value
    return dict(sorted(found.items()))


def available(kind: Kind) -> list[str]:
    """Names of the shipped parts of ``kind``, ascending."""
    return list(shipped(kind))


def described(kind: Kind) -> dict[str, str]:
    """The first line of each shipped part's docstring, by name."""
    return {name: (cls.__doc__ or "").strip().partition("\n")[0] for name, cls in shipped(kind).items()}


def resolve(kind: Kind, name: str) -> type:
    """The class of a shipped part, or the one that ``package.module:Class`` names.

    Raises:
        ConfigError: no such part; the module cannot be imported; the class is no part of this kind.
    """
    key = dotted(PATHS[kind], "name")
    match = _CLASS_PATH.fullmatch(name)
    if match is None:
        found = shipped(kind)
        if name not in found:
            step = f"{choose(name, found)} (or write package.module:Class for a part of your own)"
            raise ConfigError(sentence(key, name, f"is not a known {kind}", step))
        return found[name]
    try:
        module = importlib.import_module(match[1])
    except IMPORT_FAILURES as error:
        cause = f"{type(error).__name__}: {error}".replace("\n", " ")
        expectation = f"module {match[1]} cannot be imported ({cause})"
        step = "put it beside the experiment file, install it, add its folder to PYTHONPATH, or correct it"
        raise ConfigError(sentence(key, name, expectation, step)) from error
    cls = getattr(module, match[2], None)
    if not isinstance(cls, type):
        classes = [each for each, value in vars(module).items() if isinstance(value, type)]
        raise ConfigError(
            sentence(key, name, f"module {match[1]} has no class {match[2]}", choose(match[2], classes))
        )
    missing = [method for method in _METHODS[kind] if not hasattr(cls, method)]
    if missing or not dataclasses.is_dataclass(cls):
        lack = f"lacks {', '.join(missing)}" if missing else "is no dataclass"
        step = f"make it a frozen dataclass with {', '.join(_METHODS[kind])}"
        raise ConfigError(sentence(key, name, f"class {match[2]} is no {kind}: it {lack}", step))
    return cls


def module_of(name: str) -> str | None:
    """The module of a part that is written ``package.module:Class``; None of a shipped one's name."""
    match = _CLASS_PATH.fullmatch(name)
    return None if match is None else match[1]


def fields_of(cls: type) -> set[str]:
    """Names of the arguments that the dataclass ``cls`` takes."""
    return {field.name for field in dataclasses.fields(cls) if field.init}


def needs(cls: type, name: str) -> bool:
    """Whether the dataclass ``cls`` cannot be made without the argument ``name``."""
    missing = dataclasses.MISSING
    return any(
        field.name == name and field.init and field.default is missing and field.default_factory is missing
        for field in dataclasses.fields(cls)
    )


def settings_model(cls: type, injected: Iterable[str]) -> type[BaseModel]:
    """A strict model of the settings of the dataclass ``cls``: its fields less the injected ones.

    Constraints of ``annotated_types`` in the annotations hold; defaults are the dataclass's.

    Raises:
        ConfigError: an annotation cannot be resolved or is of a kind that no file can hold.
    """
    injected = set(injected)
    definitions: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        if not field.init or field.name in injected:
            continue
        default: Any = ...
        if field.default is not dataclasses.MISSING:
            default = field.default
        elif field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        definitions[field.name] = (_annotation(cls, field.name), default)
    config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=()
    )
    try:
        return create_model(cls.__name__, __config__=config, **definitions)
    except (PydanticSchemaGenerationError, PydanticUserError, NameError, TypeError) as error:
        raise _unusable(cls, str(error).partition("\n")[0]) from error


def _annotation(cls: type, name: str) -> Any:
    """The type of a field, resolved where its class was defined; other fields need not be resolvable."""
    owner = next(base for base in cls.__mro__ if name in vars(base).get("__annotations__", {}))
    holder = type(owner.__name__, (), {"__annotations__": {name: owner.__annotations__[name]}})
    try:
        return typing.get_type_hints(holder, vars(sys.modules[owner.__module__]), include_extras=True)[name]
    except (NameError, TypeError) as error:
        raise _unusable(cls, f"{name}: {error}") from error


def file_settings(kind: Kind, name: str) -> list[str]:
    """Settings of the part ``name`` that name a file (``decentral.files``).

    Raises:
        ConfigError: the part is unknown, or an annotation of it cannot be resolved.
    """
    cls = resolve(kind, name)
    own = fields_of(cls) - INJECTED[kind].keys()
    return sorted(each for each in own if _is_marked(_annotation(cls, each)))


def _is_marked(annotation: Any) -> bool:
    marks = getattr(annotation, "__metadata__", ())
    inner = typing.get_args(annotation)
    return any(isinstance(mark, NamesFile) for mark in marks) or any(map(_is_marked, inner))


def _unusable(cls: type, cause: str) -> ConfigError:
    return ConfigError(
        f"{cls.__module__}:{cls.__name__}: its fields must be annotated with types of TOML values ({cause}); "
        "correct the class"
    )


def settings(kind: Kind, part: Part) -> BaseModel:
    """The validated settings of ``part``, defaults filled in.

    Raises:
        ConfigError: the part is unknown or its settings are impossible, all problems at once.
    """
    cls = resolve(kind, part.name)
    model = settings_model(cls, INJECTED[kind])
    path = PATHS[kind]
    foreign = INJECTED[kind].keys() & part.settings.keys() & fields_of(cls)
    own = {key: value for key, value in part.settings.items() if key not in foreign}
    problems = [
        sentence(
            dotted(path, key), part.settings[key], f"comes from {INJECTED[kind][key]}", "set that instead"
        )
        for key in sorted(foreign)
    ]
    try:
        # Strict JSON semantics: a list may stand for a tuple, a string for a path, nothing else is converted.
        valid = model.model_validate_json(json.dumps(own))
    except ValidationError as error:
        found = explain(error, model, own, prefix=path, hints=getattr(cls, "hints", {}))
        raise ConfigError([*problems, *found]) from error
    if problems:
        raise ConfigError(problems)
    return valid


def build(kind: Kind, part: Part, injected: Mapping[str, object]) -> Any:
    """An instance of ``part``.

    Args:
        kind: what it is.
        part: its name and settings.
        injected: values for the fields of ``INJECTED[kind]``; those that the class lacks are left out.

    Raises:
        ConfigError: the part is unknown, or its settings are impossible on their own or together.
    """
    cls = resolve(kind, part.name)
    valid = settings(kind, part)
    given = {name: getattr(valid, name) for name in type(valid).model_fields}
    fields = fields_of(cls)
    given |= {name: value for name, value in injected.items() if name in fields}
    try:
        return cls(**given)
    except ConfigError as error:
        raise ConfigError([located(PATHS[kind], text) for text in error.problems]) from error


def located(path: str, text: str) -> str:
    """``text`` after ``path``, unless it names a key of the file itself."""
    return text if re.match(r"[a-z_.]+ = ", text) else f"{path}: {text}"


def completed(kind: Kind, part: Part) -> Part:
    """``part`` with every setting of its class, defaults filled in, fit for JSON."""
    return Part(name=part.name, settings=settings(kind, part).model_dump(mode="json"))
