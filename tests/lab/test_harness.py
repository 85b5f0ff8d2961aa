"""The emulated hosts themselves: what they are, what can be done to them, and that nothing remains."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.commands import LabError
from tests.lab.hosts_file import hosts_toml
from tests.lab.lab import Lab
from tests.lab.registry import clear, labs
from tests.lab.requirements import compiler, unmet
from tests.lab.slurm import Slurm
from tests.lab.traces import traces

pytestmark = pytest.mark.lab
ALL = (1 << 41) - 1


@pytest.fixture
def machine() -> Iterator[None]:
    """Skips where there can be no hosts; fails if the test leaves anything of a lab on the machine."""
    if reason := unmet():
        pytest.skip(reason)
    before = traces()
    yield
    assert gone(before) == set()


def gone(before: set[str]) -> set[str]:
    """What is new since ``before`` and stays so for 10 s; the kernel removes namespaces a little later."""
    deadline = time.monotonic() + 10
    while new := traces() - before:
        if time.monotonic() > deadline:
            return new
        time.sleep(0.05)
    return set()


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"platform": "darwin"}, "need Linux namespaces; this is darwin"),
        ({"uid": 1000}, "need root; this is user 1000"),
        ({"uid": 0, "capabilities": ALL & ~(1 << 21)}, "need CAP_SYS_ADMIN;"),
        ({"uid": 0, "capabilities": 0}, "need CAP_NET_ADMIN and CAP_SYS_ADMIN;"),
    ],
)
def test_what_is_missing_is_said(facts: dict[str, object], words: str) -> None:
    reason = unmet(**{"which": lambda command: command, **facts})  # type: ignore[arg-type]
    assert reason is not None
    assert words in reason


def test_missing_commands_are_named_with_their_packages() -> None:
    def which(command: str) -> str | None:
        return None if command in ("sshd", "tc", "ip", "slurmd") else command

    reason = unmet(platform="linux", uid=0, capabilities=ALL, which=which)
    assert reason == "emulated hosts need ip, tc, sshd; apt-get install iproute2 openssh-server"
    with_slurm = unmet(slurm=True, platform="linux", uid=0, capabilities=ALL, which=which)
    assert with_slurm is not None
    assert with_slurm.endswith("apt-get install iproute2 openssh-server slurmd")
    assert unmet(slurm=True, platform="linux", uid=0, capabilities=ALL, which=lambda name: name) is None


def test_hosts_are_hosts_of_their_own(lab3: Lab) -> None:
    assert [lab3.ssh(i, "hostname").strip() for i in (1, 2, 3)] == ["h1", "h2", "h3"]
    lab3.exec(1, "sh", "-c", "echo mine >/tmp/file; echo mine >/opt/lab-file; echo mine >/dev/shm/file")
    for path in ("/tmp/file", "/opt/lab-file", "/dev/shm/file"):
        assert lab3.exec(1, "cat", path).stdout == "mine\n"
        assert lab3.exec(2, "test", "-e", path, check=False).returncode == 1
        assert not Path(path).exists()
    assert lab3.exec(1, "test", "-e", __file__, check=False).returncode == 1  # code must be brought
    assert lab3.ssh(1, "ssh h2 hostname") == "h2\n"
    interfaces = lab3.exec(3, "ip", "-br", "-4", "addr").stdout.split()
    assert f"{lab3.addresses['h3']}/24" in interfaces
    assert lab3.exec(3, "ip", "route", "get", "8.8.8.8", check=False).returncode != 0
    clocks = [float(lab3.exec(i, "cat", "/proc/uptime").stdout.split()[0]) for i in (1, 2)]
    assert 900 < clocks[1] - clocks[0] < 1100


def test_shown_python_runs_in_hosts(lab3: Lab) -> None:
    assert (
        lab3.ssh(1, f"{sys.executable} -P -c 'import msgpack, sys; print(sys.prefix)'").strip() == sys.prefix
    )
    assert lab3.exec(1, "touch", f"{sys.prefix}/file", check=False).returncode != 0


def test_power_cut_and_boot(lab3: Lab) -> None:
    lab3.exec(2, "sh", "-c", "echo kept >/srv/file")
    command = ["ssh", "-F", str(lab3.ssh_config), "-o", "ServerAliveInterval=1", "h2", "sleep 1000"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as session:
        wait_until(lambda: "sleep 1000" in [process.command for process in lab3.processes(2)])
        lab3.power_cut(2)
        with pytest.raises(subprocess.TimeoutExpired):
            session.wait(0.5)  # nothing of its end came out
        assert session.wait(30) == 255  # ServerAlive
    with pytest.raises(LabError, match=r"h2 of lab.* is off"):
        lab3.exec(2, "true")
    lab3.boot(2)
    assert lab3.ssh(2, "cat /srv/file") == "kept\n"
    assert lab3.processes(2) == []


def test_cable(lab3: Lab) -> None:
    lab3.pull_cable(1)
    command = ["ssh", "-F", str(lab3.ssh_config), "-o", "ConnectTimeout=1", "h1", "true"]
    assert subprocess.run(command, check=False, capture_output=True).returncode == 255
    assert lab3.exec(1, "hostname").stdout == "h1\n"  # it runs
    lab3.plug_cable(1)
    assert lab3.ssh(1, "hostname") == "h1\n"


def test_rate(lab3: Lab) -> None:
    lab3.rate(1, 40)
    begin = time.monotonic()
    lab3.ssh(1, "head -c 4000000 /dev/zero")
    assert time.monotonic() - begin > 4e6 * 8 / 40e6 * 0.9


def test_orphans_are_seen_and_ended(lab3: Lab) -> None:
    lab3.ssh(3, "setsid -f sleep 1234 </dev/null >/dev/null 2>&1")
    _, left = lab3.quiet(0.2)
    assert len(left) == 1
    assert left[0].startswith("h3: ")
    assert left[0].endswith("sleep 1234")
    lab3.end_strangers()
    assert lab3.quiet(5)[1] == []


def test_disks(lab3: Lab) -> None:
    lab3.host(1).small_disk("/srv/small", 1)
    full = lab3.exec(1, "dd", "if=/dev/zero", "of=/srv/small/file", "bs=64k", "count=64", check=False)
    assert "No space left on device" in full.stderr
    lab3.host(2).read_only("/srv/fixed")
    refused = lab3.exec(2, "touch", "/srv/fixed/file", check=False)
    assert "Read-only file system" in refused.stderr
    lab3.restore()
    lab3.exec(1, "dd", "if=/dev/zero", "of=/srv/small/file", "bs=64k", "count=64")
    lab3.exec(2, "touch", "/srv/fixed/file")


def test_clock_skew(lab3: Lab) -> None:
    if compiler() is None:
        pytest.skip("no C compiler; apt-get install tcc")
    lab3.host(2).clock_skew(-240)
    read = f"{sys.executable} -c 'import time; print(time.time(), time.monotonic())'"
    before = time.time()
    skewed, monotonic = (float(word) for word in lab3.ssh(2, read).split())
    assert -240 <= skewed - before < -180
    naps = f"{sys.executable} -c 'import time; [time.sleep(1e-3) for _ in range(100)]'"
    assert lab3.ssh(2, naps) == ""
    assert 1900 < monotonic - time.monotonic() < 2100
    lab3.restore()
    assert -1 < float(lab3.ssh(2, read).split()[0]) - before < 60


def test_shared_folder(machine: None, tmp_path: Path) -> None:
    with Lab(2, shared=[tmp_path], mtu=1400) as lab:
        lab.exec(1, "sh", "-c", f"echo all >{tmp_path}/file")
        assert lab.exec(2, "cat", f"{tmp_path}/file").stdout == "all\n"
        assert (tmp_path / "file").read_text() == "all\n"
        assert "mtu 1400" in lab.exec(1, "ip", "link", "show", "eth0").stdout


def test_two_labs_at_once(machine: None) -> None:
    with Lab(1) as one, Lab(2) as other:
        assert one.network.prefix != other.network.prefix
        assert one.ssh(1, "hostname") == other.ssh(1, "hostname") == "h1\n"
        assert other.ssh(1, "ssh h2 hostname") == "h2\n"


def test_nothing_is_left_of_a_failed_start(machine: None) -> None:
    lab = Lab(2, shown=["/nowhere"])
    with pytest.raises(LabError, match=r"host h1 did not start.*nowhere"):
        lab.up()
    assert not lab.folder.exists()


OWNER = """
import sys
from tests.lab.lab import Lab
with Lab(2) as lab:
    print(lab.folder, flush=True)
    sys.stdin.read()
"""


def test_nothing_is_left_of_a_killed_owner(machine: None) -> None:
    command = [sys.executable, "-P", "-c", OWNER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        folder = Path(owner.stdout.readline().strip())
        assert len(list(folder.glob("*.pid"))) == 3
        owner.kill()
    wait_until(lambda: not folder.exists())


def test_nothing_is_left_where_the_keeper_is_killed_as_well(machine: None) -> None:
    command = [sys.executable, "-P", "-c", OWNER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        folder = Path(owner.stdout.readline().strip())
        os.kill(int((folder / "keeper.pid").read_text().split()[0]), signal.SIGKILL)
        owner.kill()
    # By name: labs that others have made on this machine are theirs.
    down = [sys.executable, "-P", "-m", "tests.lab", "--lab", folder.name, "down"]
    done = subprocess.run(down, capture_output=True, text=True, check=True)
    assert f"{folder.name} is gone" in done.stdout
    assert not folder.exists()


def test_command_line(machine: None) -> None:
    def lab(*words: str) -> str:
        command = [sys.executable, "-P", "-m", "tests.lab", *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    name = lab("up", "1").partition(":")[0]
    try:
        assert lab("--lab", name, "exec", "1", "hostname") == "h1\n"
        lab("--lab", name, "cut", "1")
        lab("--lab", name, "boot", "1")
        assert "sshd" in lab("--lab", name, "processes", "1")
        assert name in lab("list")
    finally:
        clear(labs()[name])
    assert name not in labs()


def test_slurm(slurm3: Slurm) -> None:
    assert sorted(slurm3.run("srun", "-N3", "--chdir=/", "hostname").stdout.split()) == ["h1", "h2", "h3"]
    inside = slurm3.lab.ssh(2, "srun -N3 -l hostname")
    assert sorted(inside.splitlines()) == ["0: h1", "1: h2", "2: h3"]
    names = slurm3.run("salloc", "-N3", "sh", "-c", "echo $SLURM_JOB_NODELIST").stdout
    assert names == "h[1-3]\n"


def test_slurm_after_a_power_cut(slurm3: Slurm) -> None:
    slurm3.lab.power_cut(3)
    slurm3.restore()
    assert sorted(slurm3.run("srun", "-N3", "--chdir=/", "hostname").stdout.split()) == ["h1", "h2", "h3"]


def test_hosts_file(lab3: Lab) -> None:
    import tomllib

    table = tomllib.loads(hosts_toml(lab3, hosts=[1, 3], folder='a "b"', extra={3: {"ports": "1-2"}}))
    assert table["defaults"]["ssh_options"] == ["-F", str(lab3.ssh_config)]
    assert table["defaults"]["folder"] == 'a "b"'
    assert [host["name"] for host in table["host"]] == ["h1", "h3"]
    assert table["host"][1]["ports"] == "1-2"
    assert table["host"][1]["address"] == lab3.addresses["h3"]


def wait_until(condition: object) -> None:
    """Wait up to 20 s for ``condition()``."""
    assert callable(condition)
    deadline = time.monotonic() + 20
    for _ in itertools.count():
        if condition():
            return
        assert time.monotonic() < deadline, "it did not come true within 20 s"
        time.sleep(0.02)
