"""One piece of work for every host, all at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TYPE_CHECKING, TypeVar

from decentral.errors import PreflightError
from launch.deploy.line import HostFailure, Lines

if TYPE_CHECKING:
    from launch.hosts import Host

T = TypeVar("T")
_MOST_AT_ONCE = 32


def each(
    lines: Lines,
    hosts: Sequence[Host],
    work: Callable[[Host], T],
    done: Callable[[Host, T], None] = lambda host, result: None,
) -> dict[str, T]:
    """Results of ``work`` by name of the host, done for all at once.

    Args:
        lines: that ``work`` asks by; cut off where this is.
        hosts: where.
        work: called in threads.
        done: called in this thread with every result, when it is there.

    Raises:
        PreflightError: a line for every host where it failed, after all have ended.
    """
    results, failures = {}, []
    with ThreadPoolExecutor(_MOST_AT_ONCE) as pool:
        try:
            futures = {pool.submit(work, host): host for host in hosts}
            for future in as_completed(futures):
                host = futures[future]
                try:
                    results[host.name] = future.result()
                except HostFailure as failure:
                    failures.append(str(failure))
                else:
                    done(host, results[host.name])
        except BaseException:  # Ctrl-C, most of all
            lines.cancel()
            raise
    if failures:
        raise PreflightError("\n".join(sorted(failures)))
    return results
