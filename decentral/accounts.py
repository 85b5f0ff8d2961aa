"""What became of every message of a wall-clock run: what both ends of each link report, put together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from decentral.clock import NS_PER_S
from decentral.errors import DecentralError
from decentral.pacing import Pacer


def sent_account(node: int, pacer: Pacer) -> dict[str, Any]:
    """What ``node`` knows of what it sent: ``node links busy_s sent_bytes``; after the pacer's ``close``."""
    links = pacer.links
    rows = {row["node"]: row for row in links.ledger.rows()}
    busy_s = links.busy_ns[node] / NS_PER_S
    return {"node": node, "links": rows[node], "busy_s": busy_s, "sent_bytes": pacer.totals.sent_bytes}


def link_rows(reports: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows as of ``Ledger.rows``, one per sender that reported (``WallMedium.report``).

    A sender counts as delivered what it handed over when it was due. Where the receiver has reported too,
    what it did not get before its end is moved to in flight, and what was superseded there to replaced.

    Raises:
        DecentralError: a node received more than was sent to it.
    """
    by_node = {int(report["node"]): report for report in reports}
    rows = []
    for i in sorted(by_node):
        row = {name: list(value) if name != "node" else value for name, value in by_node[i]["links"].items()}
        for k, j in enumerate(row["to"]):
            if j in by_node:
                got, replaced = (_of(by_node[j][name], i) for name in ("received", "replaced"))
                for unit, suffix in enumerate(("", "_bytes")):
                    _settle(row, k, suffix, got[unit], replaced[unit])
        rows.append(row)
    return rows


def _of(tallies: Iterable[list[int]], sender: int) -> tuple[int, int]:
    for each, messages, nbytes in tallies:
        if each == sender:
            return messages, nbytes
    return 0, 0


def _settle(row: dict[str, Any], k: int, suffix: str, got: int, replaced: int) -> None:
    delivered = f"delivered{suffix}"
    missing = row[delivered][k] - got
    if missing < 0:
        raise DecentralError(
            f"link {row['node']} -> {row['to'][k]}: {got} {suffix[1:] or 'messages'} received, expected "
            f"at most the {row[delivered][k]} handed over; report this as a bug of the paced links"
        )
    row[f"in_flight{suffix}"][k] += missing
    row[f"replaced{suffix}"][k] += replaced
    row[delivered][k] = got - replaced
