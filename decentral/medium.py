"""What lies between a node and the others: time and the network, together.

Under emulated time the two cannot be had apart: what has arrived depends on what time it is. ``Node`` talks
to a ``Medium`` only; ``decentral.virtual`` is emulated time, inline and across processes, ``decentral.wall``
real time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, TypeAlias, TypeVar

from decentral.losses import Losses
from decentral.messages import Message
from decentral.speech import Role, Totals

T = TypeVar("T")

Outgoing: TypeAlias = tuple[int, Message]
"""(destination, message)."""
Poll: TypeAlias = Callable[[], None]
"""Called between local steps, so that a node that trains still does what others wait for."""
Server: TypeAlias = Callable[[int, Message | None], Message]
"""Answers a request of a node: (requester, its message or None for a ping) -> the answer."""


class Medium(Protocol):
    """Used by its node's thread only. Payload order is kept per pair of nodes."""

    @property
    def totals(self) -> Totals:
        """What this node has sent and lost up to its present."""
        ...

    @property
    def meta_bytes(self) -> int:
        """Header bytes handed to the real transport so far."""
        ...

    @property
    def refused(self) -> Counter[str]:
        """Arrived frames that were refused, by reason."""
        ...

    @property
    def losses(self) -> Losses:
        """Peers that have ended."""
        ...

    @property
    def missed(self) -> int:
        """Messages that arrived as far as the network goes, but whose content ended with its sender."""
        ...

    @property
    def interrupted(self) -> bool:
        """Whether the last ``wait`` ended early because a lost peer was given up; wait again for others."""
        ...

    def payload_bytes(self, message: Message) -> int:
        """What ``message`` weighs on this network without its header."""
        ...

    def now_ns(self) -> int:
        """Time since the start barrier on the run's own clock; never decreases."""
        ...

    def foreseen_ns(self, duration_ns: int) -> int:
        """How much of a compute window of nominally ``duration_ns`` is known before it is over."""
        ...

    def paused(self) -> AbstractContextManager[None]:
        """What runs inside (evaluation, logging) takes no time on this clock."""
        ...

    def compute(self, work: Callable[[Poll | None], T], duration_ns: int) -> tuple[T, list[Message]]:
        """Run ``work`` as a compute window.

        Under a virtual clock the window lasts ``duration_ns``, however long ``work`` takes; under a wall
        clock it lasts as long as it takes. ``work`` gets a function to call between local steps, or None
        where nobody could wait for this node meanwhile.

        Returns:
            What ``work`` returned, and the messages that arrived where this medium learned of any.
        """
        ...

    def put(
        self, outgoing: Sequence[Outgoing], *, role: Role, flush: bool = False, at_ns: int | None = None
    ) -> None:
        """Append to the queue of what is to be sent, after emptying it if ``flush``; never blocks.

        Args:
            outgoing: destinations and messages.
            role: ``LATEST``, ``KEEP`` (its tag is the message's round) or ``PING``.
            flush: what has not started is dropped first.
            at_ns: when, if later than now: at most at the end of the next compute window or wait.
        """
        ...

    def request(self, destination: int, message: Message) -> int:
        """Queue a request; returns the tag under which ``wait`` waits for its answer."""
        ...

    def collect(self, then_ns: int) -> list[Message]:
        """All messages that have arrived by now and were not returned before.

        Args:
            then_ns: the caller will put nothing for so long: its next compute window, or 0.
        """
        ...

    def wait(
        self, *, tag: int, count: int, until_ns: int, then_ns: int, what: Callable[[], str]
    ) -> list[Message]:
        """Block until ``count`` messages tagged ``tag`` have arrived or it is ``until_ns``.

        What was returned before does not count. Ends early where a lost peer is given up.

        Returns:
            All messages, of whatever tag, that arrived and were not returned before.

        Raises:
            StalledError: nothing was heard for the liveness timeout; ``what`` words what is missing.
            Deadlock: nothing can arrive any more (inline; across processes the timekeeper reports it).
        """
        ...

    def serve(self, server: Server) -> None:
        """From now on answer requests with ``server``: at once in emulated time, also while computing."""
        ...

    def observe(self, message: Message) -> None:
        """Hand a snapshot to the observer, off the clock."""
        ...

    def leave(self, *, drop: bool) -> None:
        """This node's rounds are over. ``drop`` empties its queue, else what is queued is still sent."""
        ...

    def linger(self) -> None:
        """Go on serving until every node has left; blocks."""
        ...
