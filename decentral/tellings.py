"""What the timekeeper is about to tell nodes, and whom it owes a notice since others need its payloads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from decentral.checkpoint.state import Stateful
from decentral.network.links import Links
from decentral.speech import Answer, Gone, Notice, Served, Stop, Telling, Totals
from decentral.standing import Standing


class Tellings(Stateful):
    """Collects what is to be told, in order.

    Args:
        links: whose started transfers their senders are told of.
        nodes: what each serves.
    """

    GIVEN: ClassVar[str] = "_links _nodes"

    def __init__(self, links: Links, nodes: Sequence[Standing]) -> None:
        self._links = links
        self._nodes = nodes
        self._tellings: list[Telling] = []
        self._needed: set[int] = set()

    def answer(self, number: int, at_ns: int, complete: bool, arrived: Sequence[tuple[int, int]]) -> None:
        """Node ``number`` is answered at ``at_ns``: ``arrived`` (sender, sequence) since the last time."""
        served, started = self._take(number)
        answer = Answer(number, at_ns, complete, arrived, served, started, self._totals(number))
        self._tellings.append(answer)
        self._needed.update([sender for sender, _ in arrived], [each.requester for each in served])

    def gone(self, peer: int, until_ns: int) -> None:
        """All that are left hear that ``peer`` is lost and when it is given up."""
        living = [number for number, node in enumerate(self._nodes) if not node.lost]
        self._tellings += [Gone(number, peer, until_ns) for number in living]

    def stop(self, end_ns: int) -> None:
        """All nodes have left."""
        last = [self._take(number) for number in range(len(self._nodes))]
        asking = {each.requester for served, _ in last for each in served}
        for number, (served, started) in enumerate(last):
            if self._nodes[number].lost:
                continue
            pushed = started if number in asking else []
            self._tellings.append(Stop(number, end_ns, served, pushed, self._totals(number)))
        self._needed.clear()

    def all(self) -> list[Telling]:
        """What accumulated, and notices to those whose payloads it needs, and whose payloads those need."""
        while self._needed:
            needed, self._needed = self._needed, set()
            for number in sorted(needed):
                if self._nodes[number].served or number in self._links.started:
                    served, started = self._take(number)
                    if served or started:
                        self._tellings.append(Notice(number, served, started))
                        self._needed.update([each.requester for each in served])
        tellings, self._tellings = self._tellings, []
        return tellings

    def _take(self, number: int) -> tuple[list[Served], list[int]]:
        node = self._nodes[number]
        served, node.served = node.served, []  # even if empty: inline, what is told stays this very list
        started = self._links.started.pop(number, None)
        if not started:
            return served, []
        # Answers to requests are given numbers here and sent when they start, whoever sends them.
        return served, [sequence for sequence in started if sequence < 0] if node.eager else started

    def _totals(self, number: int) -> Totals:
        links = self._links
        return Totals(
            links.sent[number], links.sent_bytes[number], links.dropped[number], links.dropped_bytes[number]
        )
