"""The command line. Commands import what they need when they run, so that help and lists come at once."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import typer

from decentral.errors import ConfigError, DecentralError, Interrupted

if TYPE_CHECKING:
    from decentral.config import Experiment

RUNS = Path(__file__).resolve().parents[1] / "results" / "runs"
"""Where run folders are made unless ``--out`` says otherwise."""

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


def _seeds(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    words = text.split(",")
    if not all(word.strip().isdecimal() for word in words):
        raise typer.BadParameter(
            f"{text!r} is no list of seeds; write for example 1,2,3", param_hint="--seeds"
        )
    return tuple(map(int, words))


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


@contextmanager
def _house_errors() -> Iterator[None]:
    """Refusals and failures become one message and their exit code; bugs keep their traceback."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("decentral: interrupted", err=True)
        raise typer.Exit(Interrupted.exit_code) from None
    except DecentralError as error:
        typer.echo(f"decentral: {error}", err=True)
        raise typer.Exit(error.exit_code) from None


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def run(
    experiment: ExperimentArgument = Path("default"),
    *,
    overrides: SetOption = None,
    seeds: SeedsOption = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder in which the run folder is made.")] = RUNS,
    executor: ExecutorOption = "processes",
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
    chosen = _seeds(seeds)
    if predict and not dry_run:
        raise typer.BadParameter("a prediction starts no run; add --dry-run", param_hint="--predict")
    if predict_rounds is not None and not predict:
        raise typer.BadParameter("nothing is predicted; add --predict", param_hint="--predict-rounds")
    with _house_errors():
        loaded = _load(experiment, overrides, chosen)
        if strict and all(arm.run.clock != "wall" for arm in loaded.arms):
            text = (
                "no arm runs under the wall clock, so no link is paced; add --set run.clock=wall or remove it"
            )
            raise typer.BadParameter(text, param_hint="--strict")
        if predict:
            first = loaded.model_copy(update={"seeds": loaded.seeds[:1]})
            _show_prediction(loaded if chosen else first, predict_rounds)
        elif dry_run:
            _show_plan(loaded, executor)
        else:
            _run(loaded, out, executor, strict=strict)


@app.command()
def validate(
    experiment: ExperimentArgument = Path("default"),
    *,
    overrides: SetOption = None,
    seeds: SeedsOption = None,
    executor: ExecutorOption = "processes",
) -> None:
    """Check an experiment and show its plan."""
    chosen = _seeds(seeds)
    with _house_errors():
        _show_plan(_load(experiment, overrides, chosen), executor)


@app.command("list")
def list_() -> None:
    """Show what experiments are made of."""
    with _house_errors():
        from launch.overview import catalogue

        for number, (title, entries) in enumerate(catalogue().items()):
            typer.echo(f"{chr(10) if number else ''}{title}")
            width = max(map(len, entries), default=0)
            for name, description in entries.items():
                typer.echo(f"  {name:{width}}  {description}".rstrip())


@app.command()
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
    with _house_errors():
        if not folder.exists() and folder == Path(folder.name) and (RUNS / folder).is_dir():
            folder = RUNS / folder
        from results.report import write_report

        write_report(folder)
        if decentralizepy is not None:
            from results.export import export_decentralizepy

            export_decentralizepy(folder, decentralizepy)
        _show_comparison(folder)


@app.command()
def download(
    name: Annotated[str, typer.Argument(help="A task of decentral list, such as cifar10.")],
    overrides: SetOption = None,
) -> None:
    """Fetch the data set of a task."""
    with _house_errors():
        from decentral.config import Part
        from decentral.config.merge import merged, parse_override
        from launch import parts

        if not hasattr(parts.resolve("task", name), "fetch"):
            raise ConfigError(f"download {name}: this task has nothing to download; run it as it is")
        settings: dict[str, Any] = {}
        for text in overrides or ():
            settings = merged(settings, parse_override(text).table)
        typer.echo(f"{name}: {parts.build('task', Part(name=name, settings=settings), {}).fetch()}")


def _load(path: Path, overrides: list[str] | None, seeds: tuple[int, ...] | None) -> Experiment:
    from decentral.config import load

    return load(path, overrides or (), seeds)


def _run(experiment: Experiment, out: Path, executor: ExecutorName, *, strict: bool) -> None:
    from launch.display import make_display
    from launch.session import RunOptions, run_experiment

    command = ("decentral", *sys.argv[1:])
    options = RunOptions(out=out, executor=executor, command=command, strict=strict)
    display = make_display(sys.stderr)
    try:
        folder = run_experiment(experiment, options, display)
    except DecentralError as error:
        display.close()
        measured: Path | None = getattr(error, "run_folder", None)
        if measured is not None:
            _show_comparison(measured)
        raise
    finally:
        display.close()
    _show_comparison(folder)


def _show_plan(experiment: Experiment, executor: ExecutorName) -> None:
    from launch.compose import check
    from launch.overview import PLAN_HEADER, plan_rows, processes

    check(experiment, executor)
    typer.echo(f"{experiment.name}: {experiment.description}" if experiment.description else experiment.name)
    _print_table(PLAN_HEADER, plan_rows(experiment))
    typer.echo("compute: of a round without jitter; messages and sent: per node and round")
    typer.echo(processes(experiment, executor))


def _show_prediction(experiment: Experiment, rounds: int | None) -> None:
    from launch.display import make_display
    from launch.predict import DEFAULT_ROUNDS, predict
    from launch.prediction_table import notes, tables

    began_s = time.monotonic()
    found = predict(experiment, rounds or DEFAULT_ROUNDS, make_display(sys.stderr))
    took_s = time.monotonic() - began_s
    typer.echo(f"{experiment.name}: {experiment.description}" if experiment.description else experiment.name)
    for title, header, rows in tables(found):
        typer.echo(f"\n{title}")
        _print_table(header, rows)
    typer.echo(f"{notes(found)}\npredicted in {took_s:.1f} s")


def _show_comparison(folder: Path) -> None:
    from results.read import read_run
    from results.tables import terminal_rows

    _print_table(*terminal_rows(read_run(folder)))
    typer.echo(f"report: {folder / 'report.html'}")


def _print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
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


def main() -> None:
    """Entry point of the command ``decentral``."""
    app()
