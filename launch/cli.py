"""The command line. Commands import what they need when they run, so that help and lists come at once."""

from __future__ import annotations

from typing import Annotated

import typer

from launch.commands.catalogue import download, list_, report
from launch.commands.doctor import doctor
from launch.commands.plan import validate
from launch.commands.resume import resume
from launch.commands.run import run
from launch.commands.watch import logs, status, stop

app = typer.Typer(
    help="Emulates decentralized learning: every node is a process of its own.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"decentral {version('decentral')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


app.command()(run)
app.command()(resume)
app.command()(validate)
app.command()(doctor)
app.command("list")(list_)
app.command()(report)
app.command()(download)
app.command()(status)
app.command()(logs)
app.command()(stop)


def main() -> None:
    """Entry point of the command ``decentral``."""
    app()
