"""How an agent turns into a member: fork, let go of what is the agent's, wait for the word, run."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import msgpack

from launch.assignment import Assignment
from launch.build import Workload
from launch.kernel import die_with_parent, prefer_long_slices
from launch.process import member_main


@dataclass(frozen=True)
class Forked:
    """A process of this agent: its number and slot, its pid, and the agent's ends of what ties them."""

    number: int
    slot: int
    pid: int
    pidfd: int
    line: socket.socket

    def order(self, words: Any) -> None:
        """Send a word or a list; a member that is dead already is passed over: its pidfd says so and why."""
        try:
            self.line.send(msgpack.packb(words))
        except (BrokenPipeError, ConnectionResetError):
            return

    def let_go(self) -> None:
        """Close the agent's ends."""
        self.line.close()
        os.close(self.pidfd)


def fork_member(
    workload: Workload, assignment: Assignment, siblings: Iterable[Forked], private: Iterable[int]
) -> Forked:
    """Fork one member; it waits for the word ``begin`` before it does anything.

    Args:
        workload: shared with the child, not copied.
        assignment: the child's.
        siblings: members forked earlier, whose lines the child must not keep open.
        private: what else of the agent's, likewise.

    Raises:
        OSError: the host has no more processes, descriptors or memory; the member is none then.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    agent = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            ours.close()
            for sibling in siblings:
                sibling.let_go()
            for fd in private:
                os.close(fd)
            _become(workload, assignment, theirs, agent)
        finally:
            os._exit(1)  # whatever happened, the agent's loop must not go on in its child
    theirs.close()
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        ours.close()
        raise
    return Forked(assignment.number, assignment.slot, pid, pidfd, ours)


def _become(workload: Workload, assignment: Assignment, line: socket.socket, agent: int) -> NoReturn:
    die_with_parent(agent)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)  # the launcher's orders are not this process's to read
    os.close(null)
    if assignment.core is not None:
        os.sched_setaffinity(0, [assignment.core])
    if workload.arm.run.clock == "virtual":  # paced links need the core at once, not after others' slices
        prefer_long_slices()
    if not line.recv(1 << 10):
        os._exit(1)
    _redirect(assignment.folder.log(assignment.host))
    member_main(workload, assignment, line)


def _redirect(log: Path) -> None:
    """Standard output and error of a member go to the host's log, line by line."""
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError:
        return  # the member's own log meets the same error and reports it
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.close(fd)
