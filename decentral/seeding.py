"""Named, counter-based random streams.

Every draw of a run comes from a stream that is named by *what it is for* and numbered by *where it
is used* (round, node, fragment), never by how many draws came before. Two processes that ask for the
same name and counters get the same numbers, so a shared draw (a graph, a fragment map) needs no
coordinator, and the order in which nodes run cannot change a result.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Seeds:
    """All streams of one run. Streams that belong to one node are named ``node/...`` (``Node.rng``).

    Args:
        run_seed: the experiment's seed, any non-negative integer.
    """

    run_seed: int

    def _digest(self, name: str, counters: tuple[int, ...]) -> bytes:
        # A numpy integer names the same stream as a Python one; a slash in a name is no counter.
        text = repr((name, int(self.run_seed), tuple(map(int, counters))))
        return hashlib.blake2b(text.encode(), digest_size=16, person=b"decentral").digest()

    def rng(self, name: str, *counters: int) -> np.random.Generator:
        """A fresh generator positioned at the start of stream ``(name, run_seed, *counters)``.

        Calling it twice gives two generators that yield the same numbers.
        """
        key = np.frombuffer(self._digest(name, counters), dtype=np.uint64)
        return np.random.Generator(np.random.Philox(key=key))

    def integer(self, name: str, *counters: int) -> int:
        """A 63-bit integer of the stream, for libraries that take a seed (torch, networkx)."""
        return int.from_bytes(self._digest(name, counters)[:8], "little") >> 1
