"""What pydantic finds wrong, in this project's sentences."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from decentral.config.problems import choose, dotted, sentence, shown

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


def explain(
    error: ValidationError,
    model: type[BaseModel],
    document: object,
    *,
    prefix: str = "",
    known: Iterable[str] = (),
    hints: Mapping[str, str] | None = None,
    tolerate_incomplete: bool = False,
) -> list[str]:
    """Pydantic's findings as sentences, in its order.

    Args:
        error: what validating ``document`` raised.
        model: the model that refused it.
        document: the refused input.
        prefix: dotted path of ``document`` in the file.
        known: keys that are allowed beside the model's own in the outermost table.
        hints: next steps by key that is unknown, where papers have a setting that is set elsewhere here.
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
        if detail["type"] == "extra_forbidden":
            step = (hints or {}).get(str(detail["loc"][-1]), step)
        if key in found:  # members of a union, each with its own objection
            texts, former = found[key][2:]
            if expectation not in texts:
                texts.append(expectation.removeprefix("must be "))
            step = step if step.startswith("did") else former
            found[key] = (key, value, texts, step)
        else:
            found[key] = (key, value, [expectation], step)
    return [sentence(key, value, " or ".join(texts), step) for key, value, texts, step in found.values()]


def _inside(loc: tuple[int | str, ...], outer: tuple[int | str, ...]) -> bool:
    return len(loc) > len(outer) and loc[: len(outer)] == outer and isinstance(loc[len(outer)], int)


def _explained(
    detail: ErrorDetails, model: type[BaseModel], document: object, prefix: str, known: Iterable[str]
) -> tuple[str, object, str, str]:
    """Key, value, expectation and next step of one finding."""
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    where = _in_document(detail["loc"], document, kind)
    leaf = where[-1] if where else ""
    field, table = _field(model, where)
    key = dotted(prefix, *(step for step in where if step != "settings"))
    if kind in {"refused", "incomplete"}:
        value = context["value"] if context["key"] else value
        key = dotted(key, context["key"]) if context["key"] else key
        expectation, step = context["expectation"], context["step"]
    elif kind == "missing":
        value, expectation = None, "is required"
        step = _example_step(field, leaf) or f"add {leaf}"
        if leaf == "name" and _is_part(table):
            step = f'write {where[-2]} = {{ name = "NAME", ... }}'
    elif kind == "extra_forbidden":
        names = [*(table.model_fields if table else ()), *(known if len(where) == 1 else ())]
        paths = [dotted(prefix, *where[:-1], name) for name in names]
        expectation, step = "is not a known key", _unknown_step(key, paths, model if known else None)
    elif kind == "literal_error" and field is not None:
        options = _options(field.annotation)
        expectation = f"must be {'one of ' * (len(options) > 1)}{', '.join(map(shown, options))}"
        near = choose(value, options)
        step = near if near.startswith("did") else _example_step(field, leaf) or near
    elif kind in _BOUNDS:
        name, *texts = _BOUNDS[kind]
        bound = context[name]
        exact = f"{bound:g}" if isinstance(bound, float) else str(bound)
        expectation, step = (text.format(exact) for text in texts)
    elif kind in {"model_type", "model_attributes_type"} and field is not None and _is_part(_model(field)):
        expectation, step = "must be a name or a table with a name", f'write {leaf} = "NAME"'
    else:
        expectation = _TYPES.get(kind) or detail["msg"].replace("Input should be", "must be").rstrip(".")
        step = _retyped(value, kind) or _example_step(field, leaf) or _TYPE_STEPS.get(kind, "correct it")
    return key, value, expectation, step


def _options(annotation: Any) -> list[str]:
    """Every string that ``annotation`` lists, also as a member of a union."""
    if get_origin(annotation) is Literal:
        return [str(option) for option in get_args(annotation)]
    return [option for member in get_args(annotation) for option in _options(member)]


def _model(field: FieldInfo) -> type[BaseModel] | None:
    """The table that ``field`` holds, also where it may be left out."""
    annotation = field.annotation
    members = get_args(annotation) if get_origin(annotation) in {Union, UnionType} else (annotation,)
    models = [each for each in members if isinstance(each, type) and issubclass(each, BaseModel)]
    return models[0] if models else None


def _is_part(table: object) -> bool:
    """Whether the table has a name that decides which settings it takes."""
    return isinstance(table, type) and issubclass(table, BaseModel) and "settings" in table.model_fields


def _in_document(loc: tuple[int | str, ...], document: object, kind: str) -> tuple[int | str, ...]:
    """``loc`` without the tags that unions append: only steps that exist in the document."""
    here: Any = document
    steps: list[int | str] = []
    for step in loc:
        try:
            here = here[step]
        except (KeyError, IndexError, TypeError):  # a tag, or a key that is missing
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
        table = model if field is None else _model(field)
        field = table.model_fields.get(str(step)) if table else None
    return field, table


def _unknown_step(key: str, siblings: Iterable[str], schema: type[BaseModel] | None) -> str:
    """A sibling of nearly that name, else a key of that name in another table, else all siblings."""
    leaf = key.rsplit(".", 1)[-1]
    elsewhere = _leaves(schema, "") if schema is not None else []
    for paths, cutoff in ((siblings, 0.65), (elsewhere, 0.85)):
        named = {path.rsplit(".", 1)[-1]: path for path in paths}
        for match in difflib.get_close_matches(leaf, named, n=1, cutoff=cutoff):
            return f"did you mean {named[match]}?"
    return choose(None, siblings)


def _leaves(model: type[BaseModel], path: str) -> list[str]:
    """Dotted paths of all keys below ``model``."""
    paths = []
    for name, field in model.model_fields.items():
        inner = _model(field)
        if inner is not None:
            paths += _leaves(inner, dotted(path, name))
        elif name != "settings":
            paths.append(dotted(path, name))
    return paths


def _example_step(field: FieldInfo | None, key: int | str) -> str:
    if field is None:
        return ""
    if field.examples:
        return f"write for example {key} = {shown(field.examples[0])}"
    inner = _model(field)
    if inner is not None:
        names = [name for name, part in inner.model_fields.items() if part.is_required()]
        return f"write a table with {', '.join(names)}" if names else "write a table"
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
