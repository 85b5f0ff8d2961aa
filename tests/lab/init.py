"""Process 1 of an emulated host. Runs as a script; uses nothing but the standard library.

It is started in new network, mount, pid, uts, ipc and time namespaces. Standard input brings one JSON line
(``Plan``); it makes the host's file system, answers with one line, its number as the machine sees it, and
waits for the line ``go``, which says that the cable is in. Then it starts sshd and reaps orphans for ever.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

CONFIGURATION = """\
ListenAddress {address}
HostKey /etc/ssh/lab_host_key
AuthorizedKeysFile /etc/ssh/lab_authorized_keys
PidFile /run/sshd.pid
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
PrintMotd no
PrintLastLog no
X11Forwarding no
MaxStartups 200
MaxSessions 200
LogLevel ERROR
Subsystem sftp internal-sftp
Include /etc/ssh/lab_environment
"""
SESSION_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def mount(*arguments: str | Path) -> None:
    """mount(8)."""
    subprocess.run(["mount", *map(str, arguments)], check=True, stdin=subprocess.DEVNULL)


def overlay(disk: Path) -> Path:
    """A private copy-on-write image of the machine's root; what is written goes to ``disk``."""

    def over(folder: Path) -> bool:
        for name in ("upper", "work", "root", "private"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        layers = f"lowerdir=/,upperdir={folder}/upper,workdir={folder}/work"
        done = subprocess.run(
            ["mount", "-t", "overlay", "overlay", "-o", layers, f"{folder}/root"], check=False
        )
        return done.returncode == 0

    if not over(disk):
        # Where / is itself an overlay it cannot be an upper layer: memory can.
        mount("-t", "tmpfs", "tmpfs", disk)
        if not over(disk):
            raise SystemExit(f"no overlay of / can be made, on disk or in memory ({disk})")
    return disk / "root"


def furnish(root: Path, plan: dict[str, Any]) -> None:
    """Mount what a host has of its own, and what it is shown of the machine."""
    mount("-t", "proc", "proc", root / "proc")
    mount("-t", "sysfs", "sysfs", root / "sys")
    if os.path.ismount("/sys/fs/cgroup"):  # slurmd does not start without
        mount("--rbind", "/sys/fs/cgroup", root / "sys/fs/cgroup")
    mount("--rbind", "/dev", root / "dev")
    mount("-t", "tmpfs", "-o", "mode=1777", "shm", root / "dev/shm")
    mount("-t", "devpts", "-o", "newinstance,ptmxmode=0666,mode=620,gid=5", "devpts", root / "dev/pts")
    mount("-t", "tmpfs", "-o", "mode=755", "run", root / "run")
    (root / "run/sshd").mkdir()
    (root / "run/lock").mkdir()
    for hidden in plan["hidden"]:
        if (place := inside(root, hidden)).is_dir():
            own = Path(plan["disk"], "private", hidden.strip("/").replace("/", "+"))
            own.mkdir(exist_ok=True)
            shutil.copymode(place, own)
            mount("--bind", own, place)
    for shown in plan["shown"]:
        place = inside(root, shown)
        place.mkdir(parents=True, exist_ok=True)
        mount("--bind", shown, place)
        mount("-o", "remount,bind,ro", place)
    for shared in plan["shared"]:
        place = inside(root, shared)
        place.mkdir(parents=True, exist_ok=True)
        mount("--bind", shared, place)


def inside(root: Path, path: str) -> Path:
    """Where the machine's ``path`` is in the host."""
    return root / path.lstrip("/")


def name_it(root: Path, plan: dict[str, Any]) -> None:
    """Host name, names of the other hosts, no name service, and the keys of ssh in both directions."""
    socket.sethostname(plan["name"])
    (root / "etc/hostname").write_text(plan["name"] + "\n")
    (root / "etc/hosts").write_text(plan["etc_hosts"])
    (root / "etc/resolv.conf").unlink(missing_ok=True)
    (root / "etc/resolv.conf").touch()
    shadow = root / "etc/shadow"
    # sshd refuses even the keys of a locked account.
    lines = ["root:*:" + line.split(":", 2)[2] if line.startswith("root:!") else line
             for line in shadow.read_text().splitlines()]  # fmt: skip
    shadow.write_text("\n".join(lines) + "\n")
    ssh = root / "etc/ssh"
    ssh.mkdir(exist_ok=True)
    write(ssh / "lab_host_key", plan["host_key"], 0o600)
    write(ssh / "lab_authorized_keys", plan["public_key"], 0o644)
    write(ssh / "lab_sshd_config", CONFIGURATION.format(address=plan["address"]), 0o644)
    environment = ssh / "lab_environment"
    if not environment.exists():
        write(environment, f"SetEnv PATH={SESSION_PATH}\n", 0o644)
    home = root / "root/.ssh"
    home.mkdir(mode=0o700, exist_ok=True)
    for name in ("id", "known_hosts", "config"):
        write(home / name, plan["client"][name], 0o600)


def write(path: Path, text: str, mode: int) -> None:
    """A file that never has wider rights than ``mode``."""
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as file:
        file.write(text)


def pivot(root: Path) -> None:
    """Make ``root`` the root and forget the machine's."""
    os.chdir(root)
    old = Path(".oldroot")
    old.mkdir(exist_ok=True)
    subprocess.run(["pivot_root", ".", ".oldroot"], check=True)
    subprocess.run(["umount", "-l", "/.oldroot"], check=True)
    os.chdir("/")
    Path("/.oldroot").rmdir()


def reap() -> None:
    """Wait for whoever ends, for ever."""
    read, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    subprocess.Popen(
        [shutil.which("sshd") or "/usr/sbin/sshd", "-D", "-e", "-f", "/etc/ssh/lab_sshd_config"],
        stdin=subprocess.DEVNULL,
        env={"PATH": SESSION_PATH},
    )
    while True:
        os.read(read, 64)
        try:
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        except ChildProcessError:  # nobody left, not even sshd; the host lives on
            continue


def main() -> None:
    """See the module."""
    plan = json.loads(sys.stdin.readline())
    # /proc is still the machine's, so this is the number by which it knows this process.
    number = os.readlink("/proc/self")
    root = overlay(Path(plan["disk"]))
    furnish(root, plan)
    name_it(root, plan)
    pivot(root)
    print(number, flush=True)
    if sys.stdin.readline() != "go\n":
        raise SystemExit("the cable never came")
    log = os.open("/dev/null", os.O_RDWR)
    os.dup2(log, 0)
    os.dup2(2, 1)
    reap()


if __name__ == "__main__":
    main()
