"""``decentral run``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from launch.commands.options import (
    RUNS,
    ExecutorName,
    ExecutorOption,
    ExperimentArgument,
    HostsOption,
    SeedsOption,
    SendDataOption,
    SetOption,
    SlurmOption,
    check_send_data,
    house_errors,
    load_chosen_hosts,
    load_experiment,
    parse_seeds,
)
from launch.commands.plan import show_plan, show_prediction
from launch.commands.resume import go_on
from launch.commands.tables import show_result

if TYPE_CHECKING:
    from decentral.config import Experiment
    from launch.hosts import Hosts

DEFAULT = Path("default")
"""The shipped experiment that runs where none is named."""


def run(
    experiment: ExperimentArgument = DEFAULT,
    *,
    overrides: SetOption = None,
    seeds: SeedsOption = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder in which the run folder is made.")] = RUNS,
    executor: ExecutorOption = "processes",
    hosts: HostsOption = None,
    slurm: SlurmOption = False,
    send_data: SendDataOption = False,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Under the wall clock: exit with 6 if links were not as promised."),
    ] = False,
    resume: Annotated[
        Path | None,
        typer.Option(
            "--resume",
            metavar="RUN",
            help="Instead of an experiment: go on with a run that was cut off, given by its folder or name.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check and show the plan; start nothing.")
    ] = False,
    predict: Annotated[
        bool,
        typer.Option(
            "--predict",
            help="With --dry-run: emulate the network without training, by default under the first seed, "
            "and show how long the run would take and what it would send; needs no data set.",
        ),
    ] = False,
    predict_rounds: Annotated[
        int | None,
        typer.Option(
            metavar="ROUNDS",
            min=2,
            help="With --predict: rounds to emulate; what follows is extrapolated. 20 without it.",
        ),
    ] = None,
) -> None:
    """Run an experiment and compare its arms."""
    if resume is not None:
        plans = dry_run or predict or predict_rounds is not None
        if experiment != DEFAULT or overrides or seeds or executor != "processes" or plans:
            text = (
                "a run goes on as it was begun; only --hosts, --slurm, --send-data, --strict and --out may "
                "be given anew"
            )
            raise typer.BadParameter(text, param_hint="--resume")
        with house_errors():
            go_on(resume, out, hosts=hosts, slurm=slurm, send_data=send_data, strict=strict)
        return
    chosen = parse_seeds(seeds)
    if predict and not dry_run:
        raise typer.BadParameter("a prediction starts no run; add --dry-run", param_hint="--predict")
    if predict_rounds is not None and not predict:
        raise typer.BadParameter("nothing is predicted; add --predict", param_hint="--predict-rounds")
    if predict and (hosts is not None or slurm):
        text = "what is predicted is the same on any hosts; remove --hosts and --slurm"
        raise typer.BadParameter(text, param_hint="--predict")
    with house_errors():
        machines = load_chosen_hosts(hosts, slurm, executor)
        check_send_data(send_data, machines)
        loaded = load_experiment(experiment, overrides, chosen)
        if strict and all(arm.run.clock != "wall" for arm in loaded.arms):
            text = (
                "no arm runs under the wall clock, so no link is paced; add --set run.clock=wall or remove it"
            )
            raise typer.BadParameter(text, param_hint="--strict")
        if predict:
            first = loaded.model_copy(update={"seeds": loaded.seeds[:1]})
            show_prediction(loaded if chosen else first, predict_rounds)
        elif dry_run:
            show_plan(loaded, executor, machines)
        else:
            _run(loaded, out, executor, strict=strict, hosts=machines, send_data=send_data)


def _run(
    experiment: Experiment,
    out: Path,
    executor: ExecutorName,
    *,
    strict: bool,
    hosts: Hosts | None,
    send_data: bool,
) -> None:
    from launch.session import RunOptions, run_experiment

    command = ("decentral", *sys.argv[1:])
    options = RunOptions(
        out=out, executor=executor, command=command, strict=strict, hosts=hosts, send_data=send_data
    )
    show_result(lambda display: run_experiment(experiment, options, display))
