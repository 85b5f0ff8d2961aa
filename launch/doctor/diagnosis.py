"""Why a host could not be asked, and what to try: from what ssh or srun said and how it ended."""

from __future__ import annotations

import re
import shlex
from typing import NamedTuple

from launch.host_schema import Host


class Diagnosis(NamedTuple):
    """Attributes: ``cause``, a line of what was said or what is known; ``step``, what to try next."""

    cause: str
    step: str


NO_PYTHON = "no Python 3.11 or newer"
_BY_SSH: tuple[tuple[str, str], ...] = (
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED",
        "its host key is another than before: if the host was set up anew, run ssh-keygen -R {known_as} and "
        "log in once with {ssh}; if not, ask who runs it",
    ),
    (
        r"[Hh]ost key verification failed|host key is known",
        "its host key is unknown: log in once with {ssh} and compare the fingerprint",
    ),
    (
        r"Permission denied|Too many authentication failures|Authentication failed",
        "it must let you in without a password: ssh-copy-id, or add your key to ssh-agent; try {ssh}",
    ),
    (r"Could not resolve hostname", "set address for this host, or add it to ~/.ssh/config"),
    (r"Connection refused", "no ssh server listens there: look at address and port, and start sshd"),
    (
        r"[Tt]imed out|No route to host|Network is unreachable|Host is down",
        "nothing answers there: look at address, network and firewall; is it switched on?",
    ),
    (
        r"Connection (?:closed|reset)|kex_exchange_identification|banner exchange",
        "the ssh server hung up: look at its log, at MaxStartups and at who may log in; try {ssh}",
    ),
    (
        r"[Bb]ad configuration option|[Uu]nknown option|illegal option|unknown key type",
        "correct ssh_options or ~/.ssh/config",
    ),
)
_BY_HOST: tuple[tuple[str, str], ...] = (
    (rf"{NO_PYTHON}", "install one, or set python for this host to the path of one"),
    (r"not available|nologin", "this account has no login shell; set user to one that has"),
    (r"(?:ssh|srun): No such file|command not found: (?:ssh|srun)", "install {program} on this machine"),
)
SHOWN_NOISE = 60
OF_SSH = 255
"""Status of an ssh that failed itself."""
_BANNER = re.compile(r"Warning: Permanently added|^@+$|^\s*$")


def diagnose_end(host: Host, program: str, status: int, stderr: str, noise: str) -> Diagnosis:
    """Why ``program`` ended before the host answered.

    Args:
        host: which.
        program: ``ssh`` or ``srun``, or ``sh`` where the host is this machine.
        status: as of ``subprocess``.
        stderr: all that it wrote there.
        noise: what came on standard output in place of an answer.
    """
    lines = _lines(stderr)
    # What the host itself says may have the same words, but then ssh passes the status on.
    for pattern, step in (*_BY_SSH, *_BY_HOST) if status == OF_SSH else _BY_HOST:
        for line in lines:
            if re.search(pattern, line):
                return Diagnosis(
                    line, step.format(known_as=_known_as(host), ssh=_login(host), program=program)
                )
    how = f"exited with code {status}" if status >= 0 else f"was killed by signal {-status}"
    said = (
        f": {lines[-1]}"
        if lines
        else f" after printing {brief(noise)}"
        if noise.strip()
        else " and said nothing"
    )
    step = f"try {_login(host)} true" if program == "ssh" else "look at what it says"
    if status == 0:
        step = f"its login files end the shell before it runs a command, such as an exit in ~/.bashrc; {step}"
    return Diagnosis(f"{program} {how}{said}", step)


def diagnose_silence(host: Host, program: str, limit_s: float, stderr: str, noise: str) -> Diagnosis:
    """Why a host may not have answered in time; arguments as of ``diagnose_end``."""
    lines = _lines(stderr)
    said = f"; last said: {lines[-1]}" if lines else f"; it printed {brief(noise)}" if noise.strip() else ""
    return Diagnosis(
        f"no answer within {limit_s:g} s{said}",
        f"log in by hand with {_login(host)} and look what hangs (its login files, its disk, its network)"
        if program == "ssh"
        else "look whether the host is up and its disk answers",
    )


def brief(noise: str) -> str:
    """The beginning of what was printed, on one line and quoted."""
    text = " ".join(noise[: 4 * SHOWN_NOISE].split())
    return repr(text if len(text) <= SHOWN_NOISE else f"{text[:SHOWN_NOISE]}...")


def _lines(stderr: str) -> list[str]:
    return [line.strip().rstrip(".") for line in stderr.splitlines() if not _BANNER.search(line)]


def _known_as(host: Host) -> str:
    """Its name in ~/.ssh/known_hosts, for a shell."""
    return shlex.quote(host.target if host.port in (None, 22) else f"[{host.target}]:{host.port}")


def _login(host: Host) -> str:
    """The command to type."""
    port = ["-p", str(host.port)] if host.port is not None else []
    user = ["-l", host.user] if host.user is not None else []
    return shlex.join(["ssh", *host.ssh_options, *port, *user, host.target])
