"""``decentral doctor``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from decentral.errors import ConfigError, PreflightError
from launch.commands.options import (
    ExperimentArgument,
    HostsOption,
    SeedsOption,
    SetOption,
    SlurmOption,
    house_errors,
    load_chosen_hosts,
    load_experiment,
    parse_seeds,
)
from launch.commands.plan import show_hosts
from launch.commands.tables import print_table

if TYPE_CHECKING:
    from decentral.config import Experiment
    from launch.hosts import Hosts


def doctor(
    experiment: ExperimentArgument = Path("default"),
    *,
    hosts: HostsOption = None,
    slurm: SlurmOption = False,
    send_data: Annotated[
        bool,
        typer.Option("--send-data", help="The run will send data sets: hosts without any are no problem."),
    ] = False,
    overrides: SetOption = None,
    seeds: SeedsOption = None,
    all_pairs: Annotated[
        bool,
        typer.Option(
            "--all-pairs",
            help="Measure the network between every two hosts, not along a ring and to the first.",
        ),
    ] = False,
) -> None:
    """Look at all hosts and say whether an experiment can run there; changes nothing."""
    chosen = parse_seeds(seeds)
    with house_errors():
        machines = load_chosen_hosts(hosts, slurm)
        if machines is None:
            raise typer.BadParameter("name the hosts: --hosts FILE or --slurm", param_hint="--hosts")
        _examine(load_experiment(experiment, overrides, chosen), machines, all_pairs, send_data)


def _examine(experiment: Experiment, hosts: Hosts, all_pairs: bool, send_data: bool) -> None:
    from launch.compose import check
    from launch.deploy.deployment import CHECKOUT
    from launch.deploy.packages import Packages
    from launch.doctor import verdict
    from launch.doctor.examine import examine
    from launch.doctor.wanted import route_of, wanted
    from launch.host_plan import check_hosts

    check(experiment)
    check_hosts(experiment, hosts)
    sought, packages = wanted(), Packages.of(CHECKOUT)
    examined, ways = examine(
        hosts, route_of(hosts), sought, all_pairs=all_pairs, tell=lambda line: typer.echo(line, err=True)
    )
    print_table(verdict.HOSTS_HEADER, verdict.host_rows(examined, sought.pinned))
    if ways:
        print_table(verdict.WAYS_HEADER, verdict.way_rows(ways))
    for note in verdict.notes(examined, sought.pinned):
        typer.echo(note)
    try:
        problems = verdict.problems(examined, ways, hosts, experiment, packages, data_comes=send_data)
    except (
        ConfigError
    ) as error:  # e.g. more nodes on one host than its range has ports, now that cores are known
        problems = list(error.problems)
    if problems:
        count = f"{len(problems)} problem{'s' * (len(problems) != 1)}"
        raise PreflightError("\n".join([f"{experiment.name} cannot run on these hosts: {count}", *problems]))
    show_hosts(experiment, hosts, verdict.cores_of(examined))
    for line in verdict.not_looked_at(examined, experiment, packages):
        typer.echo(line)
    typer.echo(f"all is well: {experiment.name} can run on these {len(examined)} hosts")
