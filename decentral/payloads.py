"""Payloads at both ends of an emulated link, for as long as their messages need them and no longer."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable

from decentral.checkpoint.state import Stateful
from decentral.medium import Outgoing
from decentral.messages import Kind, Message


class Outbox(Stateful):
    """Payloads whose transfers have not started.

    Transfers to one destination start in the order of the queue. So what is still here when a later one to
    the same destination starts was lost on the way, which nobody tells its sender.
    """

    def __init__(self) -> None:
        self._entries: dict[int, Outgoing] = {}
        self._order: defaultdict[int, deque[int]] = defaultdict(deque)

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, sequence: int, entry: Outgoing) -> None:
        """Keep message ``sequence``; per destination in the order of the queue."""
        self._entries[sequence] = entry
        self._order[entry[0]].append(sequence)

    def take(self, sequence: int) -> Outgoing | None:
        """The transfer of message ``sequence`` has started; None if it is not here (yet)."""
        entry = self._entries.pop(sequence, None)
        if entry is not None:
            order = self._order[entry[0]]
            while (earlier := order.popleft()) != sequence:
                self._entries.pop(earlier)
        return entry

    def forget(self, before: int) -> None:
        """A flush dropped all that is here with a sequence number less than ``before``."""
        if next(iter(self._entries), before) >= before:
            return
        self._entries = {sequence: entry for sequence, entry in self._entries.items() if sequence >= before}
        self._order.clear()
        for sequence, (destination, _) in self._entries.items():
            self._order[destination].append(sequence)


class Inbox(Stateful):
    """Payloads that are here though their messages have not arrived in emulated time, or were not taken."""

    def __init__(self) -> None:
        self._held: defaultdict[int, dict[int, Message]] = defaultdict(dict)
        self._closed = False

    def __len__(self) -> int:
        return sum(map(len, self._held.values()))

    def put(self, messages: Iterable[Message]) -> None:
        """Hold ``messages``."""
        for message in messages:
            if not self._closed or message.kind is Kind.REQUEST:
                self._held[message.sender][message.sequence] = message

    def has(self, sender: int, sequence: int) -> bool:
        """Whether a payload is here."""
        return sequence in self._held[sender]

    def take(self, sender: int, sequence: int) -> Message | None:
        """The payload of a message that has arrived in emulated time; None if it is not here yet."""
        held = self._held[sender]
        return held.pop(sequence, None)

    def close(self) -> None:
        """The node has left: it needs nothing but requests, which it goes on serving."""
        self._closed = True
        held, self._held = self._held, defaultdict(dict)
        for messages in held.values():
            self.put(messages.values())
