"""``decentral validate``, and what ``decentral run --dry-run`` shows: nothing is started."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from launch.commands.options import (
    ExecutorName,
    ExecutorOption,
    ExperimentArgument,
    SeedsOption,
    SetOption,
    house_errors,
    load_experiment,
    parse_seeds,
)
from launch.commands.tables import print_table

if TYPE_CHECKING:
    from decentral.config import Experiment


def validate(
    experiment: ExperimentArgument = Path("default"),
    *,
    overrides: SetOption = None,
    seeds: SeedsOption = None,
    executor: ExecutorOption = "processes",
) -> None:
    """Check an experiment and show its plan."""
    chosen = parse_seeds(seeds)
    with house_errors():
        show_plan(load_experiment(experiment, overrides, chosen), executor)


def show_plan(experiment: Experiment, executor: ExecutorName) -> None:
    """Check ``experiment`` and print what each of its arms would do.

    Raises:
        ConfigError: it is impossible.
    """
    from launch.compose import check
    from launch.overview import PLAN_HEADER, plan_rows, processes

    check(experiment, executor)
    typer.echo(_title(experiment))
    print_table(PLAN_HEADER, plan_rows(experiment))
    typer.echo("compute: of a round without jitter; messages and sent: per node and round")
    typer.echo(processes(experiment, executor))


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
