"""A node's own account of its run: log lines, evaluations, snapshots for the observer, progress."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from typing import Any

from decentral.arrays import FloatArray
from decentral.clock import NS_PER_S
from decentral.following import Evaluation, Listener
from decentral.medium import Medium
from decentral.messages import MAP_HASH_BYTES, Kind, Message
from decentral.queues import Traffic
from decentral.records import Recorder, Value, refusals


class Journal:
    """Writes what one node does; nothing in it takes time on the run's clock.

    Args:
        node: its id.
        medium: its clock, its totals, and the way to the observer.
        traffic: its counters.
        recorder: takes the lines.
        evaluation: scores its model.
        listener: hears of its progress.
    """

    def __init__(
        self,
        *,
        node: int,
        medium: Medium,
        traffic: Traffic,
        recorder: Recorder,
        evaluation: Evaluation,
        listener: Listener,
    ) -> None:
        self._node = node
        self._medium = medium
        self._traffic = traffic
        self._recorder = recorder
        self._evaluation = evaluation
        self._listener = listener
        self._origin_ns = time.perf_counter_ns()
        self._off_clock_ns = 0
        self._lost: set[int] = set()

    def start(self) -> None:
        """Real time counts from now on."""
        self._origin_ns = time.perf_counter_ns()

    def state(self) -> dict[str, Any]:
        """For a checkpoint: the real time so far, and how long the log is."""
        elapsed_ns = time.perf_counter_ns() - self._origin_ns - self._off_clock_ns
        return {"elapsed_ns": elapsed_ns, "log_bytes": self._recorder.nbytes}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Real time goes on where it was; the log has been cut to its length by then."""
        self._origin_ns = time.perf_counter_ns() - state["elapsed_ns"]

    def round(
        self,
        finished: int,
        *,
        train_ns: int,
        wait_ns: int,
        train_loss: float | None,
        staleness: float | None,
        extra: Mapping[str, Value],
    ) -> None:
        """A local round is finished."""
        self._note_losses(finished)
        self._recorder.write(
            "round",
            **self._stamp(finished, time.perf_counter_ns()),
            train_s=train_ns / NS_PER_S,
            wait_s=wait_ns / NS_PER_S,
            train_loss=train_loss,
            staleness=staleness,
            **self._counters(),
            **extra,
        )
        self._listener.progress(self._node, finished, train_loss)

    def evaluate(self, finished: int, x: FloatArray, *, final: bool) -> None:
        """Score ``x``, log it and show it to the observer, off the clock."""
        with self._medium.paused():
            before = time.perf_counter_ns()
            scores, about = self._evaluation.score(x, final=final)
            logged = {f"test_{name}": value for name, value in scores.items()}
            totals = self._medium.totals
            self._recorder.write(
                "evaluation",
                **self._stamp(finished, before),
                **about,
                final=final,
                total_bytes=totals.sent_bytes,
                made_bytes=self._traffic.made_bytes,
                **logged,
            )
            self._listener.evaluated(self._node, finished, scores)
            kind = Kind.FINAL if final else Kind.SNAPSHOT
            now_ns = self._medium.now_ns()
            self._medium.observe(
                Message(self._node, finished, 0, x.copy(), bytes(MAP_HASH_BYTES), now_ns, kind)
            )
            self._off_clock_ns += time.perf_counter_ns() - before

    def finish(self, finished: int, x: FloatArray, reason: str) -> None:
        """Write the end of the log: ``done``, ``failed`` or ``interrupted``."""
        self._note_losses(finished)
        digest = hashlib.sha256(x.tobytes()).hexdigest()
        also = refusals(self._medium.refused)
        if self._medium.losses:
            also["missed"] = self._medium.missed
        stamp = self._stamp(finished, time.perf_counter_ns())
        self._recorder.write("end", **stamp, reason=reason, model_sha256=digest, **self._counters(), **also)

    def _note_losses(self, finished: int) -> None:
        for peer, at_ns in self._medium.losses.items():
            if peer not in self._lost:
                self._lost.add(peer)
                self._recorder.write(
                    "lost", node=self._node, peer=peer, time_s=at_ns / NS_PER_S, round=finished
                )

    def _stamp(self, finished: int, wall_now_ns: int) -> dict[str, Value]:
        return {
            "node": self._node,
            "round": finished,
            "time_s": self._medium.now_ns() / NS_PER_S,
            "wall_s": (wall_now_ns - self._origin_ns - self._off_clock_ns) / NS_PER_S,
        }

    def _counters(self) -> dict[str, Value]:
        traffic, totals = self._traffic, self._medium.totals
        return {
            "total_bytes": totals.sent_bytes,
            "total_meta": self._medium.meta_bytes,
            "made": traffic.made,
            "made_bytes": traffic.made_bytes,
            "sent": totals.sent,
            "received": traffic.received,
            "aggregated": traffic.aggregated,
            "replaced": traffic.replaced,
            "discarded": traffic.discarded,
            "dropped": totals.dropped,
            "dropped_bytes": totals.dropped_bytes,
        }
