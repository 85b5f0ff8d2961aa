"""Messages between nodes of one process under the inline scheduler: an ideal network, delivery at once."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence

from decentral.inline import Scheduler
from decentral.messages import Message, encode_header
from decentral.transports.base import Batch


class MemoryNetwork:
    """The mailboxes of all nodes of one run.

    Args:
        scheduler: wakes a receiver that waits.
        run: the run id that headers carry, for equal byte accounting with a real transport.
    """

    def __init__(self, scheduler: Scheduler, run: bytes) -> None:
        self.scheduler = scheduler
        self.run = run
        self.boxes: defaultdict[int, deque[list[Message]]] = defaultdict(deque)

    def endpoint(self, node: int) -> MemoryTransport:
        """The transport of ``node``."""
        return MemoryTransport(self, node)


class MemoryTransport:
    """One node's end of a ``MemoryNetwork``."""

    def __init__(self, network: MemoryNetwork, node: int) -> None:
        self._network = network
        self._node = node
        self._sequence: Counter[int] = Counter()
        self.refused: Counter[str] = Counter()

    def send(self, batches: Sequence[Batch]) -> int:
        """Put every batch into its destination's mailbox."""
        header_bytes = 0
        for destination, messages in batches:
            self._sequence[destination] += 1
            header_bytes += len(encode_header(self._network.run, self._sequence[destination], messages))
            self._network.boxes[destination].append(list(messages))
            self._network.scheduler.wake(destination)
        return header_bytes

    def receive(self, waiting_for: Callable[[], str]) -> list[Message]:
        """Next batch, in order of arrival."""
        box = self._network.boxes[self._node]
        while not box:
            self._network.scheduler.wait(self._node, waiting_for)
        return box.popleft()

    def close(self) -> None:
        """Forget what was not read."""
        self._network.boxes[self._node].clear()
