"""How an agent is started on a host: as a child process here, through ssh, or through srun."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, BinaryIO, Protocol

from launch.deploy.onhost.look import absolute
from launch.deploy.plan import CACHE
from launch.executors.child import spawn
from launch.modules import search_in

if TYPE_CHECKING:
    from launch.hosts import Host

AGENT = ("-P", "-m", "launch.zygote")
"""Arguments of the Python that is an agent."""
ENVIRONMENT = {
    # Activations of a few hundred kB would be mapped and unmapped at every step (1.3 times slower).
    "MALLOC_MMAP_THRESHOLD_": "1073741824",
    "MALLOC_TRIM_THRESHOLD_": "1073741824",
    "MALLOC_TOP_PAD_": "67108864",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
"""What an agent must find in its environment when it starts."""


def agent_command(python: str, environment: Mapping[str, str]) -> list[str]:
    """The command of an agent on another host.

    Args:
        python: that has the packages.
        environment: what else the agent must find in its environment.
    """
    settings = [f"{name}={value}" for name, value in {**ENVIRONMENT, **environment}.items()]
    # Through sh, as env would take a path with an equals sign for one more setting.
    return ["env", *settings, "sh", "-c", 'exec "$0" "$@"', python, *AGENT]


class Starter(Protocol):
    """Starts agents; one object for all hosts of a session."""

    def prepare(self, hosts: Sequence[Host], tell: Callable[[str], None]) -> None:
        """Bring what agents need to every host that lacks it.

        Args:
            hosts: all of them.
            tell: hears a line on what takes time.

        Raises:
            PreflightError: names every host where it cannot be done, and why.
        """
        ...

    def cancel(self) -> None:
        """Make ``prepare`` fail soon; called by the signal handler of the thread that is in it."""
        ...

    def start(self, host: Host, log: BinaryIO) -> subprocess.Popen[bytes]:
        """Start the agent of ``host``; returns at once, also where the host cannot be reached.

        Args:
            host: where.
            log: a real file that takes what ssh or srun, and the agent, write to standard error.

        Returns:
            A child process of this one, with pipes to the agent's standard input and output, in a session of
            its own (Ctrl-C in the terminal is the launcher's to handle), that dies with this process.
        """
        ...

    def abandon(self, process: subprocess.Popen[bytes]) -> None:
        """End the child that ``start`` returned, within 2 s, whatever it or its host does."""
        ...


class LocalStarter:
    """Agents on this machine, with this Python and this code.

    Args:
        folders: where they look for modules after all others.
    """

    def __init__(self, folders: Sequence[str] = ()) -> None:
        self._search = search_in(folders)

    def prepare(self, hosts: Sequence[Host], tell: Callable[[str], None]) -> None:
        """Nothing: what runs here is here."""

    def cancel(self) -> None:
        """Nothing: ``prepare`` takes no time."""

    def start(self, host: Host, log: BinaryIO) -> subprocess.Popen[bytes]:
        """As ``Starter.start``."""
        own = {} if host.data is None else {"DECENTRAL_DATA": absolute(host.data)}
        if host.folder is not None:
            own["DECENTRAL_CACHE"] = os.path.join(absolute(host.folder), CACHE)
        environment = {**os.environ, **ENVIRONMENT, **self._search, **own}
        return spawn([sys.executable, *AGENT], stderr=log, env=environment)

    def abandon(self, process: subprocess.Popen[bytes]) -> None:
        """Kill it; its members die with it (launch/kernel.py)."""
        process.kill()
        process.wait()
