"""Every refusal as one sentence: ``key.path = value: expectation; next step``."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

_SHOWN_LENGTH = 60
_NOT_SET = "(not set)"

_TYPES = {
    "int_type": "must be an integer",
    "int_from_float": "must be an integer",
    "int_parsing": "must be an integer",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "string_type": "must be a string",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "dict_type": "must be a table",
    "model_type": "must be a table",
    "model_attributes_type": "must be a table",
}
_TYPE_STEPS = {
    "int_type": "write a whole number such as 1",
    "int_from_float": "write a whole number such as 1",
    "int_parsing": "write a whole number such as 1",
    "float_type": "write a number such as 0.5",
    "float_parsing": "write a number such as 0.5",
    "finite_number": "write a number such as 0.5",
    "string_type": "write it in quotes",
    "bool_type": "write true or false without quotes",
    "list_type": "write [..., ...]",
    "tuple_type": "write [..., ...]",
}
_BOUNDS = {
    "greater_than": ("gt", "must be > {}", "use a value above {}"),
    "greater_than_equal": ("ge", "must be >= {}", "use {} or more"),
    "less_than": ("lt", "must be < {}", "use a value below {}"),
    "less_than_equal": ("le", "must be <= {}", "use {} or less"),
    "multiple_of": ("multiple_of", "must be a multiple of {}", "use a multiple of {}"),
    "too_short": ("min_length", "must have at least {} entry", "add one"),
    "too_long": ("max_length", "must have at most {} entries", "remove some"),
    "string_too_short": ("min_length", "must have at least {} character", "write a longer one"),
    "string_too_long": ("max_length", "must have at most {} characters", "write a shorter one"),
}


def shown(value: object) -> str:
    """``value`` as the file would spell it, cut to a readable length."""
    text = _spelled(value)
    return text if len(text) <= _SHOWN_LENGTH else text[: _SHOWN_LENGTH - 3] + "..."


def _spelled(value: object) -> str:
    if value is None:
        return _NOT_SET
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else f"{'-' * (value < 0)}inf"
    if isinstance(value, bool | int | float | str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {_spelled(item)}" for key, item in value.items()) + "}"
    if isinstance(value, Sequence):
        return "[" + ", ".join(map(_spelled, value)) + "]"
    return str(value)


def sentence(key: str, value: object, expectation: str, step: str) -> str:
    """One problem; ``None`` is a key that is not set."""
    return f"{key} = {shown(value)}: {expectation}; {step}"


def choose(word: object, known: Iterable[str]) -> str:
    """The next step after an unknown ``word``: the nearest of ``known``, or all of them."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1) if isinstance(word, str) else []
    if near:
        return f"did you mean {near[0]}?"
    return f"use one of {', '.join(known)}" if known else "remove it"


def common(problems: Mapping[str, Sequence[str]]) -> list[str]:
    """Problems of several arms, each once: as it is where all arms have it, else after ``arm "NAME": ``.

    Args:
        problems: by the arm's prefix (``arm "NAME"``).
    """
    shared = set.intersection(*map(set, problems.values())) if problems else set()
    found = [
        problem if problem in shared else f"{arm}: {problem}" for arm in problems for problem in problems[arm]
    ]
    return list(dict.fromkeys(found))


def dotted(*keys: object) -> str:
    """A key path as the file would spell it."""
    path = ""
    for key in keys:
        if isinstance(key, int):
            path += f"[{key}]"
        elif key != "":
            text = str(key)
            bare = text != "" and all(c.isascii() and (c.isalnum() or c in "_-.") for c in text)
            path += ("." if path else "") + (text if bare else json.dumps(text, ensure_ascii=False))
    return path


def explain(
    error: ValidationError,
    model: type[BaseModel],
    document: object,
    prefix: str = "",
    known: Iterable[str] = (),
    tolerate_incomplete: bool = False,
) -> list[str]:
    """Pydantic's findings as sentences, in its order.

    Args:
        error: what validating ``document`` raised.
        model: the model that refused it.
        document: the refused input.
        prefix: dotted path of ``document`` in the file.
        known: keys that are allowed beside the model's own in the outermost table.
        tolerate_incomplete: leave out what giving more keys could mend.
    """
    found: dict[str, tuple[str, object, list[str], str]] = {}
    details = error.errors(include_url=False)
    for detail in details:
        if any(_inside(other["loc"], detail["loc"]) for other in details):
            continue  # a list of bad entries is also told to be too short
        if tolerate_incomplete and detail["type"] in {"missing", "incomplete"}:
            continue
        key, value, expectation, step = _explained(detail, model, document, prefix, known)
        if key in found:  # members of a union, each with its own objection
            if expectation not in found[key][2]:
                found[key][2].append(expectation)
        else:
            found[key] = (key, value, [expectation], step)
    return [sentence(key, value, " or ".join(texts), step) for key, value, texts, step in found.values()]


def _inside(loc: tuple[int | str, ...], outer: tuple[int | str, ...]) -> bool:
    return len(loc) > len(outer) and loc[: len(outer)] == outer and isinstance(loc[len(outer)], int)


def _explained(
    detail: ErrorDetails, model: type[BaseModel], document: object, prefix: str, known: Iterable[str]
) -> tuple[str, object, str, str]:
    kind, context = detail["type"], detail.get("ctx", {})
    where = _in_document(detail["loc"], document, kind)
    field, table = _field(model, where)
    key = dotted(prefix, *(step for step in where if step != "settings"))
    if kind in {"refused", "incomplete"}:
        about = context["key"]
        value = context["value"] if about else detail["input"]
        return dotted(key, about), value, context["expectation"], context["step"]
    if kind == "missing":
        return key, None, "is required", _example_step(field, where[-1]) or f"add {where[-1]}"
    if kind == "extra_forbidden":
        names = [*(table.model_fields if table else ()), *(known if len(where) == 1 else ())]
        parents = dotted(prefix, *where[:-1])
        paths = {dotted(parents, name) for name in names}
        return key, detail["input"], "is not a known key", _unknown_step(key, paths, model if known else None)
    if kind == "literal_error" and field is not None:
        options = _options(field)
        near = choose(detail["input"], options)
        step = near if near.startswith("did") else _example_step(field, where[-1]) or near
        return key, detail["input"], f"must be one of {', '.join(map(shown, options))}", step
    if kind in _BOUNDS:
        name, expectation, step = _BOUNDS[kind]
        bound = f"{context[name]:g}"
        return key, detail["input"], expectation.format(bound), step.format(bound)
    inner = field.annotation if field is not None else None
    if kind in {"model_type", "model_attributes_type"} and hasattr(inner, "model_fields") and (
        "settings" in inner.model_fields
    ):
        return key, detail["input"], "must be a name or a table with a name", f'write {where[-1]} = "NAME"'
    expectation = _TYPES.get(kind) or detail["msg"].replace("Input should be", "must be").rstrip(".")
    step = _retyped(detail["input"], kind) or _example_step(field, where[-1] if where else "")
    return key, detail["input"], expectation, step or _TYPE_STEPS.get(kind, "correct it")


def _in_document(loc: tuple[int | str, ...], document: object, kind: str) -> tuple[int | str, ...]:
    """``loc`` without the tags that unions append: only steps that exist in the document."""
    here, steps = document, []
    for step in loc:
        if isinstance(here, Mapping) and step in here:
            here = here[step]
        elif isinstance(here, Sequence) and not isinstance(here, str) and isinstance(step, int):
            here = here[step]
        else:
            return (*steps, loc[-1]) if kind == "missing" else tuple(steps)
        steps.append(step)
    return tuple(steps)


def _field(
    model: type[BaseModel], where: tuple[int | str, ...]
) -> tuple[FieldInfo | None, type[BaseModel] | None]:
    """The field at ``where`` and the table it lies in, as far as they are part of the schema."""
    table: type[BaseModel] | None = model
    field: FieldInfo | None = None
    for step in where:
        inner = field.annotation if field is not None else model
        table = inner if isinstance(inner, type) and issubclass(inner, BaseModel) else None
        field = table.model_fields.get(str(step)) if table else None
    return field, table


def _options(field: FieldInfo) -> list[str]:
    return [str(option) for option in getattr(field.annotation, "__args__", ())]


def _unknown_step(key: str, siblings: set[str], schema: type[BaseModel] | None) -> str:
    """A sibling of nearly that name, else a key of that name in another table, else all siblings."""
    near = difflib.get_close_matches(key, siblings, n=1, cutoff=0.75)
    if not near and schema is not None:
        leaf = key.rsplit(".", 1)[-1]
        leaves = {path.rsplit(".", 1)[-1]: path for path in _leaves(schema, "")}
        near = [leaves[match] for match in difflib.get_close_matches(leaf, leaves, n=1, cutoff=0.85)]
    return f"did you mean {near[0]}?" if near else choose(None, siblings)


def _leaves(model: type[BaseModel], path: str) -> list[str]:
    """Dotted paths of all keys below ``model``."""
    paths = []
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            paths += _leaves(inner, dotted(path, name))
        elif name != "settings":
            paths.append(dotted(path, name))
    return paths


def _example_step(field: FieldInfo | None, key: int | str) -> str:
    if field is None:
        return ""
    inner = field.annotation
    if isinstance(inner, type) and issubclass(inner, BaseModel):
        names = [name for name, part in inner.model_fields.items() if part.is_required()]
        return f"write a table with {', '.join(names)}" if names else "write a table"
    if field.examples:
        return f"write for example {key} = {shown(field.examples[0])}"
    if not field.is_required() and field.default not in (None, ""):
        return f"write for example {key} = {shown(field.default)}"
    return ""


def _retyped(value: Any, kind: str) -> str:
    """The step for the commonest slip: a number or truth value in quotes."""
    if not isinstance(value, str) or kind not in {"int_type", "float_type", "bool_type"}:
        return ""
    try:
        meant = json.loads(value)
    except ValueError:
        return ""
    fits = {"int_type": int, "float_type": (int, float), "bool_type": bool}[kind]
    number = isinstance(meant, fits) and isinstance(meant, bool) == (kind == "bool_type")  # type: ignore[arg-type]
    return f"remove the quotes: {value}" if number else ""
