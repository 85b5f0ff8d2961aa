"""What became of every message, per link: made = delivered + replaced + dropped + in flight, exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from decentral.checkpoint.state import Stateful
from decentral.errors import DecentralError
from decentral.network.model import Item

Reason: TypeAlias = Literal["flush", "abort", "loss", "end", "lost_node"]
REASONS: tuple[Reason, ...] = ("flush", "abort", "loss", "end", "lost_node")
"""Why a message was dropped: unsent at a flush, cut by a flush, lost on the link, unsent at the end; not yet
there when its sender was lost, or arrived at a lost node."""


class Tally(Stateful):
    """Messages and payload bytes of every link. A sender's row comes into being with its first message.

    Args:
        n: number of nodes.
    """

    GIVEN: ClassVar[str] = "_n"

    def __init__(self, n: int) -> None:
        self._n = n
        # Lists, since adding to an element of array.array or numpy takes three times as long.
        self._messages: list[list[int]] = [[] for _ in range(n)]
        self._bytes: list[list[int]] = [[] for _ in range(n)]

    def add(self, sender: int, destination: int, nbytes: int) -> None:
        """Count one message."""
        messages = self._messages[sender] or self._open(sender)
        messages[destination] += 1
        self._bytes[sender][destination] += nbytes

    def add_all(self, sender: int, items: Iterable[Item]) -> int:
        """Count ``items`` and return their payload bytes in all."""
        messages = self._messages[sender] or self._open(sender)
        by_destination = self._bytes[sender]
        total = 0
        for item in items:
            destination = item[0]
            nbytes = item[1]
            messages[destination] += 1
            by_destination[destination] += nbytes
            total += nbytes
        return total

    def move(self, sender: int, destination: int, nbytes: int, other: Tally) -> bool:
        """Count one message less here and one more in ``other``; False (and no change) if it is not here."""
        if not self._messages[sender] or not self._messages[sender][destination]:
            return False
        if self._bytes[sender][destination] < nbytes:
            return False
        self._messages[sender][destination] -= 1
        self._bytes[sender][destination] -= nbytes
        other.add(sender, destination, nbytes)
        return True

    def columns(self, sender: int) -> NDArray[np.int64]:
        """Shape (2, n): messages, then bytes, of ``sender`` by destination; a copy."""
        if not self._messages[sender]:
            return np.zeros((2, self._n), dtype=np.int64)
        return np.array((self._messages[sender], self._bytes[sender]), dtype=np.int64)

    def _open(self, sender: int) -> list[int]:
        self._messages[sender] = [0] * self._n
        self._bytes[sender] = [0] * self._n
        return self._messages[sender]


class Ledger(Stateful):
    """The accounts of one emulated network.

    Args:
        n: number of nodes.

    Attributes:
        made, delivered, replaced: tallies; ``delivered`` are those that arrived and were not superseded.
        dropped: a tally per reason.
        held: yields (sender, item) of everything that the links hold (queued, in progress, travelling);
            ``Links`` sets it. None: nothing is held.
    """

    GIVEN: ClassVar[str] = "n held"

    def __init__(self, n: int) -> None:
        self.n = n
        self.made = Tally(n)
        self.delivered = Tally(n)
        self.replaced = Tally(n)
        self.dropped: dict[Reason, Tally] = {reason: Tally(n) for reason in REASONS}
        self.held: Callable[[], Iterable[tuple[int, Item]]] | None = None

    def replace(self, sender: int, destination: int, nbytes: int) -> None:
        """A delivered message was superseded before its receiver used it: move it to ``replaced``.

        Raises:
            DecentralError: the link has delivered nothing that could be replaced.
        """
        if not self.delivered.move(sender, destination, nbytes, self.replaced):
            messages, by_bytes = self.delivered.columns(sender)[:, destination]
            raise DecentralError(
                f"link {sender} -> {destination}: {nbytes} bytes to replace, expected a delivered message "
                f"but {messages} of {by_bytes} bytes in all are delivered; replace a message once, after it "
                "arrived"
            )

    def at_nobody(self, sender: int, destination: int, nbytes: int) -> None:
        """What was delivered just now came to a lost node: move it to ``dropped["lost_node"]``."""
        self.delivered.move(sender, destination, nbytes, self.dropped["lost_node"])

    def in_flight(self, sender: int) -> NDArray[np.int64]:
        """Messages and bytes made of which nothing became yet: queued, in progress or travelling.

        Returns:
            Shape (2, n): messages, then bytes, by destination.
        """
        settled = (self.delivered, self.replaced, *self.dropped.values())
        return self.made.columns(sender) - sum(tally.columns(sender) for tally in settled)

    def check(self) -> None:
        """Compare every link's account with what the links really hold.

        Raises:
            DecentralError: they differ; names the first link.
        """
        held = Tally(self.n)
        for sender, item in self.held() if self.held is not None else ():
            held.add(sender, item.destination, item.nbytes)
        for sender in range(self.n):
            booked, real = self.in_flight(sender), held.columns(sender)
            wrong = np.flatnonzero((booked != real).any(axis=0))
            if wrong.size:
                j = int(wrong[0])
                raise DecentralError(
                    f"link {sender} -> {j}: {booked[0, j]} messages of {booked[1, j]} bytes in flight by the "
                    f"accounts, expected the {real[0, j]} of {real[1, j]} bytes that the link holds; "
                    "report this as a bug of the emulated network"
                )

    def rows(self) -> Iterator[dict[str, Any]]:
        """One row per sender for the log (event ``links`` of network.jsonl); only links that were used.

        Yields:
            ``node``, ``to`` (destinations), and one list as long as ``to`` for ``made``, ``delivered``,
            ``replaced``, ``dropped_<reason>``, ``in_flight`` in messages, and for ``<name>_bytes`` in bytes.
        """
        tallies = {"made": self.made, "delivered": self.delivered, "replaced": self.replaced}
        tallies |= {f"dropped_{reason}": tally for reason, tally in self.dropped.items()}
        for sender in range(self.n):
            columns = {name: tally.columns(sender) for name, tally in tallies.items()}
            columns["in_flight"] = self.in_flight(sender)
            used = np.flatnonzero(columns["made"][0])
            row: dict[str, Any] = {"node": sender, "to": used.tolist()}
            for name, (messages, nbytes) in columns.items():
                row[name] = messages[used].tolist()
                row[f"{name}_bytes"] = nbytes[used].tolist()
            yield row
