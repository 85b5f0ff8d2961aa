"""What other users of a host could have planted or could change is not used."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from decentral.errors import PreflightError
from launch.deploy import line
from launch.deploy.onhost.look import has_code, open_folder
from launch.deploy.onhost.tree import code_hash
from launch.deploy.onhost.trust import distrust, distrust_python
from tests.folder_hosts import Lab, checkout, lab

__all__ = ["checkout", "lab"]

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")
OTHER = 4321


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o1777])
def test_a_folder_that_others_can_write_is_refused_though_it_holds_everything(mode: int, lab: Lab) -> None:
    host = lab.host("h1")
    (place,) = lab.deploy(host)
    os.chmod(place.folder, mode)
    with pytest.raises(PreflightError, match=r"^host h1: others could change what lies in .*mode"):
        lab.deploy(host)


def test_a_folder_below_one_that_others_can_write_is_refused_unless_that_is_sticky(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    assert "other users may write to" in str(open_folder(str(tmp_path / "a" / "b"))[1])
    assert not (tmp_path / "a").exists()
    tmp_path.chmod(0o1777)
    assert open_folder(str(tmp_path / "a" / "b"))[1:] == (None, None)
    tmp_path.chmod(0o700)


@AS_ROOT
def test_a_link_of_another_user_is_refused_wherever_it_leads(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "link").symlink_to("mine")
    assert distrust(str(tmp_path / "link" / "x")) is None
    os.lchown(tmp_path / "link", OTHER, OTHER)
    assert f"link belongs to another user (uid {OTHER})" in str(distrust(str(tmp_path / "link" / "x")))


def test_links_without_end_end(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert "links without end" in str(distrust(str(tmp_path / "a" / "c")))


class TestPython:
    @pytest.fixture
    def python(self, tmp_path: Path) -> Path:
        """Of an environment, whose Python is a link to root's as always."""
        for name in ("bin", "lib/python3.11/site-packages"):
            (tmp_path / "env" / name).mkdir(parents=True)
        (tmp_path / "env" / "pyvenv.cfg").write_text("")
        (tmp_path / "env" / "bin" / "python").symlink_to(sys.executable)
        return tmp_path / "env" / "bin" / "python"

    def test_ones_own_is_trusted(self, python: Path) -> None:
        assert distrust_python(str(python)) is None
        assert distrust_python(sys.executable) is None

    @AS_ROOT
    @pytest.mark.parametrize(
        "name", ["bin/python", "bin", "pyvenv.cfg", ".", "lib", "lib/python3.11/site-packages"]
    )
    def test_anothers_is_not(self, name: str, python: Path) -> None:
        os.lchown(python.parents[1] / name, OTHER, OTHER)
        assert "belongs to another user" in str(distrust_python(str(python)))

    @pytest.mark.parametrize("name", ["bin", "pyvenv.cfg", ".", "lib/python3.11"])
    def test_one_that_others_can_change_is_not(self, name: str, python: Path) -> None:
        (python.parents[1] / name).chmod(0o775)
        assert "other users may write" in str(distrust_python(str(python)))


@pytest.mark.parametrize("name", ["launch", "launch/__pycache__", "launch/__init__.py", "results"])
def test_code_that_others_can_change_is_not_used_whatever_its_hash(name: str, checkout: Path) -> None:
    wanted = code_hash(str(checkout))
    assert has_code(str(checkout), wanted)
    (checkout / name).chmod(0o777)
    assert code_hash(str(checkout)) == wanted
    assert not has_code(str(checkout), wanted)


def test_bytecode_beside_the_code_of_a_host_is_removed(lab: Lab) -> None:
    host = lab.host("h1")
    (place,) = lab.deploy(host)
    assert list(Path(place.code).rglob("__pycache__")) == []
    assert place.environment["PYTHONDONTWRITEBYTECODE"] == "1"
    planted = Path(place.code, "launch", "__pycache__", "zygote.cpython-311.pyc")
    planted.parent.mkdir()
    planted.write_bytes(b"x")
    assert lab.deploy(host) == [place]
    assert not planted.parent.exists()


def judged(path: Path) -> bool:
    """What the line of shell says that starts Pythons at the launcher's paths on other hosts."""
    command = ["sh", "-c", f'{line.JUDGE} judge "$1"', "sh", str(path)]
    return subprocess.run(command, check=False).returncode == 0


def test_shells_judge_the_launchers_python_before_it_runs(tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    python = folder / "python3"
    python.write_text("#!/bin/sh\n")
    python.chmod(0o755)
    (folder / "link").symlink_to(python)
    assert judged(python)
    assert not judged(folder / "link")
    assert not judged(folder / "absent")
    for path, mode in ((folder, 0o777), (folder, 0o770), (python, 0o775), (python, 0o757)):
        before = path.stat().st_mode
        path.chmod(mode)
        assert not judged(python)
        path.chmod(before)
    folder.chmod(0o1777)
    assert judged(python)  # nobody else can replace it in there
    if os.geteuid() == 0:
        os.chown(python, OTHER, OTHER)
        assert not judged(python)


def test_a_planted_python_is_passed_over(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    planted = tmp_path / "python3.11"
    planted.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    planted.chmod(0o755)
    command = ["sh", "-c", line._FIND, "sh", line._TEST, "print(3)", "0", f"={planted}", sys.executable]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    tmp_path.chmod(0o700)
    assert done.stdout == "3\n"
    assert not (tmp_path / "ran").exists()
