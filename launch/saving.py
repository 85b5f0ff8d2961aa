"""What members do in their processes to make checkpoints, and to go on from one."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from decentral.checkpoint.files import Written, write
from decentral.checkpoint.leader import Leader, Orders
from decentral.checkpoint.memory import Memory
from decentral.checkpoint.words import Report, Save, Saved
from decentral.clock import NS_PER_S
from decentral.errors import CheckpointError
from decentral.messages import Message
from decentral.observer import Observer
from decentral.records import Recorder
from decentral.transports.numbers import BatchNumbers
from decentral.wire import Wire
from launch.checkpoints import LIST, Entry, commit, file_name, folder_of, load, numbers
from launch.emulator import Emulation
from launch.paths import JobFolder


class Saving:
    """Where one member's checkpoints go and come from.

    Args:
        folder: of the job, on this host.
        member: node id, or n for the observer, or n + 1 for the timekeeper.
        n: number of nodes.
        resume: number of the checkpoint to go on from; None: the run starts at the beginning.
    """

    def __init__(self, folder: JobFolder, member: int, n: int, resume: int | None) -> None:
        self.folder = folder
        self.member = member
        self.n = n
        self._resume = resume

    def saved(self) -> Any:
        """What the member left in the checkpoint; None at the beginning.

        Raises:
            CheckpointError: it is missing or damaged; names the file.
        """
        if self._resume is None:
            return None
        folder = folder_of(self.folder, self._resume)
        checkpoint = load(folder)
        if checkpoint is None:
            raise CheckpointError(f"{folder}: is no checkpoint: its list is missing")
        return checkpoint.read(self.member)

    def write(self, number: int, content: Mapping[str, Any], log: Recorder | None) -> Written:
        """Save ``content`` in checkpoint ``number``.

        Args:
            number: of the checkpoint.
            content: what the member needs.
            log: of the member, without which the checkpoint is worth nothing; None: nothing is in it yet.

        Raises:
            PreflightError: the file, or the log, cannot be written.
        """
        if log is not None:
            log.sync()
        return write(self._path(number), content)

    def forget(self, least: int, *more: str) -> None:
        """Remove what this member left, and files named in ``more``, in checkpoints before ``least``.

        Only the launcher knows which are needed: elsewhere than here, the last ones may not be whole yet.
        """
        for old in numbers(self.folder):
            if old < least:
                for name in (file_name(self.member, self.n), *more):
                    (folder_of(self.folder, old) / name).unlink(missing_ok=True)
                with suppress(OSError):  # others' files may be there
                    folder_of(self.folder, old).rmdir()

    def _path(self, number: int) -> Path:
        return folder_of(self.folder, number) / file_name(self.member, self.n)


class NodeSaving:
    """Saves a node.

    Args:
        saving: where.
        wire: of the node.
        recorder: of its log.
        batches: numbers of its transport.

    Attributes:
        memory: the wire of its medium; remembers.
    """

    def __init__(self, saving: Saving, wire: Wire, recorder: Recorder, batches: BatchNumbers) -> None:
        self._saving = saving
        self._recorder = recorder
        self._batches = batches
        saved = saving.saved()
        if saved is not None:
            batches.restore(saved["wire"])
        self.memory = Memory(saving.member, wire, saved=None if saved is None else saved["memory"])

    def __call__(self, save: Save, pending: Sequence[list[Message]]) -> Saved:
        """Save what the node needs."""
        content = self.memory.save(pending)
        parts = {"memory": content, "wire": self._batches.state()}
        written = self._saving.write(save.number, parts, self._recorder)
        self._saving.forget(save.least)
        return Saved(self._saving.member, *written, content["state"]["journal"]["log_bytes"])


class ObserverSaving:
    """Saves the observer.

    Args:
        saving: where.
        observer: it.
        recorder: of its log.
        batches: numbers of its transport.
    """

    def __init__(self, saving: Saving, observer: Observer, recorder: Recorder, batches: BatchNumbers) -> None:
        self._saving = saving
        self._observer, self._recorder, self._batches = observer, recorder, batches
        saved = saving.saved()
        self.pending: list[list[Message]] = []
        if saved is not None:
            observer.restore(saved["observer"])
            batches.restore(saved["wire"])
            self.pending = saved["pending"]

    def __call__(self, save: Save, pending: Sequence[list[Message]]) -> Saved:
        """Save what the observer needs."""
        content = {
            "observer": self._observer.state(),
            "pending": list(pending),
            "wire": self._batches.state(),
        }
        written = self._saving.write(save.number, content, self._recorder)
        self._saving.forget(save.least)
        return Saved(self._saving.member, *written, self._recorder.nbytes)


class TimekeeperSaving:
    """Leads the members through checkpoints, in the timekeeper's process, which writes their lists.

    Args:
        saving: where.
        emulation: timekeeper and network.
        nominal_ns: what a round computes, which may have been measured.
        tell: takes words for the agent.
    """

    def __init__(
        self, saving: Saving, emulation: Emulation, nominal_ns: int, tell: Callable[..., None]
    ) -> None:
        self.leader = Leader(range(saving.n + 1))
        self._saving = saving
        self._emulation = emulation
        self._nominal_ns = nominal_ns
        self._tell = tell
        self._rounds = 0
        self._asked_s = self._frozen_s = 0.0
        self._least = 0
        saved = saving.saved()
        if saved is not None:
            emulation.restore(saved)

    def ask(self, number: int, rounds: int, least: int) -> None:
        """The launcher wants checkpoint ``number``.

        Args:
            number: of the checkpoint.
            rounds: that all nodes have finished.
            least: checkpoints before this one are not needed any more.
        """
        if not self.leader.holds:
            self._rounds, self._asked_s, self._least = rounds, time.monotonic(), least
            self.leader.ask(number, least)

    def hear(self, word: Report) -> Orders:
        """A member's report, and what follows."""
        return self.leader.hear(word)

    def go_on(self) -> tuple[bool, Orders]:
        """Whether time may go on now, and what members are told."""
        leader, timekeeper = self.leader, self._emulation.timekeeper
        if not leader.holds:
            return leader.all_present, []
        if not timekeeper.staying:  # the run is over; who has left may be gone
            return True, leader.thaw()
        if timekeeper.all_told and not leader.freezing:
            self._frozen_s = time.monotonic()
            return False, leader.freeze()
        if not leader.complete:
            return False, []
        self._commit()
        return True, leader.thaw()

    def _commit(self) -> None:
        number, saving = self.leader.number, self._saving
        own = saving.write(number, self._emulation.state(), None)  # its log is written at the end
        saved = [*self.leader.saved.values(), Saved(saving.member, *own, 0)]
        entries = [Entry.of(saving.folder, saving.n, each) for each in sorted(saved)]
        time_s = self._emulation.timekeeper.now_ns / NS_PER_S
        cost = {
            "waited_s": round(self._frozen_s - self._asked_s, 6),
            "still_s": round(time.monotonic() - self._frozen_s, 6),
        }
        commit(
            saving.folder,
            number,
            entries,
            time_s=time_s,
            rounds=self._rounds,
            nominal_ns=self._nominal_ns,
            cost=cost,
        )
        saving.forget(self._least, LIST)
        self._tell("saved", number)
