"""What a node wants to send and what it has received, with exact accounting. One thread; no I/O."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from decentral.checkpoint.state import Stateful
from decentral.errors import RunFailed
from decentral.medium import Medium, Outgoing
from decentral.messages import Message
from decentral.speech import Role

Key: TypeAlias = tuple[int, int]
"""(sender, fragment)."""


@dataclass(slots=True)
class Traffic:
    """Cumulative counts of one node: messages, and payload bytes where the name says so.

    What becomes of what was made is counted where it is decided: per link by the emulated network
    (``decentral.network.ledger``), per node by ``Medium.totals``. On the receiving side
    ``received = aggregated + replaced + discarded + held`` where held is ``InQueue.held``.
    """

    made: int = 0
    made_bytes: int = 0
    received: int = 0
    aggregated: int = 0
    replaced: int = 0
    discarded: int = 0


class OutQueue:
    """Messages of an asynchronous algorithm, sent one after the other as the network lets them.

    Args:
        medium: holds the queue, because what leaves it depends on time.
        traffic: the node's counters.
        node: its id.
        n: number of nodes.
    """

    def __init__(self, medium: Medium, traffic: Traffic, *, node: int, n: int) -> None:
        self._medium = medium
        self._traffic = traffic
        self._node = node
        self._n = n

    def extend(self, items: Iterable[Outgoing]) -> None:
        """Append ``items``; what is queued already goes first."""
        self.put(items, role=Role.LATEST)

    def replace(self, items: Iterable[Outgoing]) -> None:
        """Flush: drop everything whose transfer has not started (it is stale), then append ``items``."""
        self.put(items, role=Role.LATEST, flush=True)

    def put(
        self, items: Iterable[Outgoing], *, role: Role, flush: bool = False, at_ns: int | None = None
    ) -> None:
        """As ``Medium.put``, counted."""
        outgoing = list(items)
        self.count(outgoing)
        self._medium.put(outgoing, role=role, flush=flush, at_ns=at_ns)

    def count(self, outgoing: Iterable[Outgoing]) -> None:
        """Count messages as made.

        Raises:
            RunFailed: one of them is for no other node.
        """
        for destination, message in outgoing:
            if not 0 <= destination < self._n or destination == self._node:
                raise RunFailed(
                    f"node {self._node} sends to node {destination}: expected another node, 0 to "
                    f"{self._n - 1}; choose from node.peers"
                )
            self._traffic.made += 1
            self._traffic.made_bytes += self._medium.payload_bytes(message)


class InQueue(Stateful):
    """Received messages that were not aggregated yet.

    Args:
        traffic: the node's counters.
        keep_rounds: True keeps every message of every round apart (synchronous algorithms: neighbors may be
            one round ahead, and no message may be lost or aggregated early); False keeps the newest per
            (sender, fragment), replacing older ones on arrival (asynchronous ones, DivShare's InQueue), so
            that it holds at most one message per sender and fragment.
        fetch: brings in, by ``put``, what has arrived by now; called before anything newest is looked at.
    """

    GIVEN: ClassVar[str] = "_traffic _keep_rounds _fetch"

    def __init__(
        self, traffic: Traffic, *, keep_rounds: bool, fetch: Callable[[], None] | None = None
    ) -> None:
        self._traffic = traffic
        self._keep_rounds = keep_rounds
        self._fetch = fetch or (lambda: None)
        self._rounds: defaultdict[int, list[Message]] = defaultdict(list)
        self._latest: dict[Key, Message] = {}
        self._used: set[Key] = set()

    @property
    def held(self) -> int:
        """Messages received and neither aggregated nor replaced."""
        return len(self._latest) - len(self._used) + sum(map(len, self._rounds.values()))

    def put(self, message: Message) -> None:
        """Store an arrived message."""
        self._traffic.received += 1
        if self._keep_rounds:
            self._rounds[message.round].append(message)
            return
        key = _key(message)
        old = self._latest.get(key)
        if old is not None:
            used = key in self._used
            if old.round > message.round:
                self._traffic.replaced += 1
                return
            self._used.discard(key)
            self._traffic.replaced += not used
            del self._latest[key]  # so that the order is that of arrival
        self._latest[key] = message

    def arrived(self, round_: int) -> int:
        """Number of messages held of ``round_``; O(1)."""
        return len(self._rounds.get(round_, ()))

    def missing(self, round_: int, expected: Counter[Key]) -> Counter[Key]:
        """What of ``expected`` has not arrived yet."""
        return expected - Counter(map(_key, self._rounds.get(round_, ())))

    def due(self, round_: int, expected: Counter[Key], lost: Collection[int]) -> Counter[Key]:
        """``expected`` of ``round_`` without what is not here of ``lost`` senders."""
        if not lost:
            return expected
        missing = self.missing(round_, expected)
        return expected - Counter({key: count for key, count in missing.items() if key[0] in lost})

    def take_round(self, round_: int) -> list[Message]:
        """Remove and return all messages of ``round_``, sorted by (sender, fragment)."""
        taken = sorted(self._rounds.pop(round_, ()), key=_key)
        self._traffic.aggregated += len(taken)
        return taken

    def take_latest(self) -> list[Message]:
        """Remove and return the newest message per (sender, fragment) that has arrived, sorted by it."""
        self._bring_newest()
        taken = [self._latest[key] for key in sorted(self._latest)]
        self._traffic.aggregated += len(taken) - len(self._used)
        self._clear()
        return taken

    def peek_latest(self) -> list[Message]:
        """The newest message per (sender, fragment), sorted by it; they stay (SWIFT's mailbox).

        A message counts as aggregated when it is first returned.
        """
        self._bring_newest()
        self._traffic.aggregated += len(self._latest) - len(self._used)
        self._used = set(self._latest)
        return [self._latest[key] for key in sorted(self._latest)]

    def take_newest(self) -> Message | None:
        """The message that arrived last, if any; all others are discarded (Gossip Learning while busy)."""
        self._bring_newest()
        if not self._latest:
            return None
        newest = next(reversed(self._latest.values()))
        fresh = _key(newest) not in self._used
        self._traffic.aggregated += fresh
        self._traffic.discarded += self.held - fresh
        self._clear()
        return newest

    def discard(self) -> None:
        """Forget everything held, at the end of a run."""
        self._traffic.discarded += self.held
        self._rounds.clear()
        self._clear()

    def _bring_newest(self) -> None:
        if self._keep_rounds:
            raise RunFailed(
                "take_latest() and the like in an algorithm with synchronous = True: its messages are kept "
                "by round; use node.exchange, or set synchronous = False"
            )
        self._fetch()

    def _clear(self) -> None:
        self._latest = {}
        self._used = set()


def _key(message: Message) -> Key:
    return message.sender, message.fragment
