"""Tables on the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from decentral.errors import DecentralError

if TYPE_CHECKING:
    from launch.display import Display


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A line per row where that fits on the terminal, else a line per column; unbroken in any case."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    unbroken = console.options.update_width(10_000)
    for lines in ([header, *rows], list(zip(header, *rows, strict=True))):
        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        for title in lines[0]:
            table.add_column(Text(title))
        for line in lines[1:]:
            table.add_row(*map(Text, line))  # Text: names may contain square brackets
        needed = console.measure(table, options=unbroken).maximum
        if needed <= console.width or not console.is_terminal:
            break
    console.width = max(console.width, needed)
    console.print(table)


def show_comparison(folder: Path) -> None:
    """The comparison of a run folder's arms, and where its report lies."""
    from results.read import read_run
    from results.tables import terminal_rows

    print_table(*terminal_rows(read_run(folder)))
    typer.echo(f"report: {folder / 'report.html'}")


def show_result(act: Callable[[Display], Path]) -> None:
    """Let ``act`` run something that a display shows, and show the comparison that is in its run folder.

    Raises:
        DecentralError: what ``act`` raised, after the comparison of what was measured.
    """
    from launch.display import make_display

    display = make_display(sys.stderr)
    try:
        folder = act(display)
    except DecentralError as error:
        display.close()
        measured: Path | None = getattr(error, "run_folder", None)
        if measured is not None:
            show_comparison(measured)
        raise
    finally:
        display.close()
    show_comparison(folder)
