"""Checkpoints of a run whose nodes are all in this process: the same files as those of processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from decentral.checkpoint.memory import Memory
from decentral.checkpoint.words import Saved
from decentral.clock import NS_PER_S
from decentral.following import Listener
from decentral.inline import InlineWire, Scheduler
from decentral.observer import Observer
from decentral.records import Recorder
from decentral.tasks.base import Scores
from launch.build import Workload
from launch.checkpoints import Checkpoint, Entry, commit, numbers
from launch.due import Due
from launch.emulator import Emulation
from launch.executors.base import Job
from launch.keeping import forget_old, last_whole
from launch.paths import JobFolder
from launch.saving import Saving


@dataclass
class InlineCheckpoints:
    """A ``decentral.inline.Saving`` into a job's folder.

    Args:
        folder: of the job.
        due: says when.
        now_s: real seconds.
        resumed: the checkpoint that the run goes on from; None: it starts at the beginning.
        number: of the last checkpoint that was made.
    """

    folder: JobFolder
    due: Due
    now_s: Callable[[], float]
    resumed: Checkpoint | None = None
    number: int = 0
    _nodes: list[tuple[Memory, InlineWire, Recorder]] = field(default_factory=list)
    _wanted: bool = False

    @classmethod
    def of(cls, job: Job) -> InlineCheckpoints:
        """The checkpoints that ``job`` asks for."""
        asked, resumed = job.arm.checkpoint, job.resumed
        rounds = 0 if resumed is None else resumed.rounds
        due = Due(job.arm.nodes, every=asked.every, every_s=asked.every_s, rounds=rounds)
        made = max(numbers(job.folder), default=0)
        return cls(job.folder, due, time.monotonic, resumed, made)

    def heard_by(self, listener: Listener) -> Listener:
        """``listener``, which also tells when the next checkpoint is due."""
        return _Counting(listener, self.due)

    def saved(self, member: int) -> Any:
        """What a member left in the checkpoint; None at the beginning.

        Raises:
            CheckpointError: its file is damaged.
        """
        return None if self.resumed is None else self.resumed.read(member)

    def begin(
        self,
        workload: Workload,
        emulation: Emulation,
        observer: Observer,
        metrics: Recorder,
        scheduler: Scheduler,
    ) -> None:
        """Whose states are to be saved, besides the nodes'."""
        self._workload = workload
        self._emulation, self._scheduler = emulation, scheduler
        self._observer, self._metrics = observer, metrics

    def wire_of(self, node: int, wire: InlineWire, recorder: Recorder) -> Memory:
        """The wire of a node that is built now, which goes on from what it left."""
        saved: Mapping[str, Any] | None = self.saved(node)
        if saved is not None:
            wire.restore(saved["wire"])
        memory = Memory(node, wire, saved=saved and saved["memory"])
        self._nodes.append((memory, wire, recorder))
        return memory

    def wanted(self) -> bool:
        """Whether a checkpoint is to be made as soon as everybody waits."""
        self._wanted = self._wanted or self.due.due(self.now_s())
        return self._wanted

    def save(self) -> None:
        """Make one.

        Raises:
            PreflightError: it cannot be written.
        """
        self._wanted = False
        self.number += 1
        n = len(self._nodes)
        entries = []
        for node, (memory, wire, log) in enumerate(self._nodes):
            saved = memory.save(self._scheduler.pending(node))
            content = {"memory": saved, "wire": wire.state()}
            entries.append(self._write(node, content, saved["state"]["journal"]["log_bytes"], log))
        observer = {"observer": self._observer.state()}
        entries.append(self._write(n, observer, self._metrics.nbytes, self._metrics))
        entries.append(self._write(n + 1, self._emulation.state(), 0, None))
        commit(
            self.folder,
            self.number,
            entries,
            time_s=self._emulation.timekeeper.now_ns / NS_PER_S,
            rounds=self.due.least,
            nominal_ns=self._workload.composition.compute.nominal_ns,
        )
        forget_old(self.folder, last_whole(self.folder))

    def _write(self, member: int, content: Mapping[str, Any], log_bytes: int, log: Recorder | None) -> Entry:
        n = len(self._nodes)
        written = Saving(self.folder, member, n, None).write(self.number, content, log)
        return Entry.of(self.folder, n, Saved(member, *written, log_bytes))


@dataclass(frozen=True)
class _Counting:
    listener: Listener
    due: Due

    def progress(self, node: int, round_: int, train_loss: float | None) -> None:
        """A local round is finished."""
        self.due.progress(node, round_)
        self.listener.progress(node, round_, train_loss)

    def evaluated(self, node: int, round_: int, scores: Scores) -> None:
        """An evaluation is finished."""
        self.listener.evaluated(node, round_, scores)
