"""What runs in a forked process: one node, the observer, or the timekeeper.

Everything heavy was done before the fork (launch/zygote.py); what remains is to bind a socket, meet the
others at the start barrier, run, and meet them again at the end, so that nobody's socket closes while a
slower node still needs what was sent through it.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import numpy as np

from decentral.disk import unwritable
from decentral.errors import Deadlock, DecentralError, Interrupted, PreflightError, StalledError
from decentral.records import FileRecorder
from decentral.transports.zeromq import ZmqTransport
from decentral.wall import WallMedium
from launch.assignment import Assignment, Channel
from launch.board import MemberListener
from launch.build import (
    Participant,
    Workload,
    build_medium,
    build_participant,
    failure_deadline_ns,
    synchronous,
)
from launch.death import report
from launch.emulator import Emulation
from launch.joining import meet, open_transport, open_wire
from launch.observing import observe
from launch.saving import NodeSaving, TimekeeperSaving
from launch.timekeeper import Terminated, TimekeeperSocket, cpu_s
from launch.wall import write_links

MAX_FAILURE_CHARACTERS = 20_000


def member_main(workload: Workload, assignment: Assignment, line: socket.socket) -> NoReturn:
    """Body of a forked process; never returns, so that nothing of the agent's runs in it."""
    code = 1
    channel = Channel(line)
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, _on_terminate)
        n = workload.arm.nodes
        body = {n: observe, n + 1: _keep_time}.get(assignment.number, _participate)
        body(workload, assignment, channel)
        code = 0
    except Interrupted:
        code = Interrupted.exit_code
    except DecentralError as error:
        waited, shared = isinstance(error, StalledError), isinstance(error, Deadlock)
        channel.tell("failed", str(error)[:MAX_FAILURE_CHARACTERS], waited, shared)
    except BaseException as error:
        channel.tell("failed", report(error, MAX_FAILURE_CHARACTERS), False, False)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _on_terminate(signum: int, frame: FrameType | None) -> None:
    # Python drops what is raised inside a destructor: the agent repeats the signal until it is heeded.
    raise Interrupted("stopped by the supervisor")


def _participate(workload: Workload, assignment: Assignment, channel: Channel) -> None:
    number, run = assignment.number, workload.arm.run
    recorder = assignment.log(assignment.folder.node_log(number))
    if assignment.resume is None:
        recorder.write("header", **workload.header(number), run=assignment.run.hex(), core=assignment.core)
    transport = open_transport(workload, assignment, timeout_s=run.liveness_timeout_s)
    if run.clock == "wall":
        _in_real_time(workload, assignment, channel, recorder, transport)
        return
    wire = open_wire(workload, assignment, transport)
    saving = assignment.saving(workload)
    saves = None if saving is None else NodeSaving(saving, wire, recorder, transport.numbers)
    memory = None if saves is None else saves.memory
    medium = build_medium(workload, number, memory or wire)
    listener = MemberListener(channel.tell, assignment.board, assignment.slot)
    participant = build_participant(
        workload, number, medium=medium, recorder=recorder, listener=listener, memory=memory
    )
    meet(channel, transport.endpoint)
    wire.connect(assignment.book())
    if saves is not None:
        wire.saves(saves)
    _run(participant, assignment, save=run.save_models)
    channel.tell("done")
    channel.await_order("release")
    transport.close()
    recorder.close()


def _run(participant: Participant, assignment: Assignment, *, save: bool) -> None:
    node = participant.node
    try:
        participant.run()
        if save:
            save_model(assignment.folder.model(assignment.number), node.x)
    except BaseException as error:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the last log line must be whole
        with suppress(PreflightError):  # the disk may be what failed
            node.finish("interrupted" if isinstance(error, Interrupted) else "failed")
        raise
    node.finish("done")


def _in_real_time(
    workload: Workload,
    assignment: Assignment,
    channel: Channel,
    recorder: FileRecorder,
    transport: ZmqTransport,
) -> None:
    number, run = assignment.number, workload.arm.run
    medium = WallMedium(
        node=number,
        observer=workload.arm.nodes,
        model=workload.composition.network,
        transport=transport,
        by_round=synchronous(workload),
        batch_bytes=workload.batch_bytes,
        timeout_s=run.liveness_timeout_s,
        left=lambda: channel.tell("left"),
        orders=channel,
        patience_ns=failure_deadline_ns(workload),
        clock_offset_ns=assignment.clock_offset_ns,
    )
    listener = MemberListener(channel.tell, assignment.board, assignment.slot)
    participant = build_participant(workload, number, medium=medium, recorder=recorder, listener=listener)
    meet(channel, transport.endpoint)
    transport.connect(assignment.book())
    medium.start()
    try:
        _run(participant, assignment, save=run.save_models)
        medium.rest()
        channel.tell("done")
        channel.await_order("release")
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the report must be whole
        medium.close()
        write_links(assignment.folder.links(number), medium.report())
    transport.close()
    recorder.close()


def _keep_time(workload: Workload, assignment: Assignment, channel: Channel) -> None:
    recorder = assignment.log(assignment.folder.network)
    emulation = Emulation(workload, assignment.run)
    saving = assignment.saving(workload)
    nominal_ns = workload.composition.compute.nominal_ns
    saves = None if saving is None else TimekeeperSaving(saving, emulation, nominal_ns, channel.tell)
    endpoint = TimekeeperSocket(assignment.sockets, assignment.listen, workload.arm.nodes)
    meet(channel, endpoint.endpoint)
    endpoint.connect(assignment.book())
    with Terminated().heeded() as terminated:
        try:
            kept = endpoint.keep(emulation.timekeeper, terminated, channel, saves)
        except Exception:
            with suppress(PreflightError):  # the disk may be full; why the run ended must not be lost over it
                emulation.write(recorder, "failed", cpu_s(), endpoint.refused)
            raise
        emulation.write(recorder, "done" if kept else "interrupted", cpu_s(), endpoint.refused)
    if not kept:
        raise Interrupted("stopped by the supervisor")
    channel.tell("done")
    channel.await_order("release", lambda order: endpoint.obey(order, emulation.timekeeper, channel))
    endpoint.close()
    recorder.close()


def save_model(path: Path, x: np.ndarray[Any, np.dtype[np.float32]]) -> None:
    """Write a final flat model, whole or not at all.

    Raises:
        PreflightError: the file cannot be written; names it.
    """
    beside = path.with_name(f".{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            np.save(file, x)
        beside.replace(path)
    except OSError as error:
        with suppress(OSError):
            beside.unlink()
        raise unwritable(path, error) from error
