"""Throwaway ssh keys of a lab, and the files by which hosts know one another."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.lab.commands import run


def make_key(path: Path, comment: str) -> None:
    """An ed25519 key pair without passphrase, unless it is there already."""
    if not path.exists():
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path))


def client_files(folder: Path, addresses: Mapping[str, str]) -> dict[str, str]:
    """Contents of the client's files: its key ``id``, ``known_hosts``, and ``config``.

    ``config`` names the files by what ``{keys}`` is replaced with: a client of the machine and one in a host
    have them in different folders.

    Args:
        folder: of the key files: ``id`` and one per host, ``NAME``.
        addresses: host name -> IP address.
    """
    known, config = [], [
        f"Host {' '.join(addresses)} {' '.join(addresses.values())}",
        "  User root",
        "  IdentityFile {keys}/id",
        "  IdentitiesOnly yes",
        "  UserKnownHostsFile {keys}/known_hosts",
        "  GlobalKnownHostsFile /dev/null",
        "  StrictHostKeyChecking yes",
        "  BatchMode yes",
        "  ConnectTimeout 30",
        # The default post-quantum exchange costs 90 ms of processor time a login.
        "  KexAlgorithms curve25519-sha256",
        "  LogLevel ERROR",
    ]  # fmt: skip
    for name, address in addresses.items():
        key = " ".join((folder / f"{name}.pub").read_text(encoding="ascii").split()[:2])
        known.append(f"{name},{address} {key}")
        config += [f"Host {name}", f"  HostName {address}"]
    return {
        "id": (folder / "id").read_text(encoding="ascii"),
        "known_hosts": "\n".join(known) + "\n",
        "config": "\n".join(config) + "\n",
    }


def etc_hosts(addresses: Mapping[str, str], machine: str) -> str:
    """The hosts' /etc/hosts; ``machine`` is the address of the one they are emulated on."""
    lines = ["127.0.0.1 localhost", "::1 localhost", f"{machine} machine"]
    return "\n".join(lines + [f"{address} {name}" for name, address in addresses.items()]) + "\n"
