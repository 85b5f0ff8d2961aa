"""All nodes in this process, one thread at a time, under the inline virtual clock."""

from __future__ import annotations

import secrets
import traceback
from collections.abc import Sequence
from contextlib import ExitStack, closing, suppress

import torch
from threadpoolctl import threadpool_limits

from decentral.errors import ConfigError, DecentralError, Interrupted, PreflightError, RunFailed
from decentral.inline import InlineWire, Scheduler
from decentral.messages import RUN_ID_BYTES
from decentral.records import FileRecorder
from decentral.tasks.base import LoadedTask, Scores
from decentral.virtual import VirtualMedium
from launch.build import (
    Emulation,
    Participant,
    build_observer,
    build_participant,
    limit_ns,
    load_workload,
    synchronous,
)
from launch.display import Display
from launch.executors.base import Interruption, Job, Outcome
from launch.process import save_model


class _DisplayListener:
    """Passes a node's progress straight to the display."""

    def __init__(self, display: Display, metric: str) -> None:
        self._display = display
        self._metric = metric

    def progress(self, node: int, round_: int, train_loss: float | None) -> None:
        self._display.progress(node, round_, train_loss)

    def evaluated(self, node: int, round_: int, scores: Scores) -> None:
        self._display.evaluated(node, round_, self._metric, scores[self._metric], scores["loss"])


class InlineExecutor:
    """Deterministic and slow to interrupt (at the next hand-over); for tests and small studies."""

    def __init__(self) -> None:
        self._tasks: dict[str, LoadedTask] = {}
        # As in a node process, so that the bits agree: sums of several threads are ordered otherwise.
        torch.set_num_threads(1)
        self._one_thread = threadpool_limits(1)

    def run(self, job: Job, display: Display, interruption: Interruption) -> Outcome:
        """Run ``job``; its nodes' logs and models are the same as on processes, but for wall times."""
        with ExitStack() as logs:
            participants: list[Participant] = []
            try:
                self._run(job, display, interruption, logs, participants)
            except Interrupted as error:
                return _ended(participants, Outcome("interrupted", str(error), Interrupted.exit_code))
            except ConfigError as error:
                return _ended(participants, Outcome("failed", str(error), ConfigError.exit_code))
            except DecentralError as error:
                return _ended(participants, Outcome("failed", str(error), RunFailed.exit_code))
            except Exception as error:  # third-party parts may raise anything; it is reported whole
                last = "".join(traceback.format_exception_only(error)).strip()
                cause = f"{last}\n{traceback.format_exc()}"
                return _ended(participants, Outcome("failed", cause, RunFailed.exit_code))
        return Outcome("done")

    def close(self) -> None:
        """Let numerical libraries use as many threads as before."""
        self._one_thread.unregister()

    def _run(
        self,
        job: Job,
        display: Display,
        interruption: Interruption,
        logs: ExitStack,
        participants: list[Participant],
    ) -> None:
        workload = load_workload(job.arm, job.seed, self._tasks)
        run = secrets.token_bytes(RUN_ID_BYTES)
        listener = _DisplayListener(display, workload.composition.task.metric.name)
        metrics = logs.enter_context(closing(FileRecorder(job.folder.metrics)))
        observer = build_observer(workload, metrics)
        emulation = Emulation(workload, run)
        scheduler = Scheduler(emulation.timekeeper, observer.add, run)
        eager, limit = synchronous(workload), limit_ns(workload)
        for i in range(job.arm.nodes):
            recorder = logs.enter_context(closing(FileRecorder(job.folder.node_log(i))))
            recorder.write("header", **workload.header(i), run=run.hex())
            wire = InlineWire(scheduler, i, 4 * workload.d)
            participant = build_participant(
                workload,
                i,
                medium=VirtualMedium(node=i, wire=wire, eager=eager, limit_ns=limit),
                recorder=recorder,
                listener=listener,
            )
            participants.append(participant)
            scheduler.add(i, participant.run)
        network = logs.enter_context(closing(FileRecorder(job.folder.network)))
        try:
            with interruption.calling(scheduler.interrupt):
                scheduler.run()
        except BaseException as error:
            reason = "interrupted" if isinstance(error, Interrupted) else "failed"
            with suppress(PreflightError):  # the disk may be what failed
                emulation.write(network, reason, 0.0)
            raise
        emulation.write(network, "done", 0.0)
        for i, participant in enumerate(participants):
            if job.arm.run.save_models:
                save_model(job.folder.model(i), participant.node.x)
            participant.node.finish("done")
        metrics.write("end", reason="done")


def _ended(participants: Sequence[Participant], outcome: Outcome) -> Outcome:
    """``outcome``, after every node has written how it ended."""
    for participant in participants:
        with suppress(PreflightError):  # the disk may be what failed
            participant.node.finish(outcome.state)
    return outcome
