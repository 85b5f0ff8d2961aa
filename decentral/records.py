"""The log schema: one JSON object a line, appended and flushed, never rewritten.

Every file starts with a ``header`` event and is valid up to any line, however its writer ended.

``nodes/007.jsonl``, one per node:

=============  ==========================================================================================
``header``     ``v run arm seed node host pid algorithm nodes d metric higher_is_better shard start_unix_s``
``round``      ``node round time_s wall_s train_s wait_s train_loss`` + traffic counters
``evaluation`` ``node round time_s wall_s split samples final total_bytes test_loss test_<metric>...``
``lost``       ``node peer time_s round``: from ``time_s`` on ``node`` goes on without ``peer``, whose process
               has ended; noted at the end of ``round``
``end``        ``node round time_s wall_s reason model_sha256`` + traffic counters
=============  ==========================================================================================

``metrics.jsonl``, one per run, written by the observer from the nodes' snapshots of the same round:

=============  ==========================================================================================
``header``     ``v run arm seed algorithm nodes d metric higher_is_better``
``evaluation`` ``round time_s split samples final models consensus test_loss test_<metric>...`` where the
               ``test_*`` are those of the uniform mean of all nodes' models (avg_model)
``end``        ``reason`` and what the observer refused
=============  ==========================================================================================

Nodes of asynchronous algorithms reach one round at different times: their ``metrics.jsonl`` is on a common
time grid, every node counting with its last snapshot at or before ``time_s``, and ``round`` is the one that a
node of nominal speed has reached by then.

``network.jsonl``, one per run, written at the end, also of a run that was cut short (in real time without
``transfer`` events):

=============  ==========================================================================================
``header``     ``v run arm seed nodes contention concurrency abort_on_flush overhead_bytes overhead_s loss
               jitter_s compute_s``
``uplink``     ``node rate_bps downlink_bps busy_s sent_bytes time_s utilisation``; a null rate is unlimited
``links``      ``node to`` and, as long as ``to`` (destinations), ``made delivered replaced dropped_flush
               dropped_abort dropped_loss dropped_end dropped_lost_node in_flight``, and each with ``_bytes``;
               per link made = delivered + replaced + all dropped + in_flight
``transfer``   ``node to fragment tag start_s end_s bytes outcome`` of the first seconds, for the timeline
``end``        ``time_s reason cpu_s`` and what the timekeeper refused
=============  ==========================================================================================

Traffic counters are cumulative: ``made_bytes`` (payload put into the queue), ``total_bytes`` (payload whose
transfer is over), ``dropped_bytes``, ``total_meta`` (header bytes really sent) and ``made sent received
aggregated replaced discarded dropped`` (messages). ``staleness`` is the mean number of rounds
between the making of a message and its aggregation in this round: 0 for synchronous algorithms, null if
nothing was aggregated. An ``end`` also has ``refused_<reason>`` for every kind of frame that was refused, and
where peers were lost ``missed``, their messages that the network delivered but whose content was lost too.
``round`` counts finished local rounds: the first ``round`` event has ``round = 1``, and an ``evaluation``
with ``round = 0`` is the initial model. ``time_s`` is the run's own clock since the start barrier (emulated
seconds under a virtual clock), ``wall_s`` real seconds since it; neither advances during evaluation.
``final`` evaluations use the whole split, others the fixed subset of ``evaluate.samples`` rows. A number
that is not finite is written as null. ``total_bytes, total_meta, train_loss, test_loss, test_acc`` keep
DecentralizePy's names.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Literal, Protocol, TypeAlias

from decentral.disk import sync, unwritable

SCHEMA_VERSION = 1

Value: TypeAlias = str | int | float | bool | list[int] | list[float] | None
EventName: TypeAlias = Literal["header", "round", "evaluation", "lost", "end", "uplink", "links", "transfer"]


class Recorder(Protocol):
    """Where a node's events go."""

    @property
    def nbytes(self) -> int:
        """Length of the log so far."""
        ...

    def write(self, event: EventName, **fields: Value) -> None:
        """Append one event. It is on its way to the disk when this returns (flushed, not synced)."""
        ...

    def sync(self) -> None:
        """All that was appended survives a power cut."""
        ...


def refusals(counts: Mapping[str, int]) -> dict[str, Value]:
    """Fields of an ``end`` for what was refused, from ``counts`` by reason."""
    return {f"refused_{why}": count for why, count in counts.items()}


def _finite(value: Value) -> Value:
    return None if isinstance(value, float) and not math.isfinite(value) else value


class FileRecorder:
    """Appends events to one file, which it creates together with its folder.

    Args:
        path: must not exist yet, unless ``resumed``: a log is never continued by another writer.
        resumed: go on with the log of a run that is resumed, which was cut to its length at the checkpoint.

    Raises:
        PreflightError: the file cannot be made or written (full disk, read-only folder); names the path.
    """

    def __init__(self, path: Path, *, resumed: bool = False) -> None:
        self._path = path
        self._known = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file: IO[str] = path.open("a" if resumed else "x", encoding="utf-8")
        except OSError as error:
            raise unwritable(self._path, error) from error

    def write(self, event: EventName, **fields: Value) -> None:
        """Append one event and flush it."""
        line = {"event": event, **{key: _finite(value) for key, value in fields.items()}}
        if event == "header":
            line = {"v": SCHEMA_VERSION, **line}
        try:
            self._file.write(json.dumps(line, separators=(",", ":"), allow_nan=False) + "\n")
            self._file.flush()
        except OSError as error:
            raise unwritable(self._path, error) from error

    @property
    def nbytes(self) -> int:
        """Length of the log so far."""
        return self._file.tell()

    def sync(self) -> None:
        """All that was appended, and that there is such a file, survives a power cut."""
        try:
            os.fsync(self._file.fileno())
            if not self._known:
                sync(self._path.parent)
                self._known = True
        except OSError as error:
            raise unwritable(self._path, error) from error

    def close(self) -> None:
        """Close the file; writing afterwards is an error."""
        try:
            self._file.close()
        except OSError as error:
            raise unwritable(self._path, error) from error


class MemoryRecorder:
    """Keeps events in a list, for tests."""

    def __init__(self) -> None:
        self.events: list[dict[str, Value]] = []

    @property
    def nbytes(self) -> int:
        """Number of events: in place of bytes."""
        return len(self.events)

    def write(self, event: EventName, **fields: Value) -> None:
        """Append one event."""
        self.events.append({"event": event, **{key: _finite(value) for key, value in fields.items()}})

    def sync(self) -> None:
        """Nothing of it survives."""
