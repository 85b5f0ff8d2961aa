"""A small serial network with known outcome, and ``network.jsonl`` as its run writes it."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FATES = (
    "delivered",
    "replaced",
    "dropped_flush",
    "dropped_abort",
    "dropped_loss",
    "dropped_end",
    "in_flight",
)
FAST_BPS = 60e6


@dataclass(frozen=True)
class Transfer:
    """One transfer of one message; ``fate`` is one of ``FATES``."""

    destination: int
    round_: int
    start_s: float
    end_s: float
    fate: str


@dataclass(frozen=True)
class Uplink:
    """What one sender did.

    Attributes:
        refills: when it refilled its queue, one per round from round 1.
        transfers: in order.
        dropped: (destination, fate) of every message that never started.
        dropped_by: messages dropped by each refill: shape (rounds,).
    """

    node: int
    nodes: int
    refills: Sequence[float]
    transfers: Sequence[Transfer]
    dropped: Sequence[tuple[int, str]]
    dropped_by: Sequence[int]

    def sent_by(self, time_s: float) -> int:
        """Messages whose transfer has ended."""
        return sum(transfer.end_s <= time_s for transfer in self.transfers)


def serve(
    node: int, nodes: int, *, refills: Sequence[float], messages: int, each_s: float, end_s: float
) -> Uplink:
    """Serve one uplink, one transfer at a time: every refill drops what has not started and queues anew.

    Every fifth message is superseded after it arrived; at ``end_s`` what is queued is dropped and what is
    under way stays in flight.
    """
    transfers: list[Transfer] = []
    dropped: list[tuple[int, str]] = []
    dropped_by = []
    free = 0.0
    for number, (begin, until) in enumerate(zip(refills, [*refills[1:], end_s], strict=True), start=1):
        queue = [(node + 1 + m % (nodes - 1)) % nodes for m in range(messages)]
        free = max(free, begin)
        while queue and free < until:
            fate = (
                "in_flight"
                if free + each_s > end_s
                else "replaced"
                if len(transfers) % 5 == 4
                else "delivered"
            )
            transfers.append(Transfer(queue.pop(0), number, free, free + each_s, fate))
            free += each_s
        fate = "dropped_end" if number == len(refills) else "dropped_flush"
        dropped += [(destination, fate) for destination in queue]
        dropped_by.append(len(queue))
    return Uplink(node, nodes, refills, transfers, dropped, [0, *dropped_by[:-1]])


def network_lines(
    uplinks: Sequence[Uplink],
    *,
    header: dict[str, Any],
    rates: Sequence[float | None],
    message_bytes: int,
    end_s: float,
    logged_s: float,
) -> list[dict[str, Any]]:
    """The lines of ``network.jsonl``; transfers that began within ``logged_s`` are listed."""
    lines: list[dict[str, Any]] = [{"v": 1, "event": "header", "nodes": len(uplinks), **header}]
    for uplink, rate in zip(uplinks, rates, strict=True):
        busy = sum(min(t.end_s, end_s) - t.start_s for t in uplink.transfers)
        ended = sum(t.fate != "in_flight" for t in uplink.transfers)
        fields = {"rate_bps": rate, "downlink_bps": rate, "busy_s": busy, "sent_bytes": ended * message_bytes}
        lines.append(
            {"event": "uplink", "node": uplink.node, **fields, "time_s": end_s, "utilisation": busy / end_s}
        )
    for uplink in uplinks:
        fates = [*((t.destination, t.fate) for t in uplink.transfers), *uplink.dropped]
        count = Counter(fates)
        to = sorted({destination for destination, _ in fates})
        table = {"made": [sum(count[j, fate] for fate in FATES) for j in to]}
        table |= {fate: [count[j, fate] for j in to] for fate in FATES}
        sizes = {f"{name}_bytes": [value * message_bytes for value in row] for name, row in table.items()}
        lines.append({"event": "links", "node": uplink.node, "to": to, **table, **sizes})
    for uplink in uplinks:
        for number, t in enumerate(uplink.transfers):
            if t.start_s < logged_s:
                about = {"node": uplink.node, "to": t.destination, "fragment": number % 3, "tag": t.round_}
                span = {
                    "start_s": t.start_s,
                    "end_s": t.end_s,
                    "bytes": message_bytes,
                    "outcome": "delivered",
                }
                lines.append({"event": "transfer", **about, **span})
    lines.append({"event": "end", "time_s": end_s, "reason": "done", "cpu_s": 0.5})
    return lines


def write_lines(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    """Write JSON lines."""
    assert all(math.isfinite(v) for line in lines for v in line.values() if isinstance(v, float))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
