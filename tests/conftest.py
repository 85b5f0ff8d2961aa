"""What every test gets: a private temporary folder, hypothesis profiles, data folders, and a leak check."""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from hypothesis import settings

from tests.lab.fixtures import lab3, lab10, slurm3, ten_hosts, three_hosts, three_nodes
from tests.lab.lab import belongs_to_standing_lab

# Fixtures of emulated hosts, for every test (tests/lab/README.md).
__all__ = ["lab3", "lab10", "slurm3", "ten_hosts", "three_hosts", "three_nodes"]

MARK = "DECENTRAL_TEST_SESSION"
RUNS = Path(__file__).resolve().parents[1] / "results" / "runs"
SETTLE_S = 5.0
"""How long what a test started may take to be gone: the kernel closes and reaps a little after the call."""

# Kept until the interpreter ends, by design: by multiprocessing, matplotlib, torch and pytest.
LASTING = ("pymp-", "matplotlib-", "torch", "pytest-of-")

settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")


def pytest_configure(config: pytest.Config) -> None:
    """A temporary folder of this session's own, so that what others put into the shared one is no leak."""
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    os.environ[MARK] = uuid.uuid4().hex
    # Short: paths of Unix sockets below it must stay under 108 characters.
    tempfile.tempdir = os.environ["TMPDIR"] = tempfile.mkdtemp(
        prefix="dt-", dir=os.environ["PYTEST_DEBUG_TEMPROOT"]
    )


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove it."""
    shutil.rmtree(os.environ["TMPDIR"], ignore_errors=True)


@dataclass(frozen=True)
class Holdings:
    """What this process holds that a test could leave behind."""

    processes: frozenset[int]
    descriptors: frozenset[tuple[int, str]]
    files: frozenset[str]

    @classmethod
    def now(cls) -> Holdings:
        """Take stock."""
        temporary = tempfile.gettempdir()
        return cls(
            processes=frozenset(int(name) for name in os.listdir("/proc") if name.isdecimal()),
            descriptors=frozenset(_descriptors(temporary)),
            files=frozenset(name for name in os.listdir(temporary) if not name.startswith(LASTING)),
        )

    def leaks_since(self, before: Holdings) -> list[str]:
        """One line for everything of the test's that is here and was not there before."""
        processes = [text for pid in sorted(self.processes - before.processes) if (text := _ours(pid))]
        descriptors = [
            f"descriptor {fd} -> {target}" for fd, target in sorted(self.descriptors - before.descriptors)
        ]
        return processes + descriptors + [f"in TMPDIR: {name}" for name in sorted(self.files - before.files)]


def _descriptors(temporary: str) -> Iterator[tuple[int, str]]:
    """Open sockets, pipes, event and other anonymous descriptors, and files in temporary and run folders."""
    folders = (f"{temporary}/", f"{RUNS}/", os.environ["PYTEST_DEBUG_TEMPROOT"].rstrip("/") + "/pytest-")
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:  # that of the listing itself
            continue
        if target.startswith(("socket:", "pipe:", "anon_inode:", *folders)):
            yield int(name), target


def _ours(pid: int) -> str | None:
    """A line on process ``pid`` if a test started it: our child, or one that carries this session's mark.

    The mark finds those that outlived their parent, which nobody's list of children has. Emulated hosts that
    serve the whole session carry it too; what a test may not leave *on* them is their fixtures' to check.
    """
    try:
        process = psutil.Process(pid)
        child, zombie = process.ppid() == os.getpid(), process.status() == psutil.STATUS_ZOMBIE
        if zombie:
            return f"process {pid}: ended, never waited for" if child else None
        variables = process.environ()
        if belongs_to_standing_lab(variables):
            return None
        if child or variables.get(MARK) == os.environ[MARK]:
            return f"process {pid}: {' '.join(process.cmdline()) or process.name()}"
    except (psutil.NoSuchProcess, psutil.AccessDenied):  # gone meanwhile, or somebody else's
        pass
    return None


@pytest.fixture(autouse=True)
def nothing_leaks() -> Iterator[None]:
    """Fail a test that leaves a process, a socket, a pipe, an open file or a temporary file behind."""
    before = Holdings.now()
    yield
    leaks = Holdings.now().leaks_since(before)
    if not leaks:
        return
    # What only the garbage collector closes warns for itself (ResourceWarning is an error here).
    gc.collect()
    deadline = time.monotonic() + SETTLE_S
    while leaks and time.monotonic() < deadline:
        time.sleep(0.02)
        leaks = Holdings.now().leaks_since(before)
    if leaks:
        pytest.fail("the test left behind:\n" + "\n".join(leaks), pytrace=False)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of the data sets; skips the test where there is none."""
    named = os.environ.get("DECENTRAL_DATA")
    if not named:
        pytest.skip("DECENTRAL_DATA is unset; set it to the folder of the data sets")
    folder = Path(named)
    if not folder.is_dir():
        pytest.skip(f"DECENTRAL_DATA={named} is no folder")
    return folder
