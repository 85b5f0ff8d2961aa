"""The doctor on emulated hosts, each with an sshd, an address, a disk and a rate of its own."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from launch.cli import app
from tests.lab.hosts_file import write_hosts
from tests.lab.lab import Lab
from tests.lab.requirements import compiler

pytestmark = pytest.mark.lab
SLOW_MBPS = 20.0
LISTING = "ls -A ~ ~/.cache /tmp /dev/shm 2>&1; true"


def doctor(hosts: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["doctor", "--hosts", str(hosts), *arguments], env={"COLUMNS": "300"})


def rates(text: str) -> dict[tuple[str, str], float]:
    """Mbit/s by sender and receiver."""
    found = re.findall(r"^ (h\d+) +(h\d+) +[\d.e-]+ ms +([\d.e+]+) Mbit/s", text, re.MULTILINE)
    return {(sender, receiver): float(rate) for sender, receiver, rate in found}


def test_all_is_well_and_a_slow_host_is_seen(lab3: Lab, tmp_path: Path) -> None:
    lab3.rate(2, SLOW_MBPS)
    before = lab3.ssh(2, LISTING)
    result = doctor(write_hosts(lab3, tmp_path / "hosts.toml", ports="20000-20099"), "--all-pairs")
    assert result.exit_code == 0, result.output
    assert "all is well: default-comparison can run on these 3 hosts" in result.stdout
    for i in (1, 2, 3):
        assert re.search(
            rf"^ h{i} +yes +root .* {re.escape(lab3.network.address(i))} ", result.stdout, re.MULTILINE
        )
    measured = rates(result.stdout)
    assert len(measured) == 6
    for pair, rate in measured.items():
        # A machine that is busy with other things only makes it less.
        if "h2" in pair:
            assert 0.3 < rate < 1.05 * SLOW_MBPS, measured
    assert max(rate for pair, rate in measured.items() if "h2" not in pair) > 1.05 * SLOW_MBPS, measured
    assert lab3.ssh(2, LISTING) == before, "it leaves nothing"


def test_hosts_in_need_are_named_each_with_its_own(lab3: Lab, tmp_path: Path) -> None:
    extra = {
        1: {"python": "/usr/bin/env"},
        2: {
            "bind": lab3.network.address(3),
            "data": "/data of $(nobody)",
            "folder": "/srv/fixed/here",
        },
        3: {"folder": "/srv/small"},
    }
    lab3.host(2).read_only("/srv/fixed")
    lab3.host(3).small_disk("/srv/small", 1)
    lab3.exec(3, "dd", "if=/dev/zero", "of=/srv/small/file", "bs=64k", "count=64", check=False)
    result = doctor(write_hosts(lab3, tmp_path / "hosts.toml", extra=extra))
    assert result.exit_code == 3, result.output
    for words in (
        "host h1: no Python 3.11 or newer",
        "host h2: cannot write in /srv/fixed/here: Read-only file system",
        f"host h2: cannot listen on bind = {lab3.network.address(3)}: Cannot assign requested address",
        "host h2: data = '/data of $(nobody)' is no folder there",
        "host h3: cannot write in /srv/small: No space left on device",
    ):
        assert words in result.stderr


def test_the_clock_of_a_host(lab3: Lab, tmp_path: Path) -> None:
    if compiler() is None:
        pytest.skip("no C compiler; apt-get install tcc")
    lab3.host(3).clock_skew(300)
    result = doctor(write_hosts(lab3, tmp_path / "hosts.toml"))
    assert result.exit_code == 0, result.output
    (ahead,) = re.findall(r"^the clock of h3 is ([\d.]+) s ahead: harmless", result.stdout, re.MULTILINE)
    assert 295 < float(ahead) < 305
    assert "the clock of h1" not in result.stdout


def test_a_host_without_power_and_one_without_cable(lab3: Lab, tmp_path: Path) -> None:
    lab3.power_cut(2)
    lab3.pull_cable(3)
    hosts = write_hosts(lab3, tmp_path / "hosts.toml", python=sys.executable)
    began_s = time.monotonic()
    result = doctor(hosts)
    assert time.monotonic() - began_s < 60
    assert result.exit_code == 3
    assert re.search(r"^ h1 +yes ", result.stdout, re.MULTILINE)
    for i in (2, 3):
        assert re.search(rf"^host h{i}: (ssh: connect|no answer within)", result.stderr, re.MULTILINE)
