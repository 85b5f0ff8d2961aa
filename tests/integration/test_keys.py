"""Keys of CURVE: secret ones are in the memory of their owners alone, public ones in nothing that is kept."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import psutil
import pytest
from zmq.utils import z85

from launch.executors.child import spawn
from launch.executors.fleet import Fleet
from launch.executors.starters import ENVIRONMENT, LocalStarter
from launch.hosts import Host
from tests.fleets import loopback
from tests.harness import SilentDisplay, arm, run
from tests.integration.leisurely import braked

KEY_BYTES = 40
AGENT = """
import os, sys, zmq
from launch import zygote
make = zmq.curve_keypair
def tell():
    pair = make()
    file = os.open({keys!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(file, b"".join(pair))
    os.close(file)
    return pair
zmq.curve_keypair = tell
zygote.main()
"""


class Telling(LocalStarter):
    """Agents that tell the test alone which keys they and their members make, in a file."""

    def __init__(self, keys: Path) -> None:
        super().__init__()
        self._program = AGENT.format(keys=str(keys))

    def start(self, host: Host, log: BinaryIO) -> subprocess.Popen[bytes]:
        return spawn(
            [sys.executable, "-P", "-c", self._program], stderr=log, env={**os.environ, **ENVIRONMENT}
        )


def keys_in(file: Path) -> tuple[list[bytes], list[bytes]]:
    """All public keys and all secret ones, z85."""
    told = file.read_bytes()
    keys = [told[i : i + KEY_BYTES] for i in range(0, len(told), KEY_BYTES)]
    return keys[::2], keys[1::2]


def leaked(file: Path, kept: list[Path]) -> list[str]:
    """Where public keys are in processes or in folders that are kept, and secret ones in any folder."""
    public, secret = keys_in(file)
    # Hosts' private folders, which only their user may enter, have the book of all members' public keys.
    return found(public, kept) + found(secret, [*kept, Path(os.environ["TMPDIR"])])


def found(keys: Iterable[bytes], folders: Iterable[Path]) -> list[str]:
    """Where a key is, as z85, hex or raw: arguments and environment of this process' family, files, names."""
    forms = [form for key in keys for form in _forms(key)]
    places: dict[str, bytes] = {}
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        for name in ("cmdline", "environ"):
            places[f"{name} of {process.pid}"] = Path(f"/proc/{process.pid}/{name}").read_bytes()
    for folder in folders:
        for path in folder.rglob("*"):
            places[f"name of {path}"] = os.fsencode(path)
            if path.is_file():
                places[str(path)] = path.read_bytes()
    return [place for place, content in places.items() if any(form in content for form in forms)]


def _forms(key: bytes) -> tuple[bytes, ...]:
    raw = z85.decode(key)
    return key, raw, raw.hex().encode()


class Searching(SilentDisplay):
    """Looks for keys in the middle of the run, when all members have met."""

    def __init__(self, keys: Path, kept: list[Path], brake: Path) -> None:
        super().__init__()
        self._keys, self._kept, self._brake = keys, kept, brake
        self.found: list[str] | None = None

    def progress(self, node: int, round: int, train_loss: float | None) -> None:
        super().progress(node, round, train_loss)
        if self.found is None:
            self.found = leaked(self._keys, self._kept)
            self._brake.touch()


def test_no_key_is_where_others_could_read_it(tmp_path: Path) -> None:
    keys, brake, scratch = tmp_path / "keys", tmp_path / "brake", tmp_path / "hosts"
    kept = [tmp_path / "run", scratch]
    made = arm(data=braked(brake, hold_at=3), checkpoint={"every": 2})
    display = Searching(keys, kept, brake)
    fleet = Fleet(loopback(2, folder=str(scratch)), Telling(keys))
    try:
        run(made, tmp_path / "run", executor=fleet, display=display)
    finally:
        fleet.close()
    # Of every node, the observer and the timekeeper.
    public, secret = keys_in(keys)
    assert len(set(public)) == len(set(secret)) >= made.nodes + 2
    assert display.found == []
    assert leaked(keys, kept) == []


@pytest.mark.parametrize("form", range(3))
def test_a_key_that_is_anywhere_is_found(form: int, tmp_path: Path) -> None:
    """In a file, in an argument, in a variable."""
    key = z85.encode(bytes(range(1, 33)))  # without a NUL, which no argument can have
    planted = _forms(key)[form]
    (tmp_path / "some.log").write_bytes(b'{"event":"header","key":"' + planted + b'"}\n')
    assert found([key], [tmp_path]) == [str(tmp_path / "some.log")]
    (tmp_path / "some.log").unlink()
    for words, variables in (([planted], {}), ([], {b"KEY": planted})):
        program = [b"/bin/cat", b"/dev/stdin", *words]
        with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              env=variables) as cat:  # fmt: skip
            places = found([key], [tmp_path])
            cat.communicate()
        assert places == [f"{'environ' if variables else 'cmdline'} of {cat.pid}"]
