"""``decentral stop``: end a running experiment from another terminal, exactly that one, and wait for it."""

from __future__ import annotations

import select
import signal

from decentral.errors import RunFailed
from launch.launcher import Launcher
from launch.runs import Seen, look

PATIENCE_S = 120.0
"""An orderly end takes some seconds and a large report some more."""


def stop(seen: Seen, *, now: bool) -> Seen:
    """Ask the launcher of a run to end it, as Ctrl-C does; wait until it has, and return how it then is.

    Args:
        seen: the run.
        now: do not wait for the nodes' last log lines, as a second Ctrl-C does.

    Raises:
        RunFailed: it cannot be stopped from here, or does not stop.
    """
    launcher = seen.launcher
    if launcher is not None and seen.life == "elsewhere":
        raise RunFailed(
            f"{seen.name} was started on host {launcher.host}: run decentral stop {seen.name} there"
        )
    if launcher is None or not seen.lives:
        raise RunFailed(
            f"{seen.name} does not run, so there is nothing to stop; see decentral status {seen.name}"
        )
    with launcher.opened() as pidfd:
        if pidfd is not None:  # else it ended meanwhile
            _signal(pidfd, launcher, now=now)
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            if not poll.poll(PATIENCE_S * 1000):
                raise RunFailed(
                    f"the launcher of {seen.name} (pid {launcher.pid}) has not ended for {PATIENCE_S:.0f} s; "
                    f"kill -KILL {launcher.pid} ends it and all its processes"
                )
    return look(seen.folder)


def _signal(pidfd: int, launcher: Launcher, *, now: bool) -> None:
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGINT)
        if now:
            # Not SIGINT again: two that are pending at once count as one, SIGINT and SIGTERM as two.
            signal.pidfd_send_signal(pidfd, signal.SIGTERM)
        if launcher.stopped():
            signal.pidfd_send_signal(pidfd, signal.SIGCONT)
    except ProcessLookupError:
        return
    except PermissionError as error:
        raise RunFailed(
            f"pid {launcher.pid} belongs to somebody else, who can stop it; or become that user"
        ) from error
