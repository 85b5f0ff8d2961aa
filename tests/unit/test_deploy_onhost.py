"""What runs on a host: archives are taken whole or not at all, old folders go, used ones stay."""

from __future__ import annotations

import importlib.machinery
import io
import os
import platform
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest

from launch.deploy.archive import write_archive
from launch.deploy.onhost import take
from launch.deploy.onhost.look import IDENTITY_S, KEPT_S, environment_name, look, sees_code, this_python
from launch.deploy.onhost.tree import CODE_FOLDERS, Refused, code_hash, code_paths, listing, unpack


def archive_of(folder: Path, names: list[str], packed: bool = False) -> bytes:
    stream = io.BytesIO()
    write_archive(stream, [(name, folder / name) for name in names], packed=packed)
    return stream.getvalue()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "launch").mkdir(parents=True)
    (folder / "launch" / "__init__.py").write_bytes(b"x" * 100_000)
    (folder / "launch" / "run.sh").write_text("echo\n")
    (folder / "launch" / "run.sh").chmod(0o755)
    (folder / "setup.cfg").write_text("[options]\n")
    os.utime(folder / "setup.cfg", (1e9, 1e9))
    return folder


NAMES = ["launch/__init__.py", "launch/run.sh", "setup.cfg"]


@pytest.mark.parametrize("packed", [False, True])
def test_an_archive_arrives_as_it_was(packed: bool, source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    unpack(io.BytesIO(archive_of(source, NAMES, packed)), str(target), 3)
    assert listing(str(target)) == listing(str(source))
    assert code_hash(str(target)) == code_hash(str(source))
    assert os.access(target / "launch" / "run.sh", os.X_OK)
    assert os.stat(target / "setup.cfg").st_mtime == 1e9


@pytest.mark.parametrize("cut", [100, 50_000, 100_600, 101_376])
def test_an_archive_that_is_cut_short_leaves_nothing(cut: int, source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    request = {
        "folder": str(folder),
        "name": "code-x",
        "hash": code_hash(str(source)),
        "bytes": 1,
        "files": 3,
    }
    with pytest.raises((Refused, tarfile.TarError)):
        take.code(request, io.BytesIO(archive_of(source, NAMES)[:cut]))
    assert os.listdir(folder) == []


def test_other_content_is_refused(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    request = {"folder": str(folder), "name": "code-x", "hash": "0" * 16, "bytes": 1, "files": 3}
    with pytest.raises(Refused, match="is not the code that was sent"):
        take.code(request, io.BytesIO(archive_of(source, NAMES)))
    assert os.listdir(folder) == []


def test_a_full_disk_is_foreseen(source: Path, tmp_path: Path) -> None:
    request = {"folder": str(tmp_path), "name": "code-x", "hash": "", "bytes": 1 << 60, "files": 3}
    with pytest.raises(Refused, match=r"MiB free and 1099511627776 MiB are needed"):
        take.code(request, io.BytesIO(archive_of(source, NAMES)))


@pytest.mark.parametrize("name", ["../outside", "/outside", "a/../../outside", "."])
def test_nothing_is_written_outside(name: str, tmp_path: Path) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    stream.seek(0)
    (tmp_path / "in").mkdir()
    with pytest.raises(Refused, match="outside"):
        unpack(stream, str(tmp_path / "in"), 1)
    assert os.listdir(tmp_path) == ["in"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE])
def test_only_files_are_taken(kind: bytes, tmp_path: Path) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        member = tarfile.TarInfo("entry")
        member.type = kind
        member.linkname = "/etc/passwd"
        archive.addfile(member)
    stream.seek(0)
    with pytest.raises(Refused, match="entry in the archive is no file"):
        unpack(stream, str(tmp_path / "in"), 1)
    assert not (tmp_path / "in" / "entry").exists()


class TestSweep:
    """Looking at a folder removes what has not been used for 30 days."""

    def look(self, folder: Path, **keys: Any) -> dict[str, Any]:
        request = {
            "folder": str(folder),
            "run": "now",
            "code": "code-now",
            "hash": "x",
            "checkout": "/nowhere",
            "pins": "",
            "packages": [],
            "own": None,
            "given": None,
            "data": [],
        }
        return look(request | keys)

    def make(self, folder: Path, name: str, age_s: float) -> Path:
        path = folder / name
        path.mkdir(parents=True)
        (path / ".used").write_text("")
        for file in (path / ".used", path):
            os.utime(file, (time.time() - age_s,) * 2)
        return path

    def test_old_goes_and_the_rest_stays(self, tmp_path: Path) -> None:
        folder = tmp_path / "folder"
        for name, age_s in [
            ("code-old", KEPT_S + 60),
            ("code-recent", KEPT_S - 3600),
            ("env-old", KEPT_S + 60),
            ("env-recent", 0),
            (".making-code-x", 2 * 86400),
            (".making-code-y", 3600),
            ("data", 10 * KEPT_S),
            ("scratch", 10 * KEPT_S),
        ]:
            self.make(folder, name, age_s)
        answer = self.look(folder)
        assert answer["problem"] is None
        assert sorted(os.listdir(folder)) == [
            *(".identity-now", ".making-code-y", "code-recent", "data", "env-recent", "scratch"),
        ]

    def test_what_runs_stays(self, tmp_path: Path) -> None:
        folder = tmp_path / "folder"
        old = self.make(folder, "code-old", KEPT_S + 60)
        gone = self.make(folder, "code-older", KEPT_S + 60)
        with subprocess.Popen(
            [sys.executable, "-IS", "-c", "print(flush=True); input()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(old)},
        ) as agent:
            assert agent.stdout is not None
            agent.stdout.readline()
            self.look(folder)
            agent.communicate(b"\n")
        assert old.exists()
        assert not gone.exists()

    def test_the_one_in_use_stays_however_old(self, source: Path, tmp_path: Path) -> None:
        folder = tmp_path / "folder"
        code = self.make(folder, "code-now", 10 * KEPT_S)
        unpack(io.BytesIO(archive_of(source, NAMES)), str(code), 3)
        answer = self.look(folder, hash=code_hash(str(source)))
        assert answer["has_code"]
        assert time.time() - (code / ".used").stat().st_mtime < 60

    def test_folders_of_others_are_not_trusted(self, tmp_path: Path) -> None:
        folder = tmp_path / "folder"
        folder.mkdir()
        folder.chmod(0o777)
        assert "others could change" in self.look(folder)["unsafe"]

    def test_a_shared_folder_is_known_by_its_identity(self, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()
        (tmp_path / "link").symlink_to(tmp_path / "a")
        identities = [self.look(tmp_path / name)["identity"] for name in ("a", "link", "b", "a")]
        assert identities[0] == identities[1] == identities[3] != identities[2]

    def test_what_tells_folders_apart_is_of_one_run_and_goes(self, tmp_path: Path) -> None:
        first = self.look(tmp_path)["identity"]
        os.utime(tmp_path / ".identity-now", (time.time() - IDENTITY_S / 2,) * 2)
        assert self.look(tmp_path, run="other")["identity"] != first
        assert sorted(os.listdir(tmp_path)) == [".identity-now", ".identity-other"]
        os.utime(tmp_path / ".identity-now", (time.time() - IDENTITY_S - 60,) * 2)
        self.look(tmp_path, run="third")
        assert sorted(os.listdir(tmp_path)) == [".identity-other", ".identity-third"]


def test_what_runs_write_is_no_code(source: Path) -> None:
    before = code_hash(str(source))
    for name in (
        *("results/runs/a/x.json", "results/night1/a.json", "results/night1/manifest.json"),
        *("results/night1/job/x.toml", "launch/model.npz", "launch/.x.py", "launch/__pycache__/x.pyc"),
    ):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text("{}")
    assert code_hash(str(source)) == before
    (source / "results" / "templates").mkdir()
    (source / "results" / "templates" / "report.html.j2").write_text("")
    assert code_hash(str(source)) != before


def test_all_files_of_the_packages_are_code() -> None:
    root = Path(__file__).resolve().parents[2]
    listed = subprocess.run(
        ["git", "ls-files", *CODE_FOLDERS], cwd=root, capture_output=True, text=True, check=False
    )
    if listed.returncode != 0:
        pytest.skip("this is no git checkout")
    assert set(listed.stdout.split()) <= set(code_paths(str(root)))


def test_links_that_lead_round_are_named(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("")
    (tmp_path / "twice").symlink_to("a")
    assert sorted(listing(str(tmp_path))) == ["a/file", "b/file", "twice/file"]
    (tmp_path / "a" / "there").symlink_to("../b")
    (tmp_path / "b" / "back").symlink_to("../a")
    with pytest.raises(Refused, match="is a link that leads back to a folder that holds it"):
        listing(str(tmp_path))
    (tmp_path / "b" / "back").unlink()
    (tmp_path / "b" / "self").symlink_to("self")
    with pytest.raises(Refused, match="b/self is a link that leads to itself"):
        listing(str(tmp_path))


def test_a_colon_in_the_path_of_a_shared_checkout_means_a_copy(source: Path, tmp_path: Path) -> None:
    wanted = code_hash(str(source))
    assert sees_code(str(source), wanted)
    source.rename(tmp_path / "a:b")
    assert not sees_code(str(tmp_path / "a:b"), wanted)


def test_hosts_whose_python_lies_elsewhere_have_other_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [environment_name("pins", this_python())]
    monkeypatch.setattr(sys, "executable", "/opt/python3.11")
    names.append(environment_name("pins", this_python()))
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.17"))
    names.append(environment_name("pins", this_python()))
    assert len(set(names)) == 3


def test_what_is_marked_complete_is_never_removed(tmp_path: Path) -> None:
    target = tmp_path / "env-x"
    target.mkdir()
    (target / ".ready").write_text("")
    making = take._making(str(tmp_path), "env-x", 1, lambda path: False, mark="pip")
    with pytest.raises(Refused, match="env-x is complete and yet of no use here"), making:
        pass
    assert os.listdir(tmp_path) == ["env-x"]


def test_the_mark_is_set_after_all_else_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []
    with take._making(str(tmp_path), "env-x", 1, lambda path: True, mark="pip") as temporary:
        monkeypatch.setattr(os, "sync", lambda: seen.append(sorted(os.listdir(temporary))))
        Path(temporary, "file").write_text("")
    assert seen == [[".used", "file"]]
    assert sorted(os.listdir(tmp_path / "env-x")) == [".ready", ".used", "file"]


def test_python_is_described_as_the_kernel_and_the_interpreter_do() -> None:
    implementation, version, machine, libc, build = this_python()
    assert build == importlib.machinery.EXTENSION_SUFFIXES[0].split(".")[1]
    assert implementation == sys.implementation.name
    assert version == f"{sys.version_info.major}.{sys.version_info.minor}"
    assert machine == os.uname().machine
    assert libc in ("glibc", "other")
