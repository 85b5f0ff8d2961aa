"""What one node knows of peers whose processes have ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import ClassVar

from decentral.checkpoint.state import Stateful
from decentral.network.model import INFINITE_NS


class Losses(Stateful, Mapping[int, int]):
    """Lost peers, each with the time from which on nothing is expected of it.

    Args:
        clock: real seconds.
    """

    GIVEN: ClassVar[str] = "_clock"

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._given_up_ns: dict[int, int] = {}
        self._silent_s: dict[int, float] = {}

    def __getitem__(self, peer: int) -> int:
        return self._given_up_ns[peer]

    def __iter__(self) -> Iterator[int]:
        return iter(self._given_up_ns)

    def __len__(self) -> int:
        return len(self._given_up_ns)

    def add(self, peer: int, at_ns: int, grace_s: float) -> None:
        """``peer`` has ended and is given up at ``at_ns``; its payloads may come for another ``grace_s``."""
        self._given_up_ns[peer] = at_ns
        self._silent_s[peer] = self._clock() + grace_s

    def by(self, now_ns: int) -> frozenset[int]:
        """Those that are given up by ``now_ns``."""
        return frozenset(peer for peer, at_ns in self._given_up_ns.items() if at_ns <= now_ns)

    def silent(self, peer: int) -> bool:
        """Whether ``peer`` is lost for so long that no payload of it comes any more."""
        return peer in self._silent_s and self._clock() >= self._silent_s[peer]

    def grace_s(self) -> float | None:
        """Real seconds until the next peer is silent; None where all are."""
        now_s = self._clock()
        return min((at_s - now_s for at_s in self._silent_s.values() if at_s > now_s), default=None)


class Patience:
    """Peers that have ended in real time, and for how long they are still waited for.

    Args:
        patience_ns: as long as this.
    """

    def __init__(self, patience_ns: int) -> None:
        self._patience_ns = patience_ns
        self._until_ns: dict[int, int] = {}

    def begin(self, ended: Iterable[tuple[int, int]]) -> None:
        """Peers have ended, as was told at these times."""
        self._until_ns.update((peer, at_ns + self._patience_ns) for peer, at_ns in ended)

    def next_ns(self) -> int:
        """When the next of them is to be given up; ``INFINITE_NS``: nobody is."""
        return min(self._until_ns.values(), default=INFINITE_NS)

    def over(self, now_ns: int) -> list[int]:
        """Those that are to be given up by ``now_ns``, each once."""
        over = [peer for peer, until_ns in self._until_ns.items() if until_ns <= now_ns]
        for peer in over:
            del self._until_ns[peer]
        return over
