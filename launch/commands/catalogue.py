"""``decentral list``, ``report`` and ``download``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from decentral.errors import ConfigError
from launch.commands.options import RUNS, SetOption, house_errors
from launch.commands.tables import show_comparison


def list_() -> None:
    """Show what experiments are made of."""
    with house_errors():
        from launch.overview import catalogue

        for number, (title, entries) in enumerate(catalogue().items()):
            typer.echo(f"{chr(10) if number else ''}{title}")
            width = max(map(len, entries), default=0)
            for name, description in entries.items():
                typer.echo(f"  {name:{width}}  {description}".rstrip())


def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, or its name in results/runs.")],
    decentralizepy: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Also write machine*/*_results.json for DecentralizePy's plot scripts."
        ),
    ] = None,
) -> None:
    """Write the report of a run again."""
    with house_errors():
        if not folder.exists() and folder == Path(folder.name) and (RUNS / folder).is_dir():
            folder = RUNS / folder
        from results.report import write_report

        write_report(folder)
        if decentralizepy is not None:
            from results.export import export_decentralizepy

            export_decentralizepy(folder, decentralizepy)
        show_comparison(folder)


def download(
    name: Annotated[str, typer.Argument(help="A task of decentral list, such as cifar10.")],
    overrides: SetOption = None,
) -> None:
    """Fetch the data set of a task."""
    with house_errors():
        from decentral.config import Part
        from decentral.config.merge import merged, parse_override
        from launch import parts

        if not hasattr(parts.resolve("task", name), "fetch"):
            raise ConfigError(f"download {name}: this task has nothing to download; run it as it is")
        settings: dict[str, Any] = {}
        for text in overrides or ():
            settings = merged(settings, parse_override(text).table)
        typer.echo(f"{name}: {parts.build('task', Part(name=name, settings=settings), {}).fetch()}")
