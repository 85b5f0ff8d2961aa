"""``decentral status``, ``logs`` and ``stop``: a running experiment seen from another terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from launch.commands.options import RUNS, house_errors

if TYPE_CHECKING:
    from launch.runs import Seen

RunArgument: TypeAlias = Annotated[
    Path | None,
    typer.Argument(
        metavar="[RUN]",
        show_default=False,
        help="A run folder, or its name in the folder of runs. The newest that runs without it.",
    ),
]
OutOption: TypeAlias = Annotated[
    Path, typer.Option(metavar="DIR", help="The folder of runs, as given to decentral run.")
]


def status(
    run: RunArgument = None,
    *,
    out: OutOption = RUNS,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of lines.")] = False,
) -> None:
    """Show how far a run is, or how it ended."""
    with house_errors():
        from launch import status as shown
        from launch.runs import find

        seen = find(run, out)
        if as_json:
            typer.echo(json.dumps(shown.as_json(seen), indent=1))
        else:
            _say_how_it_is(seen)


def logs(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN] [WHOSE]",
            show_default=False,
            help="The run, as for status; and a node's number, a host's name, observer or timekeeper. "
            "What the processes of all hosts printed without it.",
        ),
    ] = None,
    *,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until the run ends.")] = False,
    count: Annotated[int, typer.Option("-n", "--lines", min=0, help="Begin with so many last lines.")] = 10,
    out: OutOption = RUNS,
) -> None:
    """Show the logs of the job that runs, or ran last."""
    with house_errors():
        from launch.logs import Follower
        from launch.runs import find

        run, whose = _run_and_whose(words or [], out)
        seen = find(run, out)
        follower = Follower(whose, count, typer.echo)
        follower.show(seen)
        if follow and seen.lives:
            _say_how_it_is(follower.follow(seen), err=True)


def stop(
    run: RunArgument = None,
    *,
    out: OutOption = RUNS,
    now: Annotated[
        bool, typer.Option("--now", help="Do not let nodes finish their logs, like Ctrl-C twice.")
    ] = False,
) -> None:
    """End a run in order, as Ctrl-C in its terminal does; wait until it has ended."""
    with house_errors():
        from launch.runs import find
        from launch.stop import stop as end

        seen = find(run, out)
        typer.echo(f"{seen.name}: stopping", err=True)
        _say_how_it_is(end(seen, now=now))


def _run_and_whose(words: list[str], out: Path) -> tuple[Path | None, str | None]:
    from launch.runs import named

    if len(words) > 2:
        raise typer.BadParameter(f"{' '.join(words)}: give a run and one node, host, observer or timekeeper")
    if len(words) == 1 and not (named(Path(words[0]), out) / "manifest.json").exists():
        return None, words[0]  # no run is called so
    run, whose = [*words, None, None][:2]
    return None if run is None else Path(run), whose


def _say_how_it_is(seen: Seen, *, err: bool = False) -> None:
    from launch.status import lines

    for line in lines(seen):
        typer.echo(line, err=err)
