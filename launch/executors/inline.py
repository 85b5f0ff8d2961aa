"""All nodes in this process, one thread at a time, under the inline virtual clock."""

from __future__ import annotations

import secrets
import traceback
from collections.abc import Sequence

import torch

from decentral.clock import NS_PER_S
from decentral.errors import DecentralError, Interrupted
from decentral.inline import InlineClock, Scheduler
from decentral.messages import RUN_ID_BYTES, Kind
from decentral.observer import Observer
from decentral.records import FileRecorder
from decentral.tasks.base import LoadedTask, Scores
from decentral.transports.base import Batch
from decentral.transports.memory import MemoryNetwork, MemoryTransport
from launch.build import Participant, build_observer, build_participant, load_workload
from launch.display import Display
from launch.executors.base import Interruption, Job, Outcome
from launch.paths import JobFolder
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


class _ObservedTransport(MemoryTransport):
    """Hands snapshots to the observer at once, which needs no thread of its own."""

    def __init__(self, network: MemoryNetwork, node: int, observer: Observer) -> None:
        super().__init__(network, node)
        self._observer = observer

    def send(self, batches: Sequence[Batch]) -> int:
        for_nodes = []
        for destination, messages in batches:
            if messages[0].kind is Kind.FRAGMENT:
                for_nodes.append((destination, messages))
                continue
            for message in messages:
                self._observer.add(message)
        return super().send(for_nodes)


class InlineExecutor:
    """Deterministic and slow to interrupt (at the next hand-over); for tests and small studies."""

    def __init__(self) -> None:
        self._tasks: dict[str, LoadedTask] = {}
        torch.set_num_threads(1)  # as in a node process: the bits must agree

    def run(self, job: Job, display: Display, interruption: Interruption) -> Outcome:
        """Run ``job``; its nodes' logs and models are the same as on processes, but for wall times."""
        recorders: list[FileRecorder] = []
        participants: list[Participant] = []
        try:
            self._run(job, display, interruption, recorders, participants)
        except Interrupted as error:
            return self._ended(participants, "interrupted", str(error), Interrupted.exit_code)
        except DecentralError as error:
            return self._ended(participants, "failed", str(error), error.exit_code)
        except Exception as error:
            last = "".join(traceback.format_exception_only(error)).strip()
            return self._ended(participants, "failed", f"{last}\n{traceback.format_exc()}", 4)
        finally:
            for recorder in recorders:
                recorder.close()
        return Outcome("done")

    def close(self) -> None:
        """Nothing outlives ``run``."""

    def _run(
        self,
        job: Job,
        display: Display,
        interruption: Interruption,
        recorders: list[FileRecorder],
        participants: list[Participant],
    ) -> None:
        workload = load_workload(job.arm, job.seed, self._tasks)
        scheduler = Scheduler()
        interruption.on_signal(scheduler.interrupt)
        network = MemoryNetwork(scheduler, secrets.token_bytes(RUN_ID_BYTES))
        listener = _DisplayListener(display, workload.composition.task.metric.name)
        metrics = FileRecorder(job.folder.metrics)
        recorders.append(metrics)
        observer = build_observer(workload, metrics)
        compute_ns = round(job.arm.compute.time_per_round * NS_PER_S)
        for i in range(job.arm.nodes):
            recorder = FileRecorder(job.folder.node_log(i))
            recorders.append(recorder)
            recorder.write("header", **workload.header(i), run=network.run.hex())
            participant = build_participant(
                workload,
                i,
                clock=InlineClock(scheduler, i, compute_ns),
                transport=_ObservedTransport(network, i, observer),
                recorder=recorder,
                listener=listener,
            )
            participants.append(participant)
            scheduler.add(i, participant.run)
        scheduler.run()
        for i, participant in enumerate(participants):
            if job.arm.run.save_models:
                save_model(JobFolder(job.folder.path).model(i), participant.node.x)
            participant.node.finish("done")
        metrics.write("end", reason="done")

    def _ended(self, participants: list[Participant], state: str, cause: str, code: int) -> Outcome:
        # The logs were closed by run(); their last lines are the last finished rounds.
        del participants
        return Outcome("interrupted" if state == "interrupted" else "failed", cause, code)
