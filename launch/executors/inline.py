"""All nodes in this process, one thread at a time, under the inline virtual clock."""

from __future__ import annotations

import math
import platform
import resource
import secrets
import traceback
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path

from threadpoolctl import threadpool_limits

from decentral.clock import NS_PER_S
from decentral.errors import ConfigError, DecentralError, Interrupted, PreflightError, RunFailed
from decentral.following import Listener
from decentral.inline import InlineWire, Scheduler
from decentral.messages import RUN_ID_BYTES
from decentral.records import FileRecorder, Recorder
from decentral.tasks.base import LoadedTask, Scores
from launch.build import (
    Participant,
    Workload,
    build_medium,
    build_observer,
    build_participant,
    load_workload,
)
from launch.display import Display
from launch.emulator import Emulation
from launch.executors.base import Interruption, Job, Outcome
from launch.executors.inline_checkpoints import InlineCheckpoints
from launch.losses import FEWEST_NODES, Loss
from launch.process import save_model


class DisplayListener:
    """Passes a node's progress straight to the display.

    Args:
        display: hears it.
        metric: name of the score.
    """

    def __init__(self, display: Display, metric: str) -> None:
        self._display = display
        self._metric = metric

    def progress(self, node: int, round_: int, train_loss: float | None) -> None:
        """A local round is finished; a loss that is not a number is none, as on the board of processes."""
        known = train_loss is not None and not math.isnan(train_loss)
        self._display.progress(node, round_, train_loss if known else None)

    def evaluated(self, node: int, round_: int, scores: Scores) -> None:
        """An evaluation is finished."""
        self._display.evaluated(node, round_, self._metric, scores[self._metric], scores["loss"])


@dataclass(frozen=True)
class Recorders:
    """Who takes the events of a run.

    Args:
        node: of node i; called once per node.
        metrics: of the observer.
        network: of the emulated network.
    """

    node: Callable[[int], Recorder]
    metrics: Recorder
    network: Recorder


class InlineRun:
    """All nodes of a workload in this process.

    Args:
        workload: the run.
        recorders: take its events.
        listener: hears of its progress.
        checkpoints: makes them, and knows the one that is gone on from; None: there are none.

    Attributes:
        recorders: as given.
        participants: those that have been built so far.
        lost: nodes that failed and that the others went on without.
    """

    def __init__(
        self,
        workload: Workload,
        recorders: Recorders,
        listener: Listener,
        checkpoints: InlineCheckpoints | None = None,
    ) -> None:
        self._checkpoints = checkpoints
        self._workload = workload
        self.recorders = recorders
        self._listener = listener
        self.participants: list[Participant] = []
        self.lost: list[Loss] = []

    def run(self, interruption: Interruption) -> None:
        """Build the nodes and run them to their end; ``network`` is complete then, also after an error.

        Raises:
            Interrupted: by ``interruption``, at the next hand-over.
            Exception: the first that a node raised.
        """
        workload, recorders, checkpoints = self._workload, self.recorders, self._checkpoints
        n = workload.arm.nodes
        resumed = checkpoints is not None and checkpoints.resumed is not None
        run = secrets.token_bytes(RUN_ID_BYTES)
        observer = build_observer(workload, recorders.metrics, resumed=resumed)
        emulation = Emulation(workload, run)

        def lose(node: int, error: Exception, at_ns: int) -> None:
            self._lose(node, error, at_ns)
            observer.lose(node, at_ns)

        scheduler = Scheduler(
            emulation.timekeeper,
            observer.add,
            run,
            checkpoints,
            lost=lose if workload.arm.run.on_node_failure == "continue" else None,
        )
        if checkpoints is not None:
            checkpoints.begin(workload, emulation, observer, recorders.metrics, scheduler)
            if resumed:
                observer.restore(checkpoints.saved(n)["observer"])
                emulation.restore(checkpoints.saved(n + 1))
        for i in range(n):
            recorder = recorders.node(i)
            if not resumed:
                recorder.write("header", **workload.header(i), run=run.hex())
            wire = InlineWire(scheduler, i, workload.batch_bytes)
            memory = None if checkpoints is None else checkpoints.wire_of(i, wire, recorder)
            medium = build_medium(workload, i, memory or wire)
            participant = build_participant(
                workload, i, medium=medium, recorder=recorder, listener=self._listener, memory=memory
            )
            self.participants.append(participant)
            scheduler.add(i, participant.run)
        if resumed:
            scheduler.advance()
        try:
            with interruption.calling(scheduler.interrupt):
                scheduler.run()
        except BaseException as error:
            reason = "interrupted" if isinstance(error, Interrupted) else "failed"
            with suppress(PreflightError):  # the disk may be what failed
                emulation.write(recorders.network, reason, 0.0)
            raise
        emulation.write(recorders.network, "done", 0.0)

    @property
    def whole(self) -> dict[int, Participant]:
        """By number, the nodes that are not lost."""
        gone = {loss.node for loss in self.lost}
        return {i: made for i, made in enumerate(self.participants) if i not in gone}

    def finish(self, reason: str) -> None:
        """Write how it ended into every node's log."""
        for participant in self.whole.values():
            with suppress(PreflightError):  # the disk may be what failed
                participant.node.finish(reason)

    def _lose(self, node: int, error: Exception, at_ns: int) -> None:
        """A node has failed; with fewer than two left so has the run."""
        if len(self.whole) <= FEWEST_NODES:
            raise error
        made = self.participants[node].node
        with suppress(PreflightError):
            made.finish("failed")
        last = "".join(traceback.format_exception_only(error)).strip()
        cause = str(error) if isinstance(error, DecentralError) else last
        self.lost.append(Loss(node, platform.node(), cause, made.finished, at_ns / NS_PER_S))


class InlineExecutor:
    """Deterministic and slow to interrupt (at the next hand-over); for tests and small studies."""

    def __init__(self) -> None:
        import torch

        self._tasks: dict[str, LoadedTask] = {}
        # As in a node process, so that the bits agree: sums of several threads are ordered otherwise.
        torch.set_num_threads(1)
        self._one_thread = threadpool_limits(1)
        # Every node has a log, and many hosts allow 1024 open files unless they are asked for more.
        self._files = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (self._files[1], self._files[1]))

    def run(self, job: Job, display: Display, interruption: Interruption) -> Outcome:
        """Run ``job``; its nodes' logs and models are the same as on processes, but for wall times."""
        made: InlineRun | None = None
        with ExitStack() as logs:
            try:
                made = self._prepare(job, display, logs)
                made.run(interruption)
                _keep(made, job)
            except Interrupted as error:
                outcome = Outcome("interrupted", str(error), Interrupted.exit_code)
            except ConfigError as error:
                outcome = Outcome("failed", str(error), ConfigError.exit_code)
            except DecentralError as error:
                outcome = Outcome("failed", str(error), RunFailed.exit_code)
            except Exception as error:  # third-party parts may raise anything; it is reported whole
                last = "".join(traceback.format_exception_only(error)).strip()
                outcome = Outcome("failed", f"{last}\n{traceback.format_exc()}", RunFailed.exit_code)
            else:
                return Outcome("done", lost=tuple(made.lost))
            if made is not None:
                made.finish(outcome.state)
            return outcome

    def close(self) -> None:
        """Let numerical libraries use as many threads as before, and the process as few files."""
        self._one_thread.unregister()
        resource.setrlimit(resource.RLIMIT_NOFILE, self._files)

    def _prepare(self, job: Job, display: Display, logs: ExitStack) -> InlineRun:
        resumed = job.resumed
        workload = load_workload(
            job.arm, job.seed, self._tasks, None if resumed is None else resumed.nominal_ns
        )

        def log(path: Path) -> FileRecorder:
            return logs.enter_context(closing(FileRecorder(path, resumed=resumed is not None)))

        recorders = Recorders(
            node=lambda i: log(job.folder.node_log(i)),
            metrics=log(job.folder.metrics),
            network=log(job.folder.network),
        )
        listener: Listener = DisplayListener(display, workload.composition.task.metric.name)
        checkpoints = None
        if job.arm.checkpoint.asked or resumed is not None:
            checkpoints = InlineCheckpoints.of(job)
            listener = checkpoints.heard_by(listener)
        return InlineRun(workload, recorders, listener, checkpoints)


def _keep(made: InlineRun, job: Job) -> None:
    """What a run that came to its end leaves behind."""
    for i, participant in made.whole.items():
        if job.arm.run.save_models:
            save_model(job.folder.model(i), participant.node.x)
        participant.node.finish("done")
    made.recorders.metrics.write("end", reason="done")
