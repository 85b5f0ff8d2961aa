"""Modules of the user's own: found beside the experiment file, described, compared on hosts, sent."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from decentral.config import Experiment, load
from decentral.errors import ConfigError, PreflightError
from launch import modules, own
from launch.compose import check
from launch.host_plan import check_hosts
from launch.hosts import Host, Hosts
from tests.folder_hosts import Lab, checkout, lab
from tests.own_parts import ALGORITHM, EXPERIMENT, HELPER, write_own

__all__ = ["checkout", "lab"]
FAR = Hosts(hosts=(Host(name="a", local=True), Host(name="b")), source="the test", kind="ssh")


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """What was imported and where modules are looked for is undone."""
    path, loaded = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - loaded:
        if name.partition(".")[0] in ("my_rumor", "my_average", "my_parts"):
            del sys.modules[name]


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A folder with an experiment, its algorithm, and what that imports."""
    folder = write_own(tmp_path / "mine").parent
    (folder / "unused.py").write_text("")
    return folder


def admitted(folder: Path) -> Experiment:
    experiment = load(folder / "mine.toml")
    own.admit(experiment, folder)
    check(experiment)
    return experiment


def test_a_module_beside_the_experiment_file_and_what_it_imports_from_there(mine: Path) -> None:
    with pytest.raises(ConfigError, match="beside the experiment file"):
        check(load(mine / "mine.toml"))
    found = own.own_modules(admitted(mine))
    assert [module.name for module in found.modules] == ["my_average", "my_rumor"]
    assert found.imports == ("my_rumor",)
    assert found.sent == [(f"{name}.py", mine / f"{name}.py") for name in ("my_average", "my_rumor")]
    assert sys.path[-1] == str(mine)
    digests = {name: entry["hash"] for name, entry in found.listed.items()}
    assert own.differences({"modules": found.listed}, found) == []
    (mine / "my_average.py").write_text(HELPER + "# another\n")
    changed = own.own_modules(admitted(mine))
    assert changed.listed["my_rumor"]["hash"] == digests["my_rumor"]
    (warning,) = own.differences({"modules": found.listed}, changed)
    assert "my_average" in warning


def test_shipped_parts_need_no_modules(mine: Path) -> None:
    (mine / "mine.toml").write_text(EXPERIMENT.replace("my_rumor:Rumor", "nodes.epidemic:EpidemicLearning"))
    (mine / "epidemic.py").write_text("raise AssertionError")
    assert own.own_modules(admitted(mine)) == own.NONE
    assert str(mine) not in sys.path


def test_a_folder_that_others_may_write_to_is_no_place_for_modules(mine: Path) -> None:
    mine.chmod(0o777)
    with pytest.raises(ConfigError, match=r"module my_rumor lies in .*chmod go-w"):
        admitted(mine)
    assert str(mine) not in sys.path


def test_nothing_beside_the_experiment_takes_the_place_of_another_module(mine: Path) -> None:
    (mine / "msgpack.py").write_text("raise AssertionError")
    (mine / "mine.toml").write_text(EXPERIMENT.replace("my_rumor:Rumor", "msgpack:Packer"))
    own.admit(load(mine / "mine.toml"), mine)
    assert str(mine) not in sys.path


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda package: (package / "fast.so").write_bytes(b""), "fast.so is compiled"),
        (lambda package: (package / "big.bin").write_bytes(bytes(9 << 20)), "at most 8 are sent"),
        (lambda package: (package / "__init__.py").unlink(), "__init__.py"),
    ],
)
def test_what_cannot_be_sent_needs_a_python_on_every_host(
    spoil: Any, said: str, mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = mine / "my_parts"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "rumor.py").write_text(ALGORITHM.replace("my_average", "my_parts.average"))
    (package / "average.py").write_text(HELPER)
    spoil(package)
    (mine / "mine.toml").write_text(EXPERIMENT.replace("my_rumor:", "my_parts.rumor:"))
    monkeypatch.syspath_prepend(str(mine))
    experiment = admitted(mine)
    with pytest.raises(ConfigError, match=r"my_parts cannot be sent .* host b and set python") as caught:
        check_hosts(experiment, FAR)
    assert said in str(caught.value)
    named = FAR.model_copy(update={"hosts": (FAR.hosts[0], Host(name="b", python="/opt/python"))})
    check_hosts(experiment, named)
    (module,) = own.own_modules(experiment).modules
    assert (module.files, module.digest) == ((), None)


def test_what_a_host_lacks_or_has_otherwise_is_said(mine: Path) -> None:
    wanted = own.own_modules(admitted(mine)).wanted
    modules.check_here(wanted)
    with pytest.raises(PreflightError, match=r"module my_rumor in .* is not the launcher's"):
        modules.check_here({**wanted, "digests": {"my_rumor": "0" * 16}})
    with pytest.raises(PreflightError, match=r"module my_absent, .* is not installed"):
        modules.check_here({"imports": [], "digests": {"my_absent": None}})
    (mine / "my_parts.py").write_text("import no_such_package\n")
    with pytest.raises(PreflightError, match=r"my_parts cannot be imported .*no_such_package"):
        modules.check_here({"imports": ["my_parts"], "digests": {}})


def test_modules_come_to_a_host_once_and_nothing_that_was_changed_there_is_run(
    lab: Lab, mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = own.own_modules(admitted(mine))
    host = lab.host("h1")
    (place,) = lab.deploy(host, parts=found.sent)
    assert place.parts is not None
    assert sorted(path.name for path in Path(place.parts).glob("*.py")) == ["my_average.py", "my_rumor.py"]
    assert place.environment[modules.SEARCH_VARIABLE] == f'["{place.parts}"]'
    assert any("modules of your own to h1" in line for line in lab.told)
    assert lab.deploy(host, parts=found.sent) == [place]
    assert not any("modules" in line for line in lab.told)
    (Path(place.parts) / "my_rumor.py").write_text("raise AssertionError")
    assert lab.deploy(host, parts=found.sent) == [place]
    assert (Path(place.parts) / "my_rumor.py").read_text() == ALGORITHM
    (bare,) = lab.deploy(host)
    assert bare.parts is None
    assert modules.SEARCH_VARIABLE not in bare.environment
