"""What the documentation tells users to type and to write exists, and what exists is told."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
import typer.core
import typer.main
from pydantic import BaseModel

from decentral import errors
from decentral.config.schema import (
    CheckpointSettings,
    ComputeSettings,
    EvaluateSettings,
    FragmentSettings,
    RunSettings,
    TrainSettings,
)
from decentral.network.presets import Star
from launch.cli import app
from launch.hosts import Host, load_hosts
from tests.unit.test_repository import ROOT

PAGES = (
    *("README.md", "docs/hosts.md", "CONTRIBUTING.md"),
    *("launch/run_cluster.sh", "launch/cluster.sbatch"),
)
OPTION = re.compile(r"(?<![\w-])--?[a-z][a-z-]*")
ADVISERS = [
    *(ROOT / "launch" / "doctor").glob("*.py"),
    *(ROOT / "launch" / "deploy").glob("*.py"),
    *(
        ROOT / "launch" / name
        for name in ("preflight.py", "facts.py", "hosts.py", "host_schema.py", "placing.py")
    ),
]
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef)


def commands() -> dict[str, set[str]]:
    """The options of every command."""
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    return {
        name: {"--help", *(option for parameter in command.params for option in parameter.opts)}
        for name, command in group.commands.items()
    }


def typed(text: str) -> Iterator[tuple[str, str]]:
    """Command and arguments of everything that a page tells to type."""
    code = re.findall(r"```bash\n(.*?)```", text, re.DOTALL) + re.findall(r"`([^`\n]+)`", text)
    for line in (line.split(" #")[0] for line in "\n".join(code).splitlines()):
        for match in re.finditer(r"(?:\bdecentral|-m launch) ([a-z]+)(.*)", line):
            yield match[1], match[2]
        for match in re.finditer(r"(?:run_cluster\.sh|cluster\.sbatch)(?: (.*))?$", line):
            yield "run", match[1] or ""


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_their_options_exist(page: str) -> None:
    known = commands()
    text = (ROOT / page).read_text(encoding="utf-8")
    if page.startswith("launch/"):  # the comment at its head is for users
        lines = [line.lstrip("# ") for line in text.splitlines() if line.startswith("#   ")]
        text = "```bash\n" + "\n".join(lines) + "\n```"
    found = list(typed(text))
    assert found
    for command, arguments in found:
        assert command in known, f"{page}: decentral {command}"
        for option in OPTION.findall(arguments):
            assert option in known[command], f"{page}: decentral {command} {option}"


def test_every_command_is_in_the_readme() -> None:
    told = {command for command, _ in typed((ROOT / "README.md").read_text(encoding="utf-8"))}
    assert set(commands()) <= told


def test_links_lead_somewhere() -> None:
    for page in ("README.md", "docs/hosts.md", "docs/speed.md", "CONTRIBUTING.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if "://" in target:
                continue
            name, _, anchor = target.partition("#")
            path = (ROOT / page).parent / name if name else ROOT / page
            assert path.exists(), f"{page}: {target}"
            assert not anchor or anchor in anchors(path), f"{page}: {target}"


def anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def table(page: str, heading: str) -> list[list[str]]:
    """Cells of the first table with that heading."""
    text = (ROOT / page).read_text(encoding="utf-8")
    body = text[text.index(heading) :].split("\n\n", 1)[0]
    return [re.split(r" *(?<!\\)\| *", line.strip("| ")) for line in body.splitlines()[2:]]


def test_every_key_of_a_hosts_file_is_told() -> None:
    rows = table("docs/hosts.md", "| key | default | what |")
    assert {key for row in rows for key in re.findall(r"`(\w+)`", row[0])} == set(Host.model_fields)


def test_every_exit_code_is_told() -> None:
    codes = {
        kind.exit_code
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.DecentralError)
    }
    assert {int(row[0]) for row in table("README.md", "| exit code | what |")} == {0} | codes


def test_the_example_has_every_key_and_loads() -> None:
    path = ROOT / "launch" / "hosts.example.toml"
    hosts = load_hosts(path)
    assert [host.name for host in hosts.hosts] == ["gpu1", "gpu2", "gpu3", "here"]
    assert hosts.hosts[1].port_range == (20000, 20999)
    assert hosts.hosts[3].local
    assert not hosts.hosts[3].user
    text = path.read_text(encoding="utf-8")
    assert set(re.findall(r"^#? *(\w+) = ", text, re.MULTILINE)) == set(Host.model_fields)


def test_hosts_files_in_the_documentation_load(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (found,) = re.findall(r"cat > hosts.toml <<'END'\n(.*?)END\n", text, re.DOTALL)
    (tmp_path / "hosts.toml").write_text(found)
    assert [host.name for host in load_hosts(tmp_path / "hosts.toml").hosts] == ["gpu1", "gpu2", "gpu3"]


@pytest.mark.parametrize("path", ADVISERS, ids=lambda path: path.name)
def test_advice_names_what_there_is(path: Path) -> None:
    """Options that messages tell to use are a command's, keys that they tell to set are a host's."""
    known = set().union(*commands().values())
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstrings = {
        ast.get_docstring(node, clean=False) for node in ast.walk(tree) if isinstance(node, DOCUMENTED)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value not in docstrings:
            for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", node.value):
                assert option in known, node.value
            for command in re.findall(r"\bdecentral (doctor|run|[a-z]+)(?= --|`)", node.value):
                assert command in commands(), node.value
            for key in re.findall(r"\bset (\w+) for this host", node.value):
                assert key in Host.model_fields, node.value


EXPLAINED = {
    "fragments": FragmentSettings,
    "train": TrainSettings,
    "network": Star,
    "compute": ComputeSettings,
    "run": RunSettings,
    "checkpoint": CheckpointSettings,
    "evaluate": EvaluateSettings,
}


@pytest.mark.parametrize("table", EXPLAINED)
def test_the_default_experiment_explains_every_key(table: str) -> None:
    """Also those that it does not set, in comments."""
    model = EXPLAINED[table]
    keys = model.model_fields if issubclass(model, BaseModel) else [key.name for key in fields(model)]
    text = (ROOT / "launch" / "experiments" / "default.toml").read_text(encoding="utf-8")
    (part,) = [
        part for part in re.split(r"^(?=\[)", text, flags=re.MULTILINE) if part.startswith(f"[{table}]")
    ] or [text]
    assert [key for key in keys if not re.search(rf"\b{key}\b( =|, | \()", part)] == []


def test_measuring_scripts_and_their_options_exist() -> None:
    text = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")
    found = re.findall(r"`[^`\n]*tests[./]bench[./](\w+)(?:\.py)?([^`\n]*)`", text)
    assert len(found) > 10
    for name, arguments in found:
        script = (ROOT / "tests" / "bench" / f"{name}.py").read_text(encoding="utf-8")
        for option in OPTION.findall(arguments):
            assert f'"{option}"' in script, f"{name} {option}"
