"""Agents on other hosts through the system's OpenSSH."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from decentral.errors import PreflightError
from launch.deploy.deployment import Deployment
from launch.deploy.line import Route
from launch.executors.child import end, spawn
from launch.executors.starters import LocalStarter, agent_command
from launch.own import NONE, OwnModules

if TYPE_CHECKING:
    from launch.hosts import Host

PROGRAM_VARIABLE = "DECENTRAL_SSH"
"""Environment variable: the ssh to use, and arguments of it, split as a shell would (``ssh -F file``)."""
_ALIVE = ("-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=4")
"""A host that answers nothing for 5 s is lost."""
_PATIENT = ("-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=12")
"""For bulk data, behind which the answers queue on a slow line."""
_OPTIONS = (
    *("-T", "-a", "-x"),  # no terminal, no agent forwarding, no X11
    *("-o", "BatchMode=yes"),  # nobody is there to answer questions
    *("-o", "ConnectTimeout=10"),
    *("-o", "LogLevel=INFO"),  # says why, whatever the configuration keeps quiet
    *("-o", "ClearAllForwardings=yes"),  # ports that an interactive login forwards are not ours to take
    *("-o", "RemoteCommand=none"),
    *_ALIVE,
)


def ssh_command(host: Host, remote: Sequence[str], *, extra: Sequence[str] = ()) -> list[str]:
    """The command that runs ``remote`` on ``host``.

    ssh takes the first value that it is given: of the hosts file, then of ``extra``, then the ones
    here, then of ~/.ssh/config. Jump hosts, agents, keys and ControlMaster are left to the latter.

    Args:
        host: where; its ``ssh_options`` are arguments of ssh as they are.
        remote: program and arguments. The login shell there gets them as one string, quoted so that it starts
            exactly this.
        extra: further arguments of ssh.

    Raises:
        PreflightError: DECENTRAL_SSH cannot be split into words.
    """
    return [
        *_program(),
        *host.ssh_options,
        *extra,
        *_OPTIONS,
        *(() if host.port is None else ("-p", str(host.port))),
        *(() if host.user is None else ("-l", host.user)),
        "--",  # a name with a leading dash is a name
        host.target,
        shlex.join(remote),
    ]


def _program() -> list[str]:
    """ssh, or what DECENTRAL_SSH says instead; empty, it says nothing."""
    given = os.environ.get(PROGRAM_VARIABLE, "")
    try:
        return shlex.split(given) or ["ssh"]
    except ValueError as error:
        reason = str(error)
        raise PreflightError(
            f"{PROGRAM_VARIABLE}={given}: expected a program and its arguments, quoted as for a shell "
            f"({reason[:1].lower()}{reason[1:]}); correct or unset it"
        ) from error


class SshStarter:
    """Starts agents through ssh; those of hosts marked ``local`` as child processes.

    Args:
        send: folder of data sets that ``prepare`` copies to every host without them; None: none are copied.
        own: modules of the user's own, which ``prepare`` brings too.
    """

    def __init__(self, *, send: Path | None = None, own: OwnModules = NONE) -> None:
        route = Route("ssh", lambda host, remote: ssh_command(host, remote, extra=_PATIENT))
        self._deployment = Deployment(route, send=send, parts=own.sent)
        self._local = LocalStarter(own.folders)

    def prepare(self, hosts: Sequence[Host], tell: Callable[[str], None]) -> None:
        """Bring code, environment and, if asked, data to all hosts at once, each only what it lacks.

        Raises:
            PreflightError: a line for every host where that failed, with the step and what it said.
        """
        here = [host.name for host in hosts if host.local]
        self._deployment.deploy([host for host in hosts if not host.local], tell, here)

    def cancel(self) -> None:
        """As ``Starter.cancel``."""
        self._deployment.cancel()

    def start(self, host: Host, log: BinaryIO) -> subprocess.Popen[bytes]:
        """As ``Starter.start``, after ``prepare``; from a thread that lives as long as the child may."""
        if host.local:
            return self._local.start(host, log)
        place = self._deployment.place(host)
        command = ssh_command(host, agent_command(place.python, place.environment))
        return spawn(command, stderr=log)

    def abandon(self, process: subprocess.Popen[bytes]) -> None:
        """As ``Starter.abandon``; the agent ends when its line does, at the latest when it hears nothing."""
        end(process)
