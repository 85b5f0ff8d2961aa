"""Tables on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer


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
