"""``decentral resume`` and ``decentral run --resume``: a run that was cut off goes on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from launch.commands.options import (
    RUNS,
    HostsOption,
    SendDataOption,
    SlurmOption,
    check_send_data,
    house_errors,
    load_chosen_hosts,
)
from launch.commands.tables import show_result


def resume(
    run: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="A run folder, or its name in the folder of runs."),
    ],
    *,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="The folder of runs, as given to decentral run.")
    ] = RUNS,
    hosts: HostsOption = None,
    slurm: SlurmOption = False,
    send_data: SendDataOption = False,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Under the wall clock: exit with 6 if links were not as promised."),
    ] = False,
) -> None:
    """Go on with a run that was killed, interrupted or failed."""
    with house_errors():
        go_on(run, out, hosts=hosts, slurm=slurm, send_data=send_data, strict=strict)


def go_on(run: Path, out: Path, *, hosts: Path | None, slurm: bool, send_data: bool, strict: bool) -> None:
    """Run what is left of ``run`` and show the comparison.

    Raises:
        DecentralError: as ``launch.resume.resume_run``.
    """
    from launch.resume import ResumeOptions, resume_run
    from launch.runs import named

    machines = load_chosen_hosts(hosts, slurm)
    check_send_data(send_data, machines)
    command = ("decentral", *sys.argv[1:])
    options = ResumeOptions(command=command, strict=strict, hosts=machines, send_data=send_data)
    show_result(lambda display: resume_run(named(run, out), options, display))
