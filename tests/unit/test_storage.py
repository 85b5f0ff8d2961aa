"""Downloads, checks and mapped arrays; the only server is one on the loopback interface."""

from __future__ import annotations

import errno
import hashlib
import io
import multiprocessing
import os
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from decentral.arrays import AnyArray
from decentral.errors import DataError, PreflightError
from decentral.tasks import storage


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DECENTRAL_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("DECENTRAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DECENTRAL_OFFLINE", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


class _CountingHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.server.requested.append(self.path)  # type: ignore[attr-defined]
        super().do_GET()


class Site:
    """A loopback web server over a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_CountingHandler, directory=str(folder)))
        self.requested: list[str] = []
        self._server.requested = self.requested  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/{name}"

    def put(self, name: str, content: bytes) -> str:
        """Serve ``content`` and return its md5."""
        (self.folder / name).write_bytes(content)
        return hashlib.md5(content).hexdigest()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    folder = tmp_path / "site"
    folder.mkdir()
    served = Site(folder)
    yield served
    served.close()


def tar_of(*members: tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def zip_of(*members: tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zipped:
        for name, content in members:
            zipped.writestr(name, content)
    return buffer.getvalue()


def test_folders_follow_environment_then_xdg_then_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("DECENTRAL_DATA", "~/sets")
    assert storage.data_folder() == Path("/home/me/sets")
    monkeypatch.delenv("DECENTRAL_DATA")
    monkeypatch.delenv("DECENTRAL_CACHE")
    monkeypatch.setenv("XDG_DATA_HOME", "/xdg")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/ignored")
    assert storage.data_folder() == Path("/xdg/decentral")
    assert storage.cache_folder() == Path("/home/me/.cache/decentral")


def test_require_names_every_fault(tmp_path: Path) -> None:
    (tmp_path / "good").write_bytes(b"abc")
    (tmp_path / "short").write_bytes(b"ab")
    (tmp_path / "changed").write_bytes(b"abd")
    md5 = hashlib.md5(b"abc").hexdigest()
    files = {"good": md5, "short": md5, "changed": md5, "absent": None}
    with pytest.raises(DataError) as caught:
        storage.require(tmp_path, files, "a set", "run x", sizes={"good": 3, "short": 3}, checksums=True)
    message = str(caught.value)
    assert "good" not in message
    assert all(
        part in message for part in (str(tmp_path), "short has 2 bytes instead of 3", "absent", "run x")
    )
    assert f"changed has md5 {hashlib.md5(b'abd').hexdigest()}" in message
    with pytest.raises(DataError, match="absent is missing"):  # without checksums contents are not read
        storage.require(tmp_path, {"changed": md5, "absent": None}, "a set", "run x")
    assert storage.require(tmp_path, {"good": md5}, "a set", "run x", checksums=True) == tmp_path


@pytest.mark.parametrize("pack", [tar_of, zip_of])
def test_download_unpacks_once(site: Site, tmp_path: Path, pack: object) -> None:
    md5 = site.put("set.tgz", pack(("set/a", b"1"), ("set/sub/b", b"2")))  # type: ignore[operator]
    for _ in range(2):
        storage.download(site.url("set.tgz"), tmp_path / "data", md5, produces=["set/a", "set/sub/b"])
    assert site.requested == ["/set.tgz"]
    assert (tmp_path / "data/set/sub/b").read_bytes() == b"2"
    assert {path.name for path in (tmp_path / "data").iterdir()} == {"set", ".set.tgz.lock"}


def test_download_keeps_a_plain_file(site: Site, tmp_path: Path) -> None:
    md5 = site.put("ratings.csv", b"1,2,3\n")
    storage.download(site.url("ratings.csv"), tmp_path / "data", md5, produces=["ratings.csv"])
    assert (tmp_path / "data/ratings.csv").read_bytes() == b"1,2,3\n"


def test_download_refuses_a_wrong_checksum(site: Site, tmp_path: Path) -> None:
    site.put("set.tgz", tar_of(("a", b"1")))
    with pytest.raises(DataError, match=f"instead of {'0' * 32}"):
        storage.download(site.url("set.tgz"), tmp_path / "data", "0" * 32, produces=["a"])
    assert not (tmp_path / "data/a").exists()


@pytest.mark.parametrize("name", ["../outside", "/outside", "in/../../outside"])
@pytest.mark.parametrize("pack", [tar_of, zip_of])
def test_download_refuses_paths_outside(site: Site, tmp_path: Path, name: str, pack: object) -> None:
    md5 = site.put("set.tgz", pack((name, b"1")))  # type: ignore[operator]
    with pytest.raises(DataError, match="outside"):
        storage.download(site.url("set.tgz"), tmp_path / "data", md5, produces=["a"])
    assert not list(tmp_path.rglob("outside"))


def test_download_refuses_links(site: Site, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo("a")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/hostname"
        tar.addfile(info)
    md5 = site.put("set.tar", buffer.getvalue())
    with pytest.raises(DataError, match="a is no regular file"):
        storage.download(site.url("set.tar"), tmp_path / "data", md5, produces=["a"])


def test_download_reports_a_damaged_archive_and_an_absent_file(site: Site, tmp_path: Path) -> None:
    site.put("cut.tgz", tar_of(("a", os.urandom(100_000)))[:50_000])
    with pytest.raises(DataError, match=r"cut\.tgz: damaged archive"):
        storage.download(site.url("cut.tgz"), tmp_path / "data", None, produces=["a"])
    site.put("set.tgz", tar_of(("a", b"1")))
    with pytest.raises(DataError, match="b not in it"):
        storage.download(site.url("set.tgz"), tmp_path / "data", None, produces=["a", "b"])


def test_download_without_network_says_which_files_to_put_where(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "data"
    expected = rf"put set/a, set/b into {target} by hand"
    with pytest.raises(DataError, match=f"404.*{expected}"):
        storage.download(site.url("absent.tgz"), target, None, produces=["set/a", "set/b"])
    monkeypatch.setenv("DECENTRAL_OFFLINE", "1")
    with pytest.raises(DataError, match=f"DECENTRAL_OFFLINE is set; unset it or {expected}"):
        storage.download(site.url("set.tgz"), target, None, produces=["set/a", "set/b"])
    with pytest.raises(DataError, match="http or https"):
        storage.download("file:///etc/hostname", target, None, produces=["hostname"])
    assert site.requested == ["/absent.tgz"]


def test_two_processes_download_once(site: Site, tmp_path: Path) -> None:
    md5 = site.put("set.tgz", tar_of(("a", b"1")))
    fork = multiprocessing.get_context("fork")
    fetch = partial(storage.download, site.url("set.tgz"), tmp_path / "data", md5, produces=["a"])
    workers = [fork.Process(target=fetch) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert site.requested == ["/set.tgz"]


def build_small() -> dict[str, AnyArray]:
    return {"inputs": np.arange(12, dtype=np.uint8).reshape(3, 4), "labels": np.array([2, 0, 1])}


def test_mapped_arrays_are_files_and_read_only() -> None:
    built = storage.mapped("small-v1", build_small)
    again = storage.mapped("small-v1", lambda: pytest.fail("built twice"))
    for name, expected in build_small().items():
        for array in (built[name], again[name]):
            np.testing.assert_array_equal(array, expected)
            assert not array.flags.writeable
    maps = Path("/proc/self/maps").read_text()
    assert str(storage.cache_folder() / "small-v1" / "inputs.npy") in maps


def test_two_processes_build_the_same_key_once(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    ready, log = fork.Barrier(2), tmp_path / "builds"

    def build() -> dict[str, AnyArray]:
        with log.open("a") as file:
            file.write(f"{os.getpid()}\n")
        return {"values": np.arange(200_000)}

    def work() -> None:
        ready.wait()
        assert storage.mapped("shared-v1", build)["values"].sum() == 199_999 * 100_000

    workers = [fork.Process(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert len(log.read_text().splitlines()) == 1


def test_a_builder_that_dies_leaves_nothing_that_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: object, **__: object) -> None:
        os._exit(7)

    def half() -> None:
        monkeypatch.setattr(os, "fsync", die)
        storage.mapped("half-v1", build_small)

    process = multiprocessing.get_context("fork").Process(target=half)
    process.start()
    process.join()
    assert process.exitcode == 7
    leftovers = [path.name for path in storage.cache_folder().glob(".half-v1.*.tmp")]
    assert len(leftovers) == 1
    np.testing.assert_array_equal(storage.mapped("half-v1", build_small)["labels"], [2, 0, 1])
    assert not list(storage.cache_folder().glob(".half-v1.*.tmp"))


def test_full_disk_names_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(PreflightError, match=rf"cannot write in {storage.cache_folder()}: No space left"):
        storage.mapped("full-v1", build_small)
    assert [path.name for path in storage.cache_folder().iterdir()] == [".full-v1.lock"]


def test_damaged_cache_and_bad_key_are_refused() -> None:
    storage.mapped("small-v1", build_small)
    file = storage.cache_folder() / "small-v1" / "inputs.npy"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(PreflightError, match=r"small-v1 is damaged .*delete that folder"):
        storage.mapped("small-v1", build_small)
    with pytest.raises(ValueError, match="one file name"):
        storage.mapped("../escape", build_small)
