"""What has arrived at a node in real time: filled by its receiving thread, emptied by the node's thread."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence

from decentral.errors import RunFailed, StalledError
from decentral.messages import Kind, Message
from decentral.observations import Samples
from decentral.speech import ANY


class Mailbox:
    """Messages, requests and news for one node.

    Args:
        node: its id.
        by_round: messages are waited for by their round (synchronous algorithms), not one as good as another.
        timeout_s: liveness timeout of ``wait``.

    Attributes:
        late_ns: per sender, by how much messages came after they should have.
        received: per sender, messages and payload bytes.
        replaced: per sender, those of them that a newer one superseded before the node took them.
    """

    def __init__(self, *, node: int, by_round: bool, timeout_s: float | None) -> None:
        self.late_ns: defaultdict[int, Samples] = defaultdict(Samples)
        self.received: defaultdict[int, list[int]] = defaultdict(lambda: [0, 0])
        self.replaced: defaultdict[int, list[int]] = defaultdict(lambda: [0, 0])
        self.requests: deque[Message] = deque()
        """To be served, in order of arrival; the node's thread takes them from the left."""
        self._node = node
        self._by_round = by_round
        self._timeout_s = timeout_s
        self._news = threading.Condition()
        self._messages: list[Message] = []
        self._untaken: dict[tuple[int, int], int] = {}
        self._counts: Counter[int] = Counter()
        self._awaited: set[int] = set()
        self._heard_s = time.monotonic()
        self._ended: list[tuple[int, int]] = []
        self._shut_out: set[int] = set()
        self._released = False
        self._failure: BaseException | None = None

    def deliver(self, messages: Sequence[Message], now_ns: int) -> None:
        """Take in what arrived together at ``now_ns`` on the shared clock; their ``time_ns``: when due."""
        with self._news:
            self._heard_s = time.monotonic()
            for message in messages:
                if message.sender not in self._shut_out:
                    self._take_in(message, now_ns)
            self._news.notify_all()

    def lose(self, peer: int, at_ns: int) -> None:
        """``peer`` has ended; it was told at ``at_ns`` on the node's clock."""
        with self._news:
            self._heard_s = time.monotonic()
            self._ended.append((peer, at_ns))
            self._news.notify_all()

    def take_ended(self) -> list[tuple[int, int]]:
        """Peers of whose end the node has not taken note, and when it was told."""
        with self._news:
            ended, self._ended = self._ended, []
            return ended

    def shut_out(self, peer: int) -> None:
        """``peer`` is given up: from now on nothing of it is taken in. What is here stays."""
        with self._news:
            self._heard_s = time.monotonic()
            self._shut_out.add(peer)

    def holds(self, tag: int, count: int) -> bool:
        """Whether ``count`` messages of ``tag`` are here that were not taken."""
        with self._news:
            return self._counts[tag] >= count

    def release(self) -> None:
        """All nodes have left."""
        with self._news:
            self._released = True
            self._news.notify_all()

    def fail(self, error: BaseException) -> None:
        """A thread of this node has ended with ``error``; the node's next call raises it."""
        with self._news:
            self._failure = self._failure or error
            self._news.notify_all()

    def check(self) -> None:
        """Raise what ended a thread of this node.

        Raises:
            RunFailed: that it ended, caused by why.
        """
        if self._failure is not None:
            raise RunFailed(
                f"node {self._node}: a thread of its links ended: {self._failure!r}"
            ) from self._failure

    def expect(self, tag: int) -> None:
        """The answer to a request will come under ``tag``."""
        with self._news:
            self._awaited.add(tag)

    def take(self, tag: int = ANY) -> list[Message]:
        """All messages that were not taken before; the answer to ``tag`` is not awaited any more."""
        self.check()
        with self._news:
            messages, self._messages = self._messages, []
            self._untaken.clear()
            self._counts.clear()
            self._awaited.discard(tag)
            return messages

    def wait(
        self, tag: int, count: int, timeout_s: float | None, what: Callable[[], str], *, patient: bool = False
    ) -> bool:
        """Block until ``count`` messages of ``tag``, a request or a loss are here, or ``timeout_s`` are over.

        Args:
            tag, count: what is waited for.
            timeout_s: None: for ever.
            what: words it.
            patient: however long nothing arrives, as a peer that has ended is still waited for.

        Returns:
            False if a request or a loss woke it, which is to be seen to before waiting on.

        Raises:
            StalledError: nothing arrived for the liveness timeout.
        """
        with self._news:
            start_s = time.monotonic()
            while self._counts[tag] < count:
                self.check()
                if self.requests or self._ended:
                    return False
                now_s = time.monotonic()
                left_s = None if timeout_s is None else start_s + timeout_s - now_s
                if left_s is not None and left_s <= 0:
                    break
                alive_s = None if patient else self._alive_s(start_s, now_s, what)
                self._news.wait(min((each for each in (left_s, alive_s) if each is not None), default=None))
            return True

    def await_release(self) -> bool:
        """Block until a request is here (False) or all nodes have left (True)."""
        with self._news:
            while not (self.requests or self._released):
                self.check()
                self._news.wait()
            return not self.requests

    def await_rest(self) -> None:
        """Block until all nodes have left."""
        with self._news:
            while not self._released:
                self.check()
                self._news.wait()

    def account(self) -> dict[str, list[list[int]]]:
        """``received`` and ``replaced``: per sender [sender, messages, bytes]."""
        tallies = {"received": self.received, "replaced": self.replaced}
        return {
            name: [[sender, *each] for sender, each in sorted(by.items())] for name, by in tallies.items()
        }

    def _alive_s(self, start_s: float, now_s: float, what: Callable[[], str]) -> float | None:
        if self._timeout_s is None:
            return None
        left_s = max(self._heard_s, start_s) + self._timeout_s - now_s
        if left_s <= 0:
            raise StalledError.after(self._timeout_s, self._node, what())
        return left_s

    def _take_in(self, message: Message, now_ns: int) -> None:
        sender, nbytes, kind = message.sender, message.nbytes, message.kind
        self.late_ns[sender].add(now_ns - message.time_ns)
        _count(self.received[sender], nbytes)
        if kind is Kind.REQUEST or kind is Kind.PING:
            self.requests.append(message)
        if kind is Kind.REQUEST:
            return
        if kind is Kind.REPLY:
            # One that comes after the node has given up is handed over, but nobody waits for it.
            if message.sequence in self._awaited:
                self._counts[message.sequence] += 1
        elif self._by_round:
            self._counts[message.round] += 1
        else:
            self._counts[ANY] += 1
            key = (sender, message.fragment)
            superseded = self._untaken.get(key)
            if superseded is not None:
                _count(self.replaced[sender], superseded)
            self._untaken[key] = nbytes
        if kind is Kind.PING:
            message = message._replace(kind=Kind.FRAGMENT)
        self._messages.append(message)


def _count(tally: list[int], nbytes: int) -> None:
    tally[0] += 1
    tally[1] += nbytes
