"""Hosts get what they lack, and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest

from decentral.errors import PreflightError
from launch.deploy.deployment import Deployment
from launch.deploy.packages import CHECK, LAUNCHER_ONLY, Packages
from launch.deploy.plan import Place
from launch.hosts import Host
from tests.folder_hosts import SETUP, Lab, checkout, lab

__all__ = ["checkout", "lab"]

ROOT = Path(__file__).resolve().parents[2]


def imports(place: Place, what: str) -> str:
    done = subprocess.run(
        [place.python, "-P", "-c", f"import {what}; print({what}.__file__)"],
        env={"PATH": os.environ["PATH"], **place.environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_a_bare_host_gets_code_and_environment_once(lab: Lab) -> None:
    host = lab.host("h1")
    (place,) = lab.deploy(host)
    home = str(lab.path / "h1")
    assert imports(place, "msgpack").startswith(f"{home}/.cache/decentral/env-")
    assert imports(place, "launch").startswith(f"{home}/.cache/decentral/code-")
    assert sorted(os.listdir(place.code)) == [
        *(".used", "constraints.txt", "decentral", "launch", "nodes", "results", "setup.cfg", "topologies"),
    ]
    assert sorted(os.listdir(f"{place.code}/results")) == ["__init__.py"]
    (site,) = Path(place.python).parents[1].glob("lib/python3.*/site-packages")
    assert not (site / "rich").exists()
    assert lab.deploy(host) == [place]
    assert lab.told == []


def test_changed_code_is_another_folder(lab: Lab) -> None:
    host = lab.host("h1")
    (before,) = lab.deploy(host)
    (lab.checkout / "nodes" / "new.py").write_text("")
    (after,) = lab.deploy(host)
    assert after.code != before.code
    assert after.python == before.python
    assert os.path.exists(f"{after.code}/nodes/new.py")
    assert os.path.isdir(before.code)


def test_what_was_damaged_is_brought_again(lab: Lab) -> None:
    host = lab.host("h1")
    (place,) = lab.deploy(host)
    os.unlink(f"{place.code}/launch/run.sh")
    Path(place.python).parents[1].joinpath(".ready").unlink()
    assert lab.deploy(host) == [place]
    assert os.path.exists(f"{place.code}/launch/run.sh")
    assert imports(place, "msgpack")
    assert [name for name in lab.kept("h1") if name.startswith(".making")] == []


def test_a_shared_checkout_and_environment_are_used(
    tmp_path: Path, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = Lab(tmp_path / "hosts", checkout, monkeypatch, hidden=False)
    (place,) = lab.deploy(lab.host("h1"))
    assert (place.python, place.code) == (sys.executable, str(checkout))
    assert lab.told == []
    assert lab.kept("h1") == []


def test_runs_at_once_agree(lab: Lab) -> None:
    host = lab.host("h1")
    places: list[Place] = []
    threads = [threading.Thread(target=lambda: places.extend(lab.deploy(host))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(places) == 3
    assert len(set(places)) == 1
    assert len(lab.kept("h1")) == 2  # code, environment


def test_hosts_that_share_their_home_are_sent_everything_once(lab: Lab) -> None:
    one = lab.host("h1")
    (lab.path / "h2").symlink_to(lab.path / "h1")
    places = lab.deploy(one, Host(name="h2"), lab.host("h3"))
    assert len({place.folder for place in places}) == 3
    assert "copying the code to h1, h3" in lab.told
    assert imports(places[1], "msgpack")


def test_a_copy_of_a_machine_shares_nothing_with_it(lab: Lab) -> None:
    """What is in its folder came with the image, files that tell hosts apart included."""
    one = lab.host("h1")
    lab.deploy(one)
    shutil.copytree(lab.path / "h1", lab.path / "h2", symlinks=True)
    (lab.checkout / "nodes" / "new.py").write_text("")
    places = lab.deploy(one, Host(name="h2"))
    assert "copying the code to h1, h2" in lab.told
    assert all(Path(place.code, "nodes", "new.py").exists() for place in places)


def test_every_host_that_fails_is_named_with_step_and_cause(lab: Lab) -> None:
    with pytest.raises(PreflightError) as caught:
        lab.deploy(lab.host("h1"), Host(name="h2"), Host(name="h3"))
    assert str(caught.value).splitlines() == [
        f"host h{i}: looking at what is there failed: ssh: connect to host h{i} port 22: Connection refused"
        for i in (2, 3)
    ]


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"python": "/nowhere/python"}, r"no Python 3\.11 or newer; tried: /nowhere/python"),
        ({"data": "$(touch x)"}, r"data = \$\(touch x\) is no folder"),
        ({"folder": "a:b"}, "has a colon in its name"),
        ({"folder": "/proc/decentral"}, "cannot write in /proc/decentral: No such file or directory"),
    ],
)
def test_what_cannot_be_used_is_refused(keys: dict[str, str], says: str, lab: Lab) -> None:
    with pytest.raises(PreflightError, match=f"^host h1: .*{says}"):
        lab.deploy(lab.host("h1", **keys))


def test_a_given_python_must_have_the_packages(lab: Lab) -> None:
    lab.checkout.joinpath("setup.cfg").write_text(SETUP + "    numpy>=99\n    psutil>=1\n")
    with pytest.raises(PreflightError, match=r"lacks numpy>=99 \(has [\d.]+\); install"):
        lab.deploy(lab.host("h1", python=sys.executable))


def test_a_given_python_and_folders_of_any_name(lab: Lab) -> None:
    odd = 'it\'s $(touch x); "a=b"'
    data = lab.path / "h1" / "my data"
    host = lab.host("h1", python=sys.executable, folder=odd, data="my data")
    data.mkdir()
    (place,) = lab.deploy(host)
    folder = str(lab.path / "h1" / odd)
    assert place == Place(
        sys.executable, f"{folder}/{Path(place.code).name}", folder, str(data), f"{folder}/cache"
    )
    assert place.environment["DECENTRAL_CACHE"] == f"{folder}/cache"
    (usual,) = lab.deploy(lab.host("h2", python=sys.executable))
    assert "DECENTRAL_CACHE" not in usual.environment
    assert imports(place, "launch").startswith(folder)
    assert sorted(os.listdir(lab.path / "h1")) == sorted([odd, "my data"])


def test_another_python_gets_its_packages_by_pip(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The index is a folder with one package; without it the host is refused, and nothing is left there."""
    monkeypatch.setattr("launch.deploy.plan.this_python", lambda: ["cpython", "3.99", "vax", "other"])
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    host = lab.host("h1")
    with pytest.raises(PreflightError, match=r"^host h1: installing packages failed\n.*package index"):
        lab.deploy(host)
    assert [name for name in lab.kept("h1") if not name.startswith("code-")] == []
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel(lab.path, "msgpack", "1.1.0").parent))
    (place,) = lab.deploy(host)
    assert imports(place, "msgpack").startswith(f"{place.folder}/env-")
    assert any("installing packages with pip on h1" in line for line in lab.told)
    assert lab.deploy(host) == [place]
    assert lab.told == []


@pytest.mark.parametrize(
    ("here", "there", "by"),
    [
        ("2.36", "2.36", "copy"),
        ("2.9", "2.36", "copy"),
        ("2.36", "2.9", "pip"),
        ("2.36", "", "pip"),
        ("", "", "copy"),
    ],
)
def test_packages_are_copied_to_a_c_library_that_is_no_older(
    here: str, there: str, by: str, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = Deployment._look
    monkeypatch.setattr("launch.deploy.plan.libc_version", lambda: here)
    monkeypatch.setattr(Deployment, "_look", lambda *given: look(*given) | {"libc_version": there})
    brought: list[str | None] = []
    monkeypatch.setattr(
        Deployment,
        "_carry_environments",
        lambda self, plans, *rest: brought.extend(plan.environment for plan in plans),
    )
    lab.deploy(lab.host("h1"))
    assert brought == [by]


def test_packages_that_cannot_be_imported_there_are_refused_with_the_next_step(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("launch.deploy.deployment.CHECK", "import nothing_of_this_name")
    with pytest.raises(
        PreflightError, match=r"set python = \.\.\. .*failed:\n(.*\n)*.*No module named 'nothing_of"
    ):
        lab.deploy(lab.host("h1"))
    assert [name for name in lab.kept("h1") if not name.startswith("code-")] == []


def wheel(folder: Path, name: str, version: str) -> Path:
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}/__init__.py": "",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
    return path


def test_agents_import_nothing_that_only_the_launcher_has() -> None:
    """What is not copied must not be needed: every module that a node may use is imported without it."""
    program = f"""
import sys, importlib, pkgutil
sys.modules.update(dict.fromkeys({sorted(LAUNCHER_ONLY)}, None))
{CHECK}
import decentral, nodes, topologies
for package in (decentral, nodes, topologies):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
"""
    subprocess.run([sys.executable, "-P", "-c", program], check=True, cwd=ROOT)


def test_the_requirements_of_this_project_are_understood() -> None:
    packages = Packages.of(ROOT)
    assert {"torch", "numpy", "pyzmq"} <= set(packages.versions)
    assert packages.missing(dict(packages.versions)) == []
    assert "torch>=2.3 (has 1.0)" in packages.missing({**packages.versions, "torch": "1.0"})
    names = [file.name for file in packages.files]
    assert "torch/bin/torch_shm_manager" in names
    assert not any(name.startswith(("torch/include/", "torch/test/")) for name in names)
    assert all(file.path.is_file() for file in packages.files)


def test_a_file_that_goes_away_while_it_is_read_is_named(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("launch.deploy.onhost.tree.code_paths", lambda root: ["nodes/gone.py"])
    with pytest.raises(
        PreflightError, match=r"nodes/gone\.py is part of the code and cannot be read: No such"
    ):
        lab.deploy(lab.host("h1"))


def test_a_round_of_links_among_the_data_sets_is_named(lab: Lab) -> None:
    data = lab.path / "sets"
    data.mkdir()
    (data / "round").symlink_to(".")
    with pytest.raises(PreflightError, match="round is a link that leads back to a folder that holds it"):
        lab.deploy(lab.host("h1", python=sys.executable), send=data)
