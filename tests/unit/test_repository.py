"""What holds for every file: size, layers, declared and pinned dependencies."""

from __future__ import annotations

import ast
import configparser
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("decentral", "nodes", "topologies", "launch", "results")
SOURCES = sorted(
    path for package in PACKAGES for path in (ROOT / package).rglob("*.py") if "runs" not in path.parts
)
MAY_IMPORT = {
    "decentral": {"decentral"},
    "nodes": {"nodes", "decentral"},
    "topologies": {"topologies", "decentral"},
    "results": {"results", "decentral"},
    "launch": set(PACKAGES),
}
MAX_LINES = 300
MAX_LINES_OF_PART = {"nodes": 100, "topologies": 60}

PLACEHOLDER = re.compile(r"@{2}[A-Z]+@{2}")
"""Marks text still to be filled in."""
EXTRA_NAMES = {"PIL": "pillow", "sklearn": "scikit-learn", "yaml": "pyyaml", "zmq": "pyzmq"}


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of every imported module, wherever in the file."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{shown(path)}:{node.lineno}: relative import; write the full name"
            yield node.lineno, node.module or ""


def test_every_package_has_sources() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in SOURCES} == set(PACKAGES)


def test_files_are_short() -> None:
    lengths = {shown(path): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert {name: lines for name, lines in lengths.items() if lines >= MAX_LINES} == {}


@pytest.mark.parametrize("package", MAX_LINES_OF_PART)
def test_algorithms_and_topologies_are_shorter(package: str) -> None:
    lengths = {
        path.name: len(path.read_text(encoding="utf-8").splitlines())
        for path in (ROOT / package).glob("*.py")
    }
    assert {name: lines for name, lines in lengths.items() if lines >= MAX_LINES_OF_PART[package]} == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_layers(package: str) -> None:
    wrong = [
        f"{shown(path)}:{line}: imports {name}"
        for path in SOURCES
        if path.relative_to(ROOT).parts[0] == package
        for line, name in imports_of(path)
        if (top := name.partition(".")[0]) in {*PACKAGES, "tests"} and top not in MAY_IMPORT[package]
    ]
    assert wrong == []


def configuration() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def names_of(requirements: str) -> set[str]:
    return {
        re.split(r"[^\w.-]", line, maxsplit=1)[0].lower() for line in requirements.split("\n") if line.strip()
    }


def test_packages_are_listed() -> None:
    """An explicit list makes the editable install a plain .pth; it must not miss a folder."""
    listed = set(configuration()["options"]["packages"].split())
    folders = {".".join(path.parent.relative_to(ROOT).parts) for path in SOURCES}
    assert folders == listed


def test_imports_are_declared() -> None:
    declared = names_of(configuration()["options"]["install_requires"])
    imported = {name.partition(".")[0] for path in SOURCES for _, name in imports_of(path)}
    foreign = imported - set(sys.stdlib_module_names) - set(PACKAGES)
    assert {EXTRA_NAMES.get(name, name).lower().replace("_", "-") for name in foreign} <= declared


def test_everything_is_pinned() -> None:
    options = configuration()
    wanted = names_of(options["options"]["install_requires"]) | names_of(
        options["options.extras_require"]["dev"]
    )
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert [pin for pin in pins if not re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", pin)] == []
    assert wanted <= {pin.partition("==")[0] for pin in pins}


def tracked_texts() -> Iterator[tuple[str, str]]:
    """Name and content of every tracked file that is UTF-8 text."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in listed.stdout.split("\0"):
        if (ROOT / name).is_file():
            content = (ROOT / name).read_bytes()
            with suppress(UnicodeDecodeError):
                yield name, content.decode("utf-8")


@pytest.mark.skipif(
    not (ROOT / ".git").exists(), reason="which files are tracked is known in a git checkout only"
)
def test_no_placeholder_is_left() -> None:
    texts = dict(tracked_texts())
    assert "README.md" in texts
    found = [f"{name}: {mark}" for name, text in texts.items() for mark in PLACEHOLDER.findall(text)]
    assert found == []


LEAKY_TESTS = """
import socket, subprocess, tempfile
from pathlib import Path
kept = []

def test_clean(tmp_path):
    (tmp_path / "file").write_text("kept by pytest")
    with socket.socket(): pass
    subprocess.run(["true"], check=True)

def test_socket():
    kept.append(socket.socket())

def test_process():
    kept.append(subprocess.Popen(["cat"], stdin=subprocess.PIPE))

def test_temporary_file():
    kept.append(tempfile.mkstemp())

def test_orphan():
    words = "sleep 5 >/dev/null 2>&1 </dev/null & echo $!"
    orphan = subprocess.run(["sh", "-c", words], check=True, capture_output=True, text=True).stdout.strip()
    while not Path(f"/proc/{orphan}/cmdline").read_bytes().startswith(b"sleep"):
        pass  # in the middle of exec a process shows no environment, by which it is known
"""


def test_leaks_fail_their_test(tmp_path: Path) -> None:
    """The fixture of conftest.py sees sockets, children, orphans and temporary files."""
    conftest = (ROOT / "tests" / "conftest.py").read_text(encoding="utf-8")
    (tmp_path / "conftest.py").write_text(
        re.sub(r"SETTLE_S = [\d.]+", "SETTLE_S = 0.1", conftest), encoding="utf-8"
    )
    (tmp_path / "test_leaky.py").write_text(LEAKY_TESTS, encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-rA",
        "--rootdir",
        str(tmp_path),
    ]
    done = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, check=False, timeout=60)
    failed = set(re.findall(r"^ERROR .*::(\w+)", done.stdout, re.MULTILINE))
    assert failed == {"test_socket", "test_process", "test_temporary_file", "test_orphan"}, done.stdout
    for words in ("-> socket:[", ": cat", "in TMPDIR: tmp", "sleep 5"):
        assert words in done.stdout


@pytest.mark.parametrize("folder", ["launch", "launch/executors"])
def test_every_module_has_a_place_in_the_architecture(folder: str) -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    _, table = text.split("In `launch/`, by what they are about")
    known = set(re.findall(r"[a-z_]+", table.split("\n\n")[1]))
    names = {path.stem for path in (ROOT / folder).glob("*.py")} - {"__init__", "__main__"}
    assert names - known == set()
