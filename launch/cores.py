"""Which cores of this host processes of a job are pinned to, so that jobs of several runs share none.

A core that is pinned to is *taken*: a name in the kernel's abstract socket namespace is bound for it, and
whoever else wants it finds the name in use. The agent and all members that it forks afterwards hold the
socket, so a core is free again when the last of them has ended, however it ended, and there is no file that
could stay behind. Nobody can connect to such a socket, as nothing listens on it.

The names are those of a network namespace, whoever the user is: runs of different users on one host see each
other, runs in containers with a network of their own do not, and may be pinned to the same cores as before.
Another user could bind all names; nobody is pinned then, which costs speed at most.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence

from launch.facts import usable_cores

_NAME = "\0decentral-core-{}"


class TakenCores:
    """Cores that this process and those that it forks have for themselves, among all that ask."""

    def __init__(self) -> None:
        self._held: dict[int, socket.socket] = {}

    def take(self, count: int) -> list[int]:
        """Take ``count`` of the usable cores, the first that are free.

        Returns:
            Their numbers, ascending; empty, and nothing is taken, if fewer are free: processes that share
            cores are spread by the scheduler better than by anybody who pins some of them.
        """
        self.release()
        for core in usable_cores():
            if len(self._held) == count:
                break
            if (held := _bound(core)) is not None:
                self._held[core] = held
        if len(self._held) < count:
            self.release()
        return sorted(self._held)

    def release(self) -> None:
        """Let go of all; members that were forked meanwhile keep theirs until they end."""
        for held in self._held.values():
            held.close()
        self._held.clear()


def _bound(core: int) -> socket.socket | None:
    """The name of ``core``; None where somebody has it, or nobody can, and pinning helps nobody."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.bind(_NAME.format(core))
    except OSError:
        made.close()
        return None
    return made


def pinned(indices: Sequence[int | None], taken: TakenCores) -> list[int | None]:
    """The core of each member of a job on this host; None: any.

    Args:
        indices: where placement pins the members, by its count of cores, not by their numbers; None: nowhere.
        taken: takes as many as there are members to be pinned.
    """
    wanted = [index for index in indices if index is not None]
    found = iter(taken.take(len(wanted)))
    return [None if index is None else next(found, None) for index in indices]
