"""What a node in emulated time is tied to the others by, in this process or across processes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from decentral.medium import Outgoing
from decentral.messages import Message
from decentral.speech import Speech, Telling

Heard: TypeAlias = Telling | list[Message]
"""From the timekeeper, or payloads from other nodes."""


class Wire(Protocol):
    """How a ``VirtualMedium`` reaches the timekeeper and the other nodes, in this process or another."""

    @property
    def meta_bytes(self) -> int:
        """Header bytes sent so far."""
        ...

    @property
    def refused(self) -> Counter[str]:
        """Frames refused so far, by reason."""
        ...

    def speak(self, speech: Speech) -> None:
        """To the timekeeper; never blocks."""
        ...

    def leave(self, node: int, at_ns: int, drop: bool) -> None:
        """To the timekeeper; never blocks."""
        ...

    def push(self, outgoing: Sequence[Outgoing]) -> None:
        """Payloads to other nodes; never blocks."""
        ...

    def observe(self, message: Message) -> None:
        """A snapshot to the observer; never blocks."""
        ...

    def lost(self, peer: int) -> float:
        """``peer`` has ended: what it was still to be sent is forgotten.

        Returns:
            For how many real seconds payloads of it may still come.
        """
        ...

    def next(
        self,
        block: bool,
        what: Callable[[], str],
        *,
        patient: bool = False,
        within_s: float | None = None,
    ) -> Heard | None:
        """The next thing heard, the timekeeper's first; None if there is none and not ``block``.

        Args:
            block: wait for it.
            what: words what is waited for.
            patient: wait however long it takes, beyond the liveness timeout.
            within_s: wait so many real seconds at most; None then.
        """
        ...
