"""What travels together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from decentral.messages import Message

Batch: TypeAlias = tuple[int, Sequence[Message]]
"""(destination, messages that travel together); they share sender, round, kind, map and time."""


def grouped(outgoing: Iterable[tuple[int, Message]], batch_bytes: int) -> list[tuple[int, list[Message]]]:
    """(destination, message) pairs as batches, in order of first appearance.

    What is for one destination and shares round, kind and age travels together, up to ``batch_bytes`` of
    payload (receivers accept no more than a whole model at once).
    """
    batches: defaultdict[tuple[int, int, int, int], list[Message]] = defaultdict(list)
    for destination, message in outgoing:
        batches[destination, message.round, message.kind, message.age].append(message)
    return [
        (destination, cut) for (destination, *_), batch in batches.items() for cut in _cut(batch, batch_bytes)
    ]


def _cut(batch: list[Message], batch_bytes: int) -> list[list[Message]]:
    if len(batch) == 1 or sum(message.values.nbytes for message in batch) <= batch_bytes:
        return [batch]
    length = max(1, batch_bytes // max(message.values.nbytes for message in batch))
    return [batch[start : start + length] for start in range(0, len(batch), length)]
