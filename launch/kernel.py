"""Linux calls that Python has no name for: parent-death signal, scheduler slice, heap trimming."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import struct

_PR_SET_PDEATHSIG = 1
_SCHED_BATCH = 3
_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
_SCHED_ATTR = struct.Struct("=IIQiIQQQ")
SLICE_NS = 100_000_000
"""Scheduler slice asked for: with the default of some 3 ms, nodes that share a core evict each other's
caches in the middle of a training step, which costs 12 to 17 %."""

_libc = ctypes.CDLL(None, use_errno=True)


def give_back_free_memory() -> None:
    """Return the heap's free pages to the kernel (glibc's ``malloc_trim``; nothing where libc has none).

    The launcher makes glibc keep freed memory, because training allocates the same few MB at every step. An
    evaluation's larger activations would then stay in every node for the rest of the run.
    """
    trim = getattr(_libc, "malloc_trim", None)
    if trim is not None:
        trim(0)


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends, by whatever cause.

    Args:
        parent: pid of the parent, from before the fork: it may be gone already.
    """
    if _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        os._exit(1)


def outlive_parent() -> None:
    """Undo ``die_with_parent``, inherited or own: this process sees to its end itself from here on."""
    if _libc.prctl(_PR_SET_PDEATHSIG, 0, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")


def prefer_long_slices() -> bool:
    """Ask for 100 ms scheduler slices (Linux >= 6.12; older kernels accept the call without effect).

    Returns:
        False where the kernel refuses or the call's number is not known here; nothing else changes then.
    """
    number = _SCHED_SETATTR.get(platform.machine())
    if number is None:
        return False
    nice = os.getpriority(os.PRIO_PROCESS, 0)  # the call sets it too, and lowering it needs a privilege
    attributes = _SCHED_ATTR.pack(_SCHED_ATTR.size, _SCHED_BATCH, 0, nice, 0, SLICE_NS, 0, 0)
    return bool(_libc.syscall(number, 0, attributes, 0) == 0)
