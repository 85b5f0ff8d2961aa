"""Data never becomes code: nothing in the five packages unpickles, evaluates, or hands words to a shell."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("decentral", "nodes", "topologies", "launch", "results")
SOURCES = sorted(
    path for package in PACKAGES for path in (ROOT / package).rglob("*.py") if "runs" not in path.parts
)

MODULES = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "code", "codeop"}
"""Not to be imported at all."""
NAMES = {
    *(f"builtins.{name}" for name in ("eval", "exec", "compile", "__import__")),
    *("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"),
    *("asyncio.create_subprocess_shell", "tempfile.mktemp"),
    *("joblib.load", "pandas.read_pickle", "torch.load", "torch.hub.load"),
    *("yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load"),
}
"""Not to be mentioned, called or not, under whatever alias."""
ONLY_FALSE = {"shell", "allow_pickle"}
"""Keywords that may be given as the literal False only."""
ALLOW_PICKLE_POSITION = 3
"""numpy.load takes allow_pickle as its third positional argument."""
BUILTINS = {name.removeprefix("builtins.") for name in NAMES if name.startswith("builtins.")}

RESTRICTED = ROOT / "decentral" / "tasks" / "cifar.py"
"""Reads CIFAR's published pickles with an unpickler that looks every name up in a fixed table."""


def banned(tree: ast.Module) -> list[tuple[int, str]]:
    """Line and name of everything in ``tree`` that could turn data into code."""
    aliases = dict(_aliases(tree))
    found: list[tuple[int, str]] = []
    for node in ast.walk(tree):
        match node:
            case ast.Import() | ast.ImportFrom():
                found += [(node.lineno, name) for name in _imported(node)]
            case ast.Attribute() | ast.Name(ctx=ast.Load()):
                if (name := _full_name(node, aliases)) in NAMES:
                    found.append((node.lineno, name))
            case ast.Call():
                found += [(node.lineno, what) for what in _arguments(node, aliases)]
    return sorted(found)


def _aliases(tree: ast.Module) -> Iterator[tuple[str, str]]:
    yield from ((name, f"builtins.{name}") for name in BUILTINS)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.asname, alias.name) for alias in node.names if alias.asname)
        elif isinstance(node, ast.ImportFrom):
            yield from ((alias.asname or alias.name, f"{node.module}.{alias.name}") for alias in node.names)


def _imported(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    if isinstance(node, ast.Import):
        modules = [alias.name for alias in node.names]
    else:
        modules = [node.module or ""]
        for alias in node.names:
            name = f"{node.module}.{alias.name}"
            if alias.name == "*" or name in NAMES:
                yield name
    yield from (name for name in modules if name.partition(".")[0] in MODULES)


def _full_name(node: ast.expr, aliases: dict[str, str]) -> str:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""  # an attribute of something computed, such as model().eval
    return ".".join([aliases.get(node.id, node.id), *reversed(parts)])


def _arguments(call: ast.Call, aliases: dict[str, str]) -> Iterator[str]:
    name = _full_name(call.func, aliases)
    for keyword in call.keywords:
        literal_false = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
        if keyword.arg in ONLY_FALSE and not literal_false:
            yield f"{name}({keyword.arg}=...)"
    if name == "numpy.load" and len(call.args) >= ALLOW_PICKLE_POSITION:
        yield f"{name}(allow_pickle=...)"
    if name == "getattr" and len(call.args) > 1 and isinstance(call.args[1], ast.Constant):
        reached = f"{_full_name(call.args[0], aliases)}.{call.args[1].value}"
        if reached in NAMES:
            yield reached


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def test_every_package_is_looked_at() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in SOURCES} == set(PACKAGES)


@pytest.mark.parametrize("package", PACKAGES)
def test_no_data_becomes_code(package: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {what}"
        for path in SOURCES
        if path.relative_to(ROOT).parts[0] == package and path != RESTRICTED
        for line, what in banned(tree_of(path))
    ]
    assert found == []


def test_the_one_unpickler_is_restricted() -> None:
    """It may use the module pickle for nothing but its own ``Unpickler`` with a ``find_class`` of its own."""
    tree = tree_of(RESTRICTED)
    assert {what for _, what in banned(tree)} == {"pickle"}
    aliases = dict(_aliases(tree))
    used = {name for node in ast.walk(tree) if (name := _mention(node, aliases)).startswith("pickle.")}
    assert used == {"pickle.Unpickler", "pickle.UnpicklingError"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and "pickle.Unpickler" in {
            _mention(b, aliases) for b in node.bases
        }:
            assert "find_class" in {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
    bases = [base for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for base in node.bases]
    mentions = [node for node in ast.walk(tree) if _mention(node, aliases) == "pickle.Unpickler"]
    assert mentions == [base for base in bases if _mention(base, aliases) == "pickle.Unpickler"]


def _mention(node: ast.AST, aliases: dict[str, str]) -> str:
    return _full_name(node, aliases) if isinstance(node, ast.Attribute | ast.Name) else ""


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("import pickle", "pickle"),
        ("import pickle as p", "pickle"),
        ("from pickle import loads as read", "pickle"),
        ("import marshal", "marshal"),
        ("from shelve import open as o", "shelve"),
        ("def f():\n    import dill", "dill"),
        ("from joblib import load", "joblib.load"),
        ("import joblib\njoblib.load('x')", "joblib.load"),
        ("import numpy as np\nnp.load('x', allow_pickle=True)", "numpy.load(allow_pickle=...)"),
        ("import numpy as np\nnp.load('x', None, True)", "numpy.load(allow_pickle=...)"),
        ("import numpy\nnumpy.load('x', allow_pickle=trusted)", "numpy.load(allow_pickle=...)"),
        ("eval('1')", "builtins.eval"),
        ("run = exec", "builtins.exec"),
        ("list(map(eval, words))", "builtins.eval"),
        ("compile('1', '', 'eval')", "builtins.compile"),
        ("import builtins as b\nb.eval('1')", "builtins.eval"),
        ("import builtins\ngetattr(builtins, 'exec')('1')", "builtins.exec"),
        ("__import__('os')", "builtins.__import__"),
        ("import subprocess\nsubprocess.run('ls', shell=True)", "subprocess.run(shell=...)"),
        ("from subprocess import Popen as P\nP('ls', shell=1)", "subprocess.Popen(shell=...)"),
        ("import os\nos.system('ls')", "os.system"),
        ("from os import system as call", "os.system"),
        ("import os as o\no.popen('ls')", "os.popen"),
        ("from os import *", "os.*"),
        ("import yaml\nyaml.load('x')", "yaml.load"),
        ("import torch as t\nt.load('model')", "torch.load"),
        ("from tempfile import mktemp", "tempfile.mktemp"),
        ("import tempfile\npath = tempfile.mktemp()", "tempfile.mktemp"),
    ],
)
def test_banned_forms_are_found(source: str, what: str) -> None:
    assert what in {found for _, found in banned(ast.parse(source))}


@pytest.mark.parametrize(
    "source",
    [
        "import re\nre.compile('x')",
        "model.eval()",
        "import numpy as np\nnp.load('x', allow_pickle=False)",
        "import subprocess\nsubprocess.run(['ls'], shell=False)",
        "import yaml\nyaml.safe_load('x')",
        "import tempfile\ntempfile.mkdtemp()",
    ],
)
def test_harmless_forms_are_not(source: str) -> None:
    assert banned(ast.parse(source)) == []
