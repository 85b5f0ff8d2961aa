"""Where each node stands in emulated time, as the timekeeper knows it, and what it must not do there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from decentral.clock import NS_PER_S
from decentral.errors import Deadlock, RunFailed
from decentral.network.model import INFINITE_NS
from decentral.speech import ANY, Served, Speech

_SHOWN = 20
"""Nodes listed in the message of a deadlock."""


@dataclass(slots=True, eq=False)
class Standing:
    """One node.

    Attributes:
        eager: it sends payloads when it puts them.
        promise_ns: it does nothing before.
        version: number of its speech, or of the event that made the events planned for the speech void.
        speech: what it said last, until it is answered.
        waiting: for messages, at its present; it promises nothing.
        left: its rounds are over.
        lost: it has ended; ``left`` too.
        aware: how many lost nodes had been given up by its last answer.
        replies: answers to requests that were queued for it so far.
        counts: messages by tag since its last answer.
        arrived: (sender, sequence) since its last answer.
        mailbox: bytes of the newest message by (sender, fragment) since its last answer.
        served: requests since it was last told of any.
    """

    eager: bool
    promise_ns: int = 0
    version: int = 0
    speech: Speech | None = None
    waiting: bool = False
    left: bool = False
    lost: bool = False
    aware: int = 0
    replies: int = 0
    counts: dict[int, int] = field(default_factory=dict)
    arrived: list[tuple[int, int]] = field(default_factory=list)
    mailbox: dict[tuple[int, int], int] = field(default_factory=dict)
    served: list[Served] = field(default_factory=list)

    def forget(self) -> None:
        """It waits for nothing any more, and needs nothing of what has arrived."""
        self.version += 1
        self.speech = None
        self.waiting = False
        self.left = True
        self.arrived = []
        self.mailbox.clear()
        self.counts.clear()

    def check(self, node: int, does: str, at_ns: int) -> None:
        """Refuse what ``node`` does at ``at_ns`` out of turn or before its promise.

        Raises:
            RunFailed: names the node and the times.
        """
        if self.left or self.speech is not None:
            why = "has left" if self.left else "has not heard the answer to what it told before"
            raise RunFailed(
                f"node {node} {does} at {seconds(at_ns)} though it {why}; a node tells one thing, hears the "
                f"answer, and tells the next"
            )
        if at_ns < self.promise_ns:
            raise RunFailed(
                f"node {node} {does} at {seconds(at_ns)} though it promised to do nothing before "
                f"{seconds(self.promise_ns)}: an algorithm fills its queue before it collects messages, once "
                f"per local round"
            )


def check_speech(speech: Speech) -> None:
    """Refuse times that are in no order.

    Raises:
        RunFailed: names the node and the times.
    """
    latest_ns = speech.at_ns
    for put in speech.puts:
        if put.at_ns < latest_ns:
            raise RunFailed(
                f"node {speech.node} puts messages into its queue at {seconds(put.at_ns)}, expected not "
                f"before {seconds(latest_ns)}; tell what happens in order of time, from the node's present on"
            )
        latest_ns = put.at_ns
    if (
        speech.wake_ns < latest_ns
        or speech.then_ns < 0
        or (speech.wake_ns >= INFINITE_NS and not speech.needed)
    ):
        raise RunFailed(
            f"node {speech.node} wants an answer at {seconds(speech.wake_ns)} and to rest for "
            f"{seconds(speech.then_ns)} after it, expected an answer not before {seconds(latest_ns)} and a "
            f"rest of 0 or more; only who waits for messages may wait for ever"
        )


def deadlock(nodes: Sequence[Standing]) -> Deadlock:
    """Who waits for what, when nothing is under way."""
    stuck = [(number, node, node.speech) for number, node in enumerate(nodes) if node.speech]
    lines = [f"deadlock: {len(stuck)} nodes wait for messages and none is under way"]
    for number, node, speech in stuck[:_SHOWN]:
        missing = speech.needed - node.counts.get(speech.tag, 0)
        what = f"{missing} more messages" + (f" of round {speech.tag}" if speech.tag > ANY else "")
        if speech.tag < ANY:
            what = "the answer to its request"
        lines.append(f"  node {number} waits since {seconds(speech.at_ns)} for {what}")
    if len(stuck) > _SHOWN:
        lines.append(f"  and {len(stuck) - _SHOWN} more")
    longest, node, _ = min(stuck, key=lambda each: (each[2].at_ns, each[0]))
    return Deadlock("\n".join(lines), longest, sorted({sender for sender, _ in node.arrived}))


def seconds(time_ns: int) -> str:
    """A time for people."""
    return f"{time_ns / NS_PER_S:.6f} s" if time_ns < INFINITE_NS else "no time at all"
