"""The interface between a node and whatever carries its messages."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeAlias

from decentral.messages import Message

Batch: TypeAlias = tuple[int, Sequence[Message]]
"""(destination, messages that travel together); they share sender, round, kind, map and time."""


def grouped(outgoing: Iterable[tuple[int, Message]], batch_bytes: int) -> list[tuple[int, list[Message]]]:
    """(destination, message) pairs as batches, in order of first appearance.

    What is for one destination and shares round, kind and age travels together, up to ``batch_bytes`` of
    payload (receivers accept no more than a whole model at once).
    """
    batches: defaultdict[tuple[int, int, int, int], list[Message]] = defaultdict(list)
    for destination, message in outgoing:
        batches[destination, message.round, message.kind, message.age].append(message)
    return [
        (destination, cut) for (destination, *_), batch in batches.items() for cut in _cut(batch, batch_bytes)
    ]


def _cut(batch: list[Message], batch_bytes: int) -> list[list[Message]]:
    if len(batch) == 1 or sum(message.values.nbytes for message in batch) <= batch_bytes:
        return [batch]
    length = max(1, batch_bytes // max(message.values.nbytes for message in batch))
    return [batch[start : start + length] for start in range(0, len(batch), length)]


class Transport(Protocol):
    """Reliable, ordered per pair of nodes; used by its node's thread only."""

    @property
    def refused(self) -> Counter[str]:
        """Number of arrived frames that were refused, by reason."""
        ...

    def send(self, batches: Sequence[Batch]) -> int:
        """Hand over ``batches``; never blocks. Returns the header bytes spent."""
        ...

    def receive(self, waiting_for: Callable[[], str]) -> list[Message]:
        """Block until a batch has arrived and return its messages.

        Args:
            waiting_for: words what is missing, for the error.

        Raises:
            StalledError: nothing arrived within the liveness timeout (real transports).
            Deadlock: nothing can arrive any more (inline).
        """
        ...

    def close(self) -> None:
        """Release sockets; unsent messages are lost. May be called twice."""
        ...
