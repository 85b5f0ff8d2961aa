"""Where data sets lie, how they get there, and how their arrays become memory that all nodes share.

Nothing here downloads by itself: ``require`` says what is missing, and only an explicit ``fetch`` of a task
calls ``download``. Work that must be done once per host is done under a lock file, written beside its
final name and renamed, so that another process sees all of it or nothing.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import json
import os
import re
import shutil
import stat
import tarfile
import tempfile
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.error import URLError
from urllib.parse import urlsplit

import numpy as np

from decentral.arrays import AnyArray
from decentral.errors import DataError, PreflightError

_CHUNK_BYTES = 1 << 20
_INDEX = "index.json"


def data_folder() -> Path:
    """The folder of raw data sets: ``$DECENTRAL_DATA``, else ``$XDG_DATA_HOME/decentral``."""
    return _folder("DECENTRAL_DATA", "XDG_DATA_HOME", ".local/share")


def cache_folder() -> Path:
    """The folder of mapped arrays: ``$DECENTRAL_CACHE``, else ``$XDG_CACHE_HOME/decentral``."""
    return _folder("DECENTRAL_CACHE", "XDG_CACHE_HOME", ".cache")


def require(
    folder: Path,
    files: Mapping[str, str | None],
    what: str,
    hint: str,
    *,
    sizes: Mapping[str, int] | None = None,
    checksums: bool = False,
) -> Path:
    """Return ``folder`` if it holds every file of ``files``.

    Args:
        folder: where the files should be, usually ``data_folder() / <set>``.
        files: md5 of every file by its name relative to ``folder``; None where any content will do.
        what: the data set's name for the message.
        hint: the next step for the user, e.g. which command fetches the set.
        sizes: length in bytes of (some of) the files.
        checksums: also read every file and compare its md5 (0.4 s for 180 MB); without it the check costs
            one ``stat`` per file.

    Raises:
        DataError: files are missing or differ; names each of them and the folder.
    """
    sizes = sizes or {}
    faults = []
    for name, md5 in files.items():
        path = folder / name
        if not path.is_file():
            faults.append(f"{name} is missing")
        elif name in sizes and path.stat().st_size != sizes[name]:
            faults.append(f"{name} has {path.stat().st_size} bytes instead of {sizes[name]}")
        elif checksums and md5 is not None and (found := file_md5(path)) != md5:
            faults.append(f"{name} has md5 {found} instead of {md5}")
    if faults:
        raise DataError(f"{what} in {folder}: {'; '.join(faults)}; put the original files there: {hint}")
    return folder


def file_md5(path: Path) -> str:
    """Hexadecimal md5 of a file, as data sets publish it (no protection against malice)."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, _md5).hexdigest()


def download(
    url: str,
    target_folder: Path,
    md5: str | None,
    *,
    produces: Sequence[str],
    timeout_s: float = 30.0,
) -> Path:
    """Fetch ``url`` into ``target_folder``, unpacking it if it is a tar or zip file.

    Safe to call from several processes at once: one works, the others wait and find the files there.

    Args:
        url: http or https.
        target_folder: made if absent. Archives keep the folders inside them.
        md5: checksum of what the URL serves, or None where its home publishes changing files.
        produces: paths under ``target_folder`` that the download must give; nothing is fetched when all of
            them exist.
        timeout_s: longest silence of the server.

    Raises:
        DataError: no network, wrong checksum, an archive that writes outside the folder or lacks a file.
        PreflightError: ``target_folder`` cannot be written.
    """
    name = PurePosixPath(urlsplit(url).path).name
    if urlsplit(url).scheme not in ("http", "https") or not name:
        raise DataError(f"download {url}: expected the http or https address of a file")
    with _lock(target_folder / f".{name}.lock"), _writing(target_folder):
        if all((target_folder / path).exists() for path in produces):
            return target_folder
        with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=target_folder) as scratch:
            received = Path(scratch) / name
            found = _receive(url, received, target_folder, produces, timeout_s)
            if md5 is not None and found != md5:
                raise DataError(f"download {url}: md5 is {found} instead of {md5}; get it by hand")
            unpacked = Path(scratch) / "unpacked"
            unpacked.mkdir()
            _unpack(received, unpacked)
            if absent := [path for path in produces if not (unpacked / path).exists()]:
                raise DataError(f"download {url}: {', '.join(absent)} not in it; get the files by hand")
            for path in sorted(item for item in unpacked.rglob("*") if item.is_file()):
                final = target_folder / path.relative_to(unpacked)
                final.parent.mkdir(parents=True, exist_ok=True)
                path.replace(final)
    return target_folder


def mapped(key: str, build: Callable[[], dict[str, AnyArray]]) -> dict[str, AnyArray]:
    """The arrays that ``build`` gives, built once per host and mapped read-only from files.

    A shared file mapping costs a forked process neither memory nor page tables.

    Args:
        key: names content *and* version of the arrays, e.g. ``cifar10-v1-<hash of the checksums>``; whoever
            changes ``build`` changes the key.
        build: called at most once per key and cache folder, by one process while the others wait.

    Raises:
        PreflightError: the cache cannot be written (full disk) or was damaged; names the folder.
    """
    if re.fullmatch(r"[\w.-]+", key) is None or key.startswith("."):
        raise ValueError(f"mapped({key!r}): a key is one file name of letters, digits, '.', '_', '-'")
    folder = cache_folder() / key
    if not folder.is_dir():
        with _lock(folder.parent / f".{key}.lock"):
            if not folder.is_dir():
                _write_arrays(folder, build)
    return _open_arrays(folder)


def _folder(variable: str, xdg_variable: str, below_home: str) -> Path:
    if own := os.environ.get(variable):
        return Path(own).expanduser().absolute()
    # The XDG specification says that relative paths are to be ignored.
    xdg = os.environ.get(xdg_variable, "")
    return (Path(xdg) if xdg.startswith("/") else Path.home() / below_home) / "decentral"


def _md5() -> hashlib._Hash:
    return hashlib.md5(usedforsecurity=False)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        # numpy reports a short write without errno, hence without strerror.
        raise PreflightError(
            f"cannot write in {folder}: {error.strerror or error}; free space there or choose another folder"
            " with DECENTRAL_DATA (data sets) or DECENTRAL_CACHE (mapped arrays)"
        ) from error


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Exclusive between processes, waiting without limit; the kernel frees it when its holder dies.

    The file stays: removing it would let a third process lock a new file of the same name.
    """
    with _writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _receive(url: str, target: Path, folder: Path, produces: Sequence[str], timeout_s: float) -> str:
    by_hand = f"put {', '.join(produces)} into {folder} by hand"
    if os.environ.get("DECENTRAL_OFFLINE"):
        raise DataError(f"download {url}: DECENTRAL_OFFLINE is set; unset it or {by_hand}")
    digest = _md5()
    with target.open("wb") as file:
        try:
            with urllib.request.urlopen(url, timeout=timeout_s) as response:
                promised = response.headers.get("Content-Length")
                while chunk := response.read(_CHUNK_BYTES):
                    digest.update(chunk)
                    file.write(chunk)
        except (URLError, HTTPException, TimeoutError, ConnectionError) as error:
            raise DataError(f"download {url}: {error}; {by_hand}") from error
        if promised is not None and int(promised) != file.tell():
            raise DataError(f"download {url}: {file.tell()} of {promised} bytes came; try again or {by_hand}")
    return digest.hexdigest()


def _unpack(archive: Path, into: Path) -> None:
    """Copy the regular files of a tar or zip file; a file that is neither is moved."""
    try:
        if tarfile.is_tarfile(archive):
            _unpack_tar(archive, into)
        elif zipfile.is_zipfile(archive):
            _unpack_zip(archive, into)
        else:
            archive.replace(into / archive.name)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DataError(f"{archive.name}: damaged archive ({error}); get it by hand") from error


def _unpack_tar(archive: Path, into: Path) -> None:
    with tarfile.open(archive) as tar:
        for member in tar:
            content = tar.extractfile(member) if member.isfile() else None
            if content is not None:
                _copy(content, _inside(into, member.name, archive))
            elif not member.isdir():
                raise DataError(f"{archive.name}: {member.name} is no regular file; get the set elsewhere")


def _unpack_zip(archive: Path, into: Path) -> None:
    with zipfile.ZipFile(archive) as zipped:
        for info in zipped.infolist():
            if stat.S_ISLNK(info.external_attr >> 16):
                raise DataError(f"{archive.name}: {info.filename} is no regular file; get the set elsewhere")
            if not info.is_dir():
                _copy(zipped.open(info), _inside(into, info.filename, archive))


def _inside(folder: Path, name: str, archive: Path) -> Path:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        raise DataError(f"{archive.name}: {name} lies outside the archive's folder; get it elsewhere")
    return folder / path


def _copy(content: IO[bytes], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with content, target.open("wb") as file:
        shutil.copyfileobj(content, file, _CHUNK_BYTES)


def _write_arrays(folder: Path, build: Callable[[], dict[str, AnyArray]]) -> None:
    arrays = build()
    with _writing(folder.parent):
        for leftover in folder.parent.glob(f".{folder.name}.*.tmp"):  # of a builder that was killed
            shutil.rmtree(leftover)
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
        try:
            for name, array in arrays.items():
                with (scratch / f"{name}.npy").open("wb") as file:
                    np.save(file, np.ascontiguousarray(array), allow_pickle=False)
                    file.flush()
                    os.fsync(file.fileno())
            (scratch / _INDEX).write_text(json.dumps(sorted(arrays)))
            scratch.rename(folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    # With raised malloc thresholds freed arrays stay in the heap, and every fork would copy its page tables.
    arrays.clear()
    if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)


def _open_arrays(folder: Path) -> dict[str, AnyArray]:
    try:
        names = json.loads((folder / _INDEX).read_text())
        # asarray: np.memmap makes every later indexing pay for its bookkeeping.
        return {name: np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r")) for name in names}
    except (OSError, ValueError) as error:
        raise PreflightError(
            f"{folder} is damaged ({error}); delete that folder to have it made again"
        ) from error
