"""What commands have in common: arguments, options, and how refusals reach the terminal."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer

from decentral.errors import DecentralError, Interrupted

if TYPE_CHECKING:
    from decentral.config import Experiment
    from launch.hosts import Hosts

RUNS = Path(__file__).resolve().parents[2] / "results" / "runs"
"""Where run folders are made unless ``--out`` says otherwise."""

ExperimentArgument: TypeAlias = Annotated[
    Path, typer.Argument(help="A TOML file, or the name of a shipped experiment (see decentral list).")
]
SetOption: TypeAlias = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key; may be repeated.")
]
SeedsOption: TypeAlias = Annotated[
    str | None, typer.Option("--seeds", metavar="1,2,3", help="Run every arm once per seed, not the file's.")
]
ExecutorName: TypeAlias = Literal["processes", "inline"]
ExecutorOption: TypeAlias = Annotated[
    ExecutorName,
    typer.Option(help="One process per node, or all nodes in this process (small experiments, debugging)."),
]
HostsOption: TypeAlias = Annotated[
    Path | None,
    typer.Option("--hosts", metavar="FILE", help="Machines to run on: TOML, or a name on every line."),
]
SlurmOption: TypeAlias = Annotated[
    bool, typer.Option("--slurm", help="Run on the hosts of this Slurm allocation.")
]

SendDataOption: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--send-data",
        help="Copy the data sets of this machine (DECENTRAL_DATA) to hosts that name no folder of theirs.",
    ),
]


def parse_seeds(text: str | None) -> tuple[int, ...] | None:
    """The seeds that ``--seeds`` lists.

    Raises:
        typer.BadParameter: it is no list of whole numbers.
    """
    if text is None:
        return None
    words = text.split(",")
    if not all(word.strip().isdecimal() for word in words):
        raise typer.BadParameter(
            f"{text!r} is no list of seeds; write for example 1,2,3", param_hint="--seeds"
        )
    return tuple(map(int, words))


def load_experiment(path: Path, overrides: list[str] | None, seeds: tuple[int, ...] | None) -> Experiment:
    """The experiment that the command line asks for.

    Raises:
        ConfigError: the file or an override is impossible.
    """
    from decentral.config import load
    from launch.own import admit

    experiment = load(path, overrides or (), seeds)
    if path.is_file():
        admit(experiment, path.parent)
    return experiment


def load_chosen_hosts(path: Path | None, slurm: bool, executor: ExecutorName = "processes") -> Hosts | None:
    """The hosts that ``--hosts`` or ``--slurm`` names; None for this machine alone.

    Raises:
        typer.BadParameter: options that exclude each other.
        ConfigError: the file or the allocation is impossible.
    """
    if path is None and not slurm:
        return None
    given = "--slurm" if path is None else "--hosts"
    if path is not None and slurm:
        raise typer.BadParameter("the hosts are given twice; remove one of the two", param_hint="--slurm")
    if executor == "inline":
        text = "with --executor inline all nodes are in this process; remove one of the two"
        raise typer.BadParameter(text, param_hint=given)
    from launch.hosts import load_hosts, slurm_hosts

    return slurm_hosts(os.environ) if path is None else load_hosts(path)


def check_send_data(send_data: bool, machines: Hosts | None) -> None:
    """Refuse ``--send-data`` where there is nobody to send to.

    Raises:
        typer.BadParameter: it is given without hosts.
    """
    if send_data and machines is None:
        text = "there are no other hosts; add --hosts FILE or --slurm, or remove it"
        raise typer.BadParameter(text, param_hint="--send-data")


@contextmanager
def house_errors() -> Iterator[None]:
    """Refusals and failures become one message and their exit code; bugs keep their traceback."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("decentral: interrupted", err=True)
        raise typer.Exit(Interrupted.exit_code) from None
    except DecentralError as error:
        typer.echo(f"decentral: {error}", err=True)
        raise typer.Exit(error.exit_code) from None
