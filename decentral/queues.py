"""What a node wants to send and what it has received, with exact accounting. Pure logic; one thread."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from decentral.messages import Message

Outgoing: TypeAlias = tuple[int, Message]
"""(destination, message)."""
Key: TypeAlias = tuple[int, int]
"""(sender, fragment)."""


@dataclass(slots=True)
class Traffic:
    """Cumulative counts of one node. Messages, but for the two ``total_*`` in bytes.

    Invariants: ``made = sent + dropped + len(outqueue)`` on the sending side; on the receiving side
    ``received = aggregated + replaced + discarded + held`` where held is ``InQueue.held``.
    """

    made: int = 0
    sent: int = 0
    dropped: int = 0
    received: int = 0
    aggregated: int = 0
    replaced: int = 0
    discarded: int = 0
    total_bytes: int = 0
    total_meta: int = 0


class OutQueue:
    """Messages made but not yet handed to the transport, in order.

    Args:
        traffic: the node's counters.
        batch_bytes: most payload that travels together (receivers accept no more than a whole model).
    """

    def __init__(self, traffic: Traffic, batch_bytes: int = 1 << 62) -> None:
        self._traffic = traffic
        self._batch_bytes = batch_bytes
        self._queue: deque[Outgoing] = deque()

    def __len__(self) -> int:
        """Messages waiting."""
        return len(self._queue)

    def extend(self, items: Iterable[Outgoing]) -> None:
        """Append ``items``."""
        before = len(self._queue)
        self._queue.extend(items)
        self._traffic.made += len(self._queue) - before

    def replace(self, items: Iterable[Outgoing]) -> None:
        """Flush: drop everything that was not sent (it is stale), then append ``items``."""
        self._traffic.dropped += len(self._queue)
        self._queue.clear()
        self.extend(items)

    def pop(self) -> Outgoing:
        """Remove and return the first message.

        Raises:
            IndexError: nothing is waiting.
        """
        destination, message = self._queue.popleft()
        self._traffic.sent += 1
        self._traffic.total_bytes += message.values.nbytes
        return destination, message

    def pop_all(self) -> list[tuple[int, list[Message]]]:
        """Remove everything, grouped by destination and round, in order of first appearance.

        What is in one group can travel together; a group of more than ``batch_bytes`` is cut.
        """
        batches: defaultdict[tuple[int, int], list[Message]] = defaultdict(list)
        for destination, message in self._queue:
            batches[destination, message.round].append(message)
            self._traffic.total_bytes += message.values.nbytes
        self._traffic.sent += len(self._queue)
        self._queue.clear()
        return [(destination, cut) for (destination, _), batch in batches.items() for cut in self._cut(batch)]

    def _cut(self, batch: list[Message]) -> list[list[Message]]:
        if len(batch) == 1 or sum(message.values.nbytes for message in batch) <= self._batch_bytes:
            return [batch]
        length = max(1, self._batch_bytes // max(message.values.nbytes for message in batch))
        return [batch[start : start + length] for start in range(0, len(batch), length)]


class InQueue:
    """Received messages that were not aggregated yet.

    Args:
        traffic: the node's counters.
        keep_rounds: True keeps every message of every round apart (synchronous algorithms: neighbors may be
            one round ahead, and no message may be lost or aggregated early); False keeps the newest per
            (sender, fragment), replacing older ones on arrival (asynchronous ones, DivShare's InQueue), so
            that it holds at most one message per sender and fragment.
    """

    def __init__(self, traffic: Traffic, *, keep_rounds: bool) -> None:
        self._traffic = traffic
        self._keep_rounds = keep_rounds
        self._rounds: defaultdict[int, list[Message]] = defaultdict(list)
        self._latest: dict[Key, Message] = {}

    @property
    def held(self) -> int:
        """Messages received and neither aggregated nor replaced."""
        return len(self._latest) + sum(map(len, self._rounds.values()))

    def put(self, message: Message) -> None:
        """Store an arrived message."""
        self._traffic.received += 1
        if self._keep_rounds:
            self._rounds[message.round].append(message)
            return
        key = _key(message)
        old = self._latest.get(key)
        if old is not None:
            self._traffic.replaced += 1
            if old.round > message.round:
                return
        self._latest[key] = message

    def arrived(self, round_: int) -> int:
        """Number of messages held of ``round_``; O(1)."""
        return len(self._rounds.get(round_, ()))

    def missing(self, round_: int, expected: Counter[Key]) -> Counter[Key]:
        """What of ``expected`` has not arrived yet."""
        return expected - Counter(map(_key, self._rounds.get(round_, ())))

    def take_round(self, round_: int) -> list[Message]:
        """Remove and return all messages of ``round_``, sorted by (sender, fragment)."""
        taken = sorted(self._rounds.pop(round_, ()), key=_key)
        self._traffic.aggregated += len(taken)
        return taken

    def take_latest(self) -> list[Message]:
        """Remove and return the newest message per (sender, fragment), sorted by it."""
        taken = self.peek_latest()
        self._latest = {}
        self._traffic.aggregated += len(taken)
        return taken

    def peek_latest(self) -> list[Message]:
        """The newest message per (sender, fragment), sorted by it; they stay (SWIFT's mailbox)."""
        return [self._latest[key] for key in sorted(self._latest)]

    def discard(self) -> None:
        """Forget everything held, at the end of a run."""
        self._traffic.discarded += self.held
        self._rounds.clear()
        self._latest = {}


def _key(message: Message) -> Key:
    return message.sender, message.fragment
