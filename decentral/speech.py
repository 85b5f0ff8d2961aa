"""What nodes and the timekeeper tell each other: plain tuples, the same inline and between processes."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple, TypeAlias

from decentral.network.links import Item

ANY = -1
"""Tag under which messages of asynchronous algorithms are waited for, whatever their round."""

COMPUTING = 1 << 62
"""Tag of a speech that only tells of a compute window: its answer is no use of what has arrived."""


class Role(IntEnum):
    """What the timekeeper does with a message when it arrives; ``Item.role``."""

    LATEST = 0
    """For the receiver's mailbox; a newer one of the same (sender, fragment) replaces it."""
    KEEP = 1
    """For its round (the tag); never replaced."""
    REQUEST = 2
    """Served by the receiver at once: an answer of the same size goes back."""
    REPLY = 3
    """The answer to a request; its tag is the request's."""
    PING = 4
    """As ``LATEST``, and an answer of the same size goes back, for the other's mailbox."""


class Put(NamedTuple):
    """At ``at_ns`` append ``items`` to the queue, after emptying it if ``flush``."""

    at_ns: int
    flush: bool
    items: Sequence[Item]


class Speech(NamedTuple):
    """What one node tells, standing at ``at_ns``.

    Attributes:
        node: who.
        at_ns: the node's present; nothing in ``puts`` is earlier.
        puts: changes of its queue, in order of time, none later than the answer it asks for.
        tag: which arrivals count, with ``needed``.
        needed: answer when so many messages with ``tag`` have arrived since the last answer; 0: do not wait
            for messages.
        wake_ns: answer then at the latest; ``INFINITE_NS`` with ``needed`` > 0: only on arrivals.
        then_ns: nothing is put for so long after the answer.
    """

    node: int
    at_ns: int
    puts: Sequence[Put]
    tag: int
    needed: int
    wake_ns: int
    then_ns: int


class Served(NamedTuple):
    """A request (or a ping) has arrived and is answered with message ``reply`` (its sequence number)."""

    requester: int
    request: int
    reply: int
    ping: bool


class Totals(NamedTuple):
    """What one node has sent and lost so far: messages and payload bytes."""

    sent: int
    sent_bytes: int
    dropped: int
    dropped_bytes: int


class Answer(NamedTuple):
    """To a node: it is ``at_ns``; what arrived, what it serves, and which of its transfers have started.

    One that is neither ``complete`` nor as late as was asked for interrupts: a node was given up that what is
    waited for may be due from. Who is interrupted may speak again at once.
    """

    node: int
    at_ns: int
    complete: bool
    arrived: Sequence[tuple[int, int]]
    served: Sequence[Served]
    started: Sequence[int]
    totals: Totals


class Notice(NamedTuple):
    """To a node, between answers: others need what it serves and what of its transfers has started."""

    node: int
    served: Sequence[Served]
    started: Sequence[int]


class Stop(NamedTuple):
    """To a node: the run is over for all; requests that arrived before it are still served."""

    node: int
    at_ns: int
    served: Sequence[Served]
    started: Sequence[int]
    totals: Totals


class Gone(NamedTuple):
    """To a node, as soon as it is known: ``peer`` has ended, and nothing that it sent arrives any more.

    In emulated time it is given up at ``at_ns``: until then nodes wait for it.
    """

    node: int
    peer: int
    at_ns: int


Telling: TypeAlias = Answer | Notice | Stop | Gone
