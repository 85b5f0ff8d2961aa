"""The interface between a node and whatever carries its messages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from decentral.messages import Message

Batch: TypeAlias = tuple[int, Sequence[Message]]
"""(destination, messages that travel together); they share sender, round, kind, map and time."""


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
