"""``decentral run``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from decentral.errors import DecentralError
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
from launch.commands.tables import show_comparison

if TYPE_CHECKING:
    from decentral.config import Experiment
    from launch.hosts import Hosts


def run(
    experiment: ExperimentArgument = Path("default"),
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
    from launch.display import make_display
    from launch.session import RunOptions, run_experiment

    command = ("decentral", *sys.argv[1:])
    options = RunOptions(
        out=out, executor=executor, command=command, strict=strict, hosts=hosts, send_data=send_data
    )
    display = make_display(sys.stderr)
    try:
        folder = run_experiment(experiment, options, display)
    except DecentralError as error:
        display.close()
        measured: Path | None = getattr(error, "run_folder", None)
        if measured is not None:
            show_comparison(measured)
        raise
    finally:
        display.close()
    show_comparison(folder)
