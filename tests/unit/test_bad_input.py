"""Experiments with one mistake each: all are refused in one sentence, before a process is started."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from decentral.config import load
from decentral.errors import ConfigError
from launch.compose import check, compose, settled
from launch.rows import evaluation_rows
from tests.unit.mistakes import BASE, MISTAKES

# key.path = value: expectation; next step     or     key.path: part(value): expectation; next step
_KEY = r"[A-Za-z_][\w-]*(?:\.[\w-]+|\[\d+\])*"
_PROBLEM = re.compile(
    r'(?:arm (?:"[^"]+"|\d+): )?'
    rf"(?:(?P<key>(?:--set )?{_KEY}|--set) = (?P<value>\S.*?)|(?P<path>{_KEY}): (?P<call>\w+(?:\(.+?\))?))"
    r": (?P<expectation>\w[^;]{5,}); (?P<step>\w.{3,})"
)
_JARGON = re.compile(
    r"pydantic|https?://|Input should|Traceback|Extra inputs|object at 0x|<class|_type\b", re.IGNORECASE
)


def refuse(path: Path, overrides: tuple[str, ...]) -> ConfigError:
    """All that a run does before anything is started; the error it ends with."""
    try:
        experiment = load(path, overrides)
        check(experiment)
        for arm in settled(experiment).arms:
            composition = compose(arm, experiment.seeds[0])
            loaded = composition.task.load()
            evaluation_rows(composition, loaded, loaded.examples.labels)
    except ConfigError as error:
        return error
    pytest.fail("accepted")


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str) -> Path:
        path = tmp_path / "experiment.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def assert_well_formed(problem: str) -> None:
    assert "\n" not in problem
    assert _PROBLEM.fullmatch(problem), problem
    assert not _JARGON.search(problem), problem
    assert len(problem) < 500


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.id)
def test_a_mistake_is_refused_in_one_sentence(mistake, write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rates.json").write_text(mistake.rates, encoding="utf-8")
    error = refuse(write(mistake.text()), mistake.overrides)
    assert error.exit_code == 2
    for problem in error.problems:
        assert_well_formed(problem)
    hits = [
        problem
        for problem in error.problems
        if re.search(rf"(?:^|: ){re.escape(mistake.key)}(?= = |\(|: )", problem)
        and mistake.value in problem
        and mistake.step in problem.rpartition("; ")[2]
    ]
    assert len(hits) == 1, error.problems


def test_there_are_enough_mistakes_each_with_its_own_id():
    assert len({mistake.id for mistake in MISTAKES}) == len(MISTAKES) >= 150


def test_the_experiment_without_mistake_is_accepted(write):
    check(load(write(BASE)))


def test_ids_of_mistakes_are_told_for_every_arm_that_has_them(write):
    text = BASE.replace('name = "second"', 'name = "second"\ntopology.degree = 3\nnodes = 15')
    (problem,) = refuse(write(text), ()).problems
    assert problem.startswith('arm "second": topology: regular(')


@pytest.mark.parametrize("name", ["absent", "absent.toml", "no/such/folder.toml"])
def test_a_missing_file_lists_the_shipped_experiments(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (problem,) = refuse(Path(name), ()).problems
    assert_well_formed(problem)
    assert all(word in problem for word in (name, "default", "mosaic_cifar10"))


def test_a_folder_a_binary_and_an_unreadable_file_are_refused(tmp_path):
    (tmp_path / "binary.toml").write_bytes(b"name = '\xff\xfe'")
    (tmp_path / "deep.toml").write_text("a = " + "[" * 5000, encoding="utf-8")
    for path in (tmp_path, tmp_path / "binary.toml", tmp_path / "deep.toml", tmp_path / ("x" * 300)):
        (problem,) = refuse(path, ()).problems
        assert _PROBLEM.fullmatch(problem), problem


def test_refusing_imports_no_torch_and_starts_no_process(write, tmp_path):
    text = BASE.replace("degree = 4", "degree = 3").replace("nodes = 16", "nodes = 15")
    script = """
import os, subprocess, sys
started = []
STARTS = {"os.fork", "os.forkpty", "os.posix_spawn", "os.system", "os.exec", "subprocess.Popen"}
sys.addaudithook(lambda event, _: started.append(event) if event in STARTS else None)
from pathlib import Path
from decentral.config import load
from decentral.errors import ConfigError
from launch.compose import check, complete
sound = load(Path(sys.argv[1]), ["nodes=16"])
check(sound)
complete(sound)
try:
    check(load(Path(sys.argv[1])))
except ConfigError as error:
    print(error.exit_code, started, sorted({"torch", "zmq"} & sys.modules.keys()), os.listdir("."))
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, str(write(text))],
        capture_output=True,
        text=True,
        check=False,
        cwd=_empty(tmp_path),
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONDONTWRITEBYTECODE": "1"},
        timeout=60,
    )
    assert done.stderr == ""
    assert done.stdout == "2 [] [] []\n"


def _empty(folder: Path) -> Path:
    empty = folder / "empty"
    empty.mkdir()
    return empty
