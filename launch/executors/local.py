"""One agent on this host, as a child process; it forks the nodes (launch/zygote.py)."""

from __future__ import annotations

import os
import secrets
import select
import shutil
import subprocess
import sys
from dataclasses import replace
from typing import Any

from decentral.errors import Interrupted, PreflightError, RunFailed
from decentral.messages import RUN_ID_BYTES
from launch.compose import compose
from launch.display import Display
from launch.executors.base import Interruption, Job, Outcome
from launch.protocol import FrameReader, write_frame
from launch.supervisor import Order, Supervisor
from launch.wall import gather

HOST = "localhost"
AGENT_END_S = 5.0
FAILURE_GRACE_MS = 1200
"""After a failure the run is over within 2 s: members have this long for their last log line."""
INTERRUPT_GRACE_MS = 5000
"""After Ctrl-C; a second one ends everything at once."""
ENVIRONMENT = {
    # Activations of a few hundred kB would be mapped and unmapped at every step (1.3 times slower).
    "MALLOC_MMAP_THRESHOLD_": "1073741824",
    "MALLOC_TRIM_THRESHOLD_": "1073741824",
    "MALLOC_TOP_PAD_": "67108864",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


class LocalExecutor:
    """Runs all jobs of a session under one agent, which is started at the first job."""

    def __init__(self) -> None:
        self._agent: subprocess.Popen[bytes] | None = None
        self._reader: FrameReader | None = None

    def start(self) -> None:
        """Start the agent ahead of the first job, so that it imports torch meanwhile; returns at once."""
        if self._agent is not None:
            return
        self._agent = subprocess.Popen(
            [sys.executable, "-P", "-m", "launch.zygote"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **ENVIRONMENT},
            start_new_session=True,  # Ctrl-C in the terminal is the launcher's to handle
        )
        assert self._agent.stdout is not None
        self._reader = FrameReader(self._agent.stdout.fileno(), f"the agent on host {HOST}")

    def run(self, job: Job, display: Display, interruption: Interruption) -> Outcome:
        """Run ``job`` on one process per node."""
        n, wall = job.arm.nodes, job.arm.run.clock == "wall"
        supervisor = Supervisor(
            dict.fromkeys(range(n + 1 if wall else n + 2), HOST),
            observer=n,
            timekeeper=None if wall else n + 1,
            max_rounds=job.arm.run.max_rounds,
        )
        loop = _JobLoop(self._connected(), job, supervisor, display, interruption)
        outcome = loop.run()
        if loop.agent_lost:
            self.close()
        if wall and outcome.exit_code in (0, Interrupted.exit_code, RunFailed.exit_code):
            outcome = _with_fidelity(job, outcome)
        return outcome

    def close(self) -> None:
        """Close the agent's input, which ends it and all that it forked; wait for it."""
        agent, self._agent, self._reader = self._agent, None, None
        if agent is None:
            return
        assert agent.stdin is not None
        assert agent.stdout is not None
        agent.stdin.close()
        try:
            agent.wait(AGENT_END_S)
        except subprocess.TimeoutExpired:
            agent.kill()  # its members die with it (launch/kernel.py)
            agent.wait()
        agent.stdout.close()

    def _connected(self) -> _AgentLine:
        self.start()
        assert self._agent is not None
        assert self._reader is not None
        return _AgentLine(self._agent, self._reader)


def _with_fidelity(job: Job, outcome: Outcome) -> Outcome:
    try:
        return replace(outcome, distrust=tuple(gather(job.folder, job.arm, job.seed, outcome.state)))
    except PreflightError as error:  # a full disk; why the run ended must not be lost over it
        if outcome.state != "done":
            return outcome
        return Outcome("failed", str(error), PreflightError.exit_code)


class _AgentLine:
    """Both directions of the pipe to an agent."""

    def __init__(self, process: subprocess.Popen[bytes], reader: FrameReader) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process = process
        self.reader = reader
        self._in = process.stdin.fileno()
        self.out = process.stdout.fileno()

    def order(self, do: str, **fields: Any) -> None:
        try:
            write_frame(self._in, {"do": do, **fields})
        except BrokenPipeError:
            return  # its output ends too, which is where its loss is noticed


class _JobLoop:
    """Carries events from the agent to the supervisor and orders back, until the job is over."""

    def __init__(
        self, line: _AgentLine, job: Job, supervisor: Supervisor, display: Display, interruption: Interruption
    ) -> None:
        self._line = line
        self._job = job
        self._supervisor = supervisor
        self._display = display
        self._interruption = interruption
        self._metric = compose(job.arm, job.seed).task.metric.name
        self._refusal: Outcome | None = None
        self._sockets: str | None = None
        self.agent_lost = False

    def run(self) -> Outcome:
        job, supervisor = self._job, self._supervisor
        self._line.order(
            "job",
            arm=job.arm.model_dump_json(),
            seed=job.seed,
            run=secrets.token_bytes(RUN_ID_BYTES),
            folder=str(job.folder.path),
            members=sorted(supervisor.members),
            host=HOST,
        )
        poll = select.poll()
        poll.register(self._line.out, select.POLLIN)
        poll.register(self._interruption.fileno(), select.POLLIN)
        while self._refusal is None and not supervisor.over:
            for fd, _ in poll.poll():
                if fd == self._interruption.fileno():
                    self._interrupt()
                else:
                    self._listen()
        if self._refusal is not None and supervisor.state == "running":
            return self._refusal
        code = {"done": 0, "interrupted": 5}.get(supervisor.state, RunFailed.exit_code)
        return Outcome(supervisor.state, supervisor.cause, code)

    def _interrupt(self) -> None:
        self._interruption.drain()
        self._carry_out(self._supervisor.interrupted())
        if self._interruption.count > 1:
            self._line.process.kill()

    def _listen(self) -> None:
        try:
            for event in self._line.reader.read():
                self._carry_out(self._handle(event))
        except RunFailed as damage:
            self._line.process.kill()
            self._line.reader.ended = True
            self._supervisor.host_lost(HOST, f"is out of order: {damage}")
        if self._line.reader.ended:
            self.agent_lost = True
            if self._sockets is not None:
                shutil.rmtree(self._sockets, ignore_errors=True)
            status = self._line.process.wait()
            how = f"exited with code {status}" if status >= 0 else f"was killed by signal {-status}"
            self._supervisor.host_lost(HOST, how)

    def _handle(self, event: dict[str, Any]) -> list[Order]:
        supervisor = self._supervisor
        match event["is"]:
            case "ready":
                return supervisor.ready(event["member"])
            case "progress":
                supervisor.progress(event["member"], event["round"])
                self._display.progress(event["member"], event["round"], event["loss"])
            case "evaluated":
                scores = event["scores"]
                self._display.evaluated(
                    event["node"], event["round"], self._metric, scores[self._metric], scores["loss"]
                )
            case "left":
                return supervisor.left(event["member"])
            case "done":
                return supervisor.done(event["member"])
            case "failed":
                return supervisor.failed(event["member"], event["what"])
            case "exited":
                return supervisor.exited(event["member"], event["status"])
            case "sockets":
                self._sockets = event["folder"]
            case "refused":
                self._refusal = Outcome("failed", event["what"], event["code"])
        return []

    def _carry_out(self, orders: list[Order]) -> None:
        for order in orders:
            if order == "stop":
                grace_ms = INTERRUPT_GRACE_MS if self._supervisor.state == "interrupted" else FAILURE_GRACE_MS
                self._line.order("stop", grace_ms=grace_ms)
            else:
                self._line.order(order)
