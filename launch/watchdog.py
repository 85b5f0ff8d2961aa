"""What ends an agent on another host that is stopped: it cannot notice by itself that it was given up."""

from __future__ import annotations

import os
import select
import signal
from contextlib import suppress
from typing import NoReturn

from launch.kernel import die_with_parent
from launch.protocol import SILENCE_S

PATIENCE_S = SILENCE_S + 1.0
"""An agent that has said nothing for so long has been given up by the launcher."""
_SECOND_LOOK_S = 1.0
"""Where everything stood still, as when a machine is suspended, an agent that goes on is not at fault."""


class Watchdog:
    """A process that kills this one, whose members die with it, once this one has not fed it for a while.

    It ends with this process. Without a parent to tell, it says nothing.

    Args:
        patience_s: how long it waits to be fed.

    Raises:
        OSError: the host has no more processes or descriptors.
    """

    def __init__(self, patience_s: float = PATIENCE_S) -> None:
        lease, self._feed = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        agent = os.getpid()
        pidfd = os.pidfd_open(agent)
        self.pid = os.fork()
        if self.pid == 0:
            try:
                _watch(lease, pidfd, agent, patience_s)
            finally:
                os._exit(1)  # whatever happened, the agent's loop must not go on in its child
        os.close(lease)
        os.close(pidfd)

    def fileno(self) -> int:
        """What members must not keep open."""
        return self._feed

    def feed(self) -> None:
        """To be called once a second; never blocks. Thread-safe."""
        with suppress(BlockingIOError, BrokenPipeError):  # it is stopped itself, or somebody killed it
            os.write(self._feed, b".")


def _watch(lease: int, pidfd: int, agent: int, patience_s: float) -> NoReturn:
    die_with_parent(agent)
    _keep_only(lease, pidfd)
    poll = select.poll()
    poll.register(lease, select.POLLIN)
    poll.register(pidfd, select.POLLIN)
    while True:
        events = poll.poll(patience_s * 1000) or poll.poll(_SECOND_LOOK_S * 1000)
        if not events:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        if pidfd in dict(events) or not events or not os.read(lease, 1 << 16):
            os._exit(0)


def _keep_only(*kept: int) -> None:
    """Close all else: lines whose other end waits for their end, and locks that go with the agent."""
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        if fd > 2 and fd not in kept:
            with suppress(OSError):  # that of the listing itself is closed already
                os.close(fd)
