"""Numbers of batches at both ends of a transport: what went where, and what came whence."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from decentral.errors import WireError
from decentral.messages import SequenceWindow


class BatchNumbers:
    """One member's: batches to each destination are numbered 1, 2, ...; each of a sender's is taken once."""

    def __init__(self) -> None:
        self._sent: Counter[int] = Counter()
        self._seen: defaultdict[int, SequenceWindow] = defaultdict(SequenceWindow)

    def next(self, destination: int) -> int:
        """The number of a batch that goes to ``destination`` now."""
        self._sent[destination] += 1
        return self._sent[destination]

    def take(self, sender: int, batch: int) -> None:
        """A batch of ``sender`` has come.

        Raises:
            WireError: reason ``replayed``: it came before.
        """
        if not self._seen[sender].accept(batch):
            raise WireError("replayed", f"batch {batch} of node {sender} was already seen")

    @property
    def sent(self) -> list[tuple[int, int]]:
        """(destination, batches that went there so far)."""
        return sorted(self._sent.items())

    def has(self, expected: Iterable[tuple[int, int]]) -> bool:
        """Whether the first ``batches`` of every (sender, batches) have come."""
        return all(self._seen[sender].floor >= batches for sender, batches in expected)

    def state(self) -> dict[str, Any]:
        """For a checkpoint, at which nothing is on its way."""
        return {"sent": dict(self._sent), "seen": {i: window.floor for i, window in self._seen.items()}}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on counting."""
        self._sent.update(state["sent"])
        for sender, floor in state["seen"].items():
            self._seen[sender] = SequenceWindow.after(floor)
