"""``decentral validate``, and what ``decentral run --dry-run`` shows: nothing is started."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from launch.commands.options import (
    ExecutorName,
    ExecutorOption,
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
from launch.commands.tables import print_table

if TYPE_CHECKING:
    from decentral.config import Experiment
    from launch.hosts import Hosts


def validate(
    experiment: ExperimentArgument = Path("default"),
    *,
    overrides: SetOption = None,
    seeds: SeedsOption = None,
    executor: ExecutorOption = "processes",
    hosts: HostsOption = None,
    slurm: SlurmOption = False,
) -> None:
    """Check an experiment and its hosts and show its plan; starts and connects to nothing."""
    chosen = parse_seeds(seeds)
    with house_errors():
        machines = load_chosen_hosts(hosts, slurm, executor)
        show_plan(load_experiment(experiment, overrides, chosen), executor, machines)


def show_plan(experiment: Experiment, executor: ExecutorName, hosts: Hosts | None = None) -> None:
    """Check ``experiment`` and print what each of its arms would do, and what each of ``hosts`` would bear.

    Raises:
        ConfigError: it is impossible, or does not fit ``hosts``.
    """
    from launch.compose import check
    from launch.overview import PLAN_HEADER, plan_rows, processes

    check(experiment, executor)
    if hosts is not None:
        from launch.host_plan import check_hosts

        check_hosts(experiment, hosts)
    typer.echo(_title(experiment))
    print_table(PLAN_HEADER, plan_rows(experiment))
    typer.echo("compute: of a round without jitter; messages and sent: per node and round")
    typer.echo(processes(experiment, executor, 1 if hosts is None else len(hosts.hosts)))
    if hosts is not None:
        show_hosts(experiment, hosts)


def show_hosts(experiment: Experiment, hosts: Hosts, cores: Mapping[str, int] | None = None) -> None:
    """Print which members of ``experiment`` go to which of ``hosts`` and what they need there.

    Args:
        experiment: checked.
        hosts: checked with it.
        cores: usable ones by host, as far as they are known.
    """
    from launch.host_plan import host_tables, notes

    for title, header, rows in host_tables(experiment, hosts, cores):
        typer.echo(f"\n{title}")
        print_table(header, rows)
    for note in notes(experiment, hosts, cores):
        typer.echo(note)


def show_prediction(experiment: Experiment, rounds: int | None) -> None:
    """Emulate the network of ``experiment`` without training and print what that gives.

    Raises:
        ConfigError: it is impossible, or only training could tell.
    """
    from launch.display import make_display
    from launch.predict import DEFAULT_ROUNDS, predict
    from launch.prediction_table import notes, tables

    began_s = time.monotonic()
    found = predict(experiment, rounds or DEFAULT_ROUNDS, make_display(sys.stderr))
    took_s = time.monotonic() - began_s
    typer.echo(_title(experiment))
    for title, header, rows in tables(found):
        typer.echo(f"\n{title}")
        print_table(header, rows)
    typer.echo(f"{notes(found)}\npredicted in {took_s:.1f} s")


def _title(experiment: Experiment) -> str:
    return f"{experiment.name}: {experiment.description}" if experiment.description else experiment.name
