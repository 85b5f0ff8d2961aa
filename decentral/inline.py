"""Emulated time with all nodes in one process: one thread per node, exactly one of them running at a time.

The scheduler hands a baton to the node whose wake-up is earliest (ties by node id), so a run is
deterministic whatever the machine does. When nobody can be woken any more it raises ``Deadlock`` and says
who waits for what, instead of hanging.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from decentral.clock import NS_PER_S
from decentral.errors import Deadlock, Interrupted

T = TypeVar("T")


class _Cancelled(BaseException):
    """Unwinds a node's thread when the run ends early; not an error of that node."""


class _Task:
    """One node's thread and its half of the baton."""

    def __init__(self, body: Callable[[], None]) -> None:
        self.body = body
        self.resume = threading.Semaphore(0)
        self.waiting: Callable[[], str] | None = None
        self.error: BaseException | None = None
        self.finished = False
        self.thread: threading.Thread | None = None


class Scheduler:
    """Runs node bodies one at a time in the order of emulated time."""

    def __init__(self) -> None:
        self._tasks: dict[int, _Task] = {}
        self._agenda: list[tuple[int, int]] = []
        self._yielded = threading.Semaphore(0)
        self._cancelled = False
        self._interrupted = False
        self._now_ns = 0

    @property
    def now_ns(self) -> int:
        """Emulated nanoseconds since the start."""
        return self._now_ns

    def add(self, node: int, body: Callable[[], None]) -> None:
        """Register ``body`` as what node ``node`` does, from time 0 on. Before ``run`` only."""
        self._tasks[node] = _Task(body)
        heapq.heappush(self._agenda, (0, node))

    def interrupt(self) -> None:
        """Ask ``run`` to stop at the next hand-over; safe to call from a signal handler."""
        self._interrupted = True

    def run(self) -> None:
        """Run all bodies to their end; blocks.

        Raises:
            Deadlock: nodes wait and nothing can wake them.
            Interrupted: ``interrupt`` was called.
            BaseException: the first error that a body raised; the other bodies are unwound first.
        """
        try:
            while self._agenda:
                if self._interrupted:
                    raise Interrupted("interrupted by the user")
                self._now_ns, node = heapq.heappop(self._agenda)
                self._step(node)
            stuck = [node for node, task in self._tasks.items() if not task.finished]
            if stuck:
                raise Deadlock(self._deadlock_text(stuck))
        finally:
            self._cancel()

    def sleep(self, node: int, duration_ns: int) -> None:
        """Called by ``node``'s thread: return when ``duration_ns`` have passed."""
        heapq.heappush(self._agenda, (self._now_ns + duration_ns, node))
        self._hand_over(self._tasks[node])

    def wait(self, node: int, what: Callable[[], str]) -> None:
        """Called by ``node``'s thread: return after the next ``wake(node)``; ``what`` words a deadlock."""
        task = self._tasks[node]
        task.waiting = what
        self._hand_over(task)

    def wake(self, node: int) -> None:
        """Called by any body: if ``node`` waits, it runs again at the present time."""
        task = self._tasks[node]
        if task.waiting is not None:
            task.waiting = None
            heapq.heappush(self._agenda, (self._now_ns, node))

    def _step(self, node: int) -> None:
        task = self._tasks[node]
        if task.thread is None:
            thread = threading.Thread(target=self._main, args=(task,), name=f"node-{node}", daemon=True)
            thread.start()
            task.thread = thread
        task.resume.release()
        self._yielded.acquire()
        if task.error is not None:
            raise task.error

    def _main(self, task: _Task) -> None:
        task.resume.acquire()
        try:
            if not self._cancelled:
                task.body()
        except _Cancelled:
            pass
        except BaseException as error:  # carried to run(), which raises it
            task.error = error
        task.finished = True
        self._yielded.release()

    def _hand_over(self, task: _Task) -> None:
        if self._cancelled:  # a body that is being unwound waits again in a finally clause
            raise _Cancelled
        self._yielded.release()
        task.resume.acquire()
        if self._cancelled:
            raise _Cancelled

    def _cancel(self) -> None:
        self._cancelled = True
        for task in self._tasks.values():
            if task.thread is None:
                continue
            if not task.finished:
                task.resume.release()
            task.thread.join()

    def _deadlock_text(self, stuck: list[int]) -> str:
        lines = [
            f"deadlock at {self._now_ns / NS_PER_S:.6f} s: {len(stuck)} nodes wait and nothing is under way"
        ]
        for node in stuck:
            what = self._tasks[node].waiting
            lines.append(f"  node {node} waits for {what() if what else 'its turn'}")
        return "\n".join(lines)


class InlineClock:
    """A node's view of the scheduler.

    Args:
        scheduler: shared by all nodes of the run.
        node: this node's id.
        compute_ns: how long one call of ``compute`` lasts in emulated time.
    """

    def __init__(self, scheduler: Scheduler, node: int, compute_ns: int) -> None:
        self._scheduler = scheduler
        self._node = node
        self._compute_ns = compute_ns

    def now_ns(self) -> int:
        """Emulated nanoseconds since the start."""
        return self._scheduler.now_ns

    def compute(self, work: Callable[[], T]) -> T:
        """Run ``work``, then let ``compute_ns`` pass."""
        result = work()
        self._scheduler.sleep(self._node, self._compute_ns)
        return result

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Emulated time only passes in ``compute`` and while waiting: nothing to do."""
        yield
