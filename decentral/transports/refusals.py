"""What one socket refused."""

from __future__ import annotations

import threading
from collections import Counter


class Refusals:
    """Counts by reason. Any thread may count or read: under the wall clock one receives and another logs."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def count(self, reason: str) -> None:
        """Something was refused."""
        with self._lock:
            self._counts[reason] += 1

    def counts(self) -> Counter[str]:
        """A copy of the counts so far."""
        with self._lock:
            return Counter(self._counts)
