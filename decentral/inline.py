"""Emulated time with all nodes in one process: one thread per node, exactly one of them running at a time.

The nodes speak to the same timekeeper as nodes in processes of their own do; only the wire between them is a
few queues. A thread runs until it has to hear something that is not there yet; whoever has been told
something meanwhile goes next, in the order in which it was told, so a run is deterministic whatever the
machine does.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from decentral.errors import Deadlock, Interrupted
from decentral.medium import Outgoing
from decentral.messages import Message, encode_header
from decentral.speech import Speech, Telling
from decentral.timekeeper import Timekeeper
from decentral.transports.batches import grouped
from decentral.wire import Heard


class _Cancelled(BaseException):
    """Unwinds a node's thread when the run ends early; not an error of that node."""


class _Task:
    """One node's thread, its half of the baton, and what it has been told."""

    def __init__(self, body: Callable[[], None]) -> None:
        self.body = body
        self.resume = threading.Semaphore(0)
        self.waiting: Callable[[], str] | None = None
        self.told: deque[Telling] = deque()
        self.payloads: deque[list[Message]] = deque()
        self.error: BaseException | None = None
        self.finished = False
        self.thread: threading.Thread | None = None


class Saving(Protocol):
    """Makes checkpoints of an inline run."""

    def wanted(self) -> bool:
        """Whether one is to be made as soon as everybody waits."""
        ...

    def save(self) -> None:
        """Make it: nothing is on its way, except to nodes that were not told of it yet."""
        ...


class Scheduler:
    """Runs node bodies one at a time.

    Args:
        timekeeper: time and network of the run.
        observe: takes snapshots for the observer.
        run: the run id that headers carry, for equal byte accounting with a real transport.
        saving: makes checkpoints; None: none are made.
        lost: hears of a node whose body raised, and when in emulated time; the others go on unless it raises.
            None: the first error ends the run.
    """

    def __init__(
        self,
        timekeeper: Timekeeper,
        observe: Callable[[Message], None],
        run: bytes,
        saving: Saving | None = None,
        *,
        lost: Callable[[int, Exception, int], None] | None = None,
    ) -> None:
        self.timekeeper = timekeeper
        self._saving = saving
        self._lost = lost
        self._deadlock: Deadlock | None = None
        self.observe = observe
        self.run_id = run
        self._tasks: dict[int, _Task] = {}
        self._ready: deque[int] = deque()
        self._yielded = threading.Semaphore(0)
        self._cancelled = False
        self._interrupted = False

    def add(self, node: int, body: Callable[[], None]) -> None:
        """Register ``body`` as what node ``node`` does. Before ``run`` only."""
        self._tasks[node] = _Task(body)
        self._ready.append(node)

    def interrupt(self) -> None:
        """Ask ``run`` to stop at the next hand-over; safe to call from a signal handler."""
        self._interrupted = True

    def run(self) -> None:
        """Run all bodies to their end; blocks.

        Raises:
            Deadlock: nodes wait and nothing can wake them.
            Interrupted: ``interrupt`` was called.
            BaseException: the first error of a body, or of ``lost``; the other bodies are unwound first.
        """
        try:
            while self._ready:
                if self._interrupted:
                    raise Interrupted("interrupted by the user")
                self._step(self._ready.popleft())
            stuck = [node for node, task in self._tasks.items() if not task.finished]
            if stuck:
                raise Deadlock(self._deadlock_text(stuck))
        finally:
            self._cancel()

    def advance(self) -> None:
        """Pass on what the timekeeper tells nodes, or to the one that waits longest that all of them wait."""
        if self._saving is not None and self._saving.wanted() and self.timekeeper.staying:
            if not self.timekeeper.all_told:
                return  # time stands still until the others have told what they do
            self._saving.save()
        try:
            tellings = self.timekeeper.advance()
        except Deadlock as deadlock:
            if deadlock.node is None:
                raise
            self._deadlock = deadlock
            self._wake(deadlock.node)
            return
        self.tell(tellings)

    def tell(self, tellings: Sequence[Telling]) -> None:
        """What the timekeeper tells nodes; those that wait run again."""
        for telling in tellings:
            self._tasks[telling.node].told.append(telling)
            self._wake(telling.node)

    def pending(self, node: int) -> list[Heard]:
        """What ``node`` was told and sent and did not hear yet."""
        task = self._tasks[node]
        return [*task.told, *task.payloads]

    def deliver(self, node: int, messages: list[Message]) -> None:
        """Payloads for ``node``; if it waits, it runs again."""
        self._tasks[node].payloads.append(messages)
        self._wake(node)

    def next(self, node: int, block: bool, what: Callable[[], str]) -> Heard | None:
        """Called by ``node``'s thread: what it has been told, else payloads, else wait for either."""
        task = self._tasks[node]
        while True:
            if task.told:
                return task.told.popleft()
            if task.payloads:
                return task.payloads.popleft()
            if self._deadlock is not None and self._deadlock.node == node:
                raise self._deadlock.at(node, what())
            if not block:
                return None
            task.waiting = what
            self._hand_over(task)

    def _wake(self, node: int) -> None:
        task = self._tasks[node]
        if task.waiting is not None:
            task.waiting = None
            self._ready.append(node)

    def _step(self, node: int) -> None:
        task = self._tasks[node]
        if task.thread is None:
            thread = threading.Thread(target=self._main, args=(task,), name=f"node-{node}", daemon=True)
            thread.start()
            task.thread = thread
        task.resume.release()
        self._yielded.acquire()
        error = task.error
        if error is None:
            return
        # Whom a deadlock is told is no cause of it.
        if self._lost is None or isinstance(error, Deadlock) or not isinstance(error, Exception):
            raise error
        self._saving = None  # a checkpoint would lack a node
        self._lost(node, error, self.timekeeper.lose(node))
        self.advance()

    def _main(self, task: _Task) -> None:
        task.resume.acquire()
        try:
            if not self._cancelled:
                task.body()
        except _Cancelled:
            pass
        except BaseException as error:
            task.error = error
        finally:
            task.finished = True
            self._yielded.release()

    def _hand_over(self, task: _Task) -> None:
        if self._cancelled:  # it waits again while it is unwound
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
        lines = [f"deadlock: {len(stuck)} nodes wait and nothing is under way"]
        for node in stuck:
            what = self._tasks[node].waiting
            lines.append(f"  node {node} waits for {what() if what else 'its turn'}")
        return "\n".join(lines)


class InlineWire:
    """A node's way to the timekeeper and the other nodes of the same process.

    Args:
        scheduler: shared by all nodes of the run.
        node: this node's id.
        batch_bytes: most payload that would travel together.
    """

    def __init__(self, scheduler: Scheduler, node: int, batch_bytes: int) -> None:
        self._scheduler = scheduler
        self._node = node
        self._batch_bytes = batch_bytes
        self._batches: Counter[int] = Counter()
        self.meta_bytes = 0
        self.refused: Counter[str] = Counter()

    def state(self) -> dict[str, Any]:
        """How many batches went where."""
        return {"sent": dict(self._batches)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on counting."""
        self._batches.update(state["sent"])

    def speak(self, speech: Speech) -> None:
        """To the timekeeper, which answers whom it can."""
        self._scheduler.timekeeper.speak(speech)
        self._scheduler.advance()

    def leave(self, node: int, at_ns: int, drop: bool) -> None:
        """To the timekeeper, likewise."""
        self._scheduler.timekeeper.leave(node, at_ns, drop=drop)
        self._scheduler.advance()

    def push(self, outgoing: Sequence[Outgoing]) -> None:
        """Payloads to other nodes."""
        for destination, messages in grouped(outgoing, self._batch_bytes):
            self._batches[destination] += 1
            self.meta_bytes += len(
                encode_header(self._scheduler.run_id, self._batches[destination], messages)
            )
            self._scheduler.deliver(destination, messages)

    def observe(self, message: Message) -> None:
        """A snapshot to the observer, which scores it here and now."""
        self._scheduler.observe(message)

    def lost(self, peer: int) -> float:
        """Whatever it sent is here."""
        return 0.0

    def next(
        self,
        block: bool,
        what: Callable[[], str],
        *,
        patient: bool = False,
        within_s: float | None = None,
    ) -> Heard | None:
        """The next thing heard."""
        return self._scheduler.next(self._node, block, what)
