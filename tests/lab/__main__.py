"""Labs by hand: ``python -m tests.lab up 3``; see README.md."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from tests.lab.commands import LabError
from tests.lab.lab import Lab
from tests.lab.registry import clear, labs, ownerless, staying
from tests.lab.slurm import Slurm


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab", description="Emulated hosts.")
    parser.add_argument("--lab", help="name of the lab; not needed where there is only one")
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="make N hosts that stay until down")
    up.add_argument("n", type=int)
    up.add_argument("--show", action="append", help="folder that hosts see read-only; repeatable")
    up.add_argument("--share", action="append", default=[], help="folder that hosts share; repeatable")
    up.add_argument("--mtu", type=int, default=1500)
    up.add_argument("--slurm", action="store_true", help="with a Slurm cluster on them")
    commands.add_parser("list", help="all labs of this machine")
    down = commands.add_parser("down", help="remove the lab, and all that a killed owner left")
    down.add_argument("--all", action="store_true", help="all labs, those of running tests too")
    run = commands.add_parser("exec", help="run a command as root in host I")
    run.add_argument("i", type=int)
    run.add_argument("words", nargs=argparse.REMAINDER)
    for name, text in {
        "processes": "what runs in host I beyond its system",
        "cut": "power cut of host I",
        "boot": "switch host I on",
        "pull": "pull the cable of host I",
        "plug": "plug it in again",
    }.items():
        commands.add_parser(name, help=text).add_argument("i", type=int)
    rate = commands.add_parser("rate", help="limit host I to MBIT Mbit/s each way; 0: no limit")
    rate.add_argument("i", type=int)
    rate.add_argument("mbit", type=float)
    arguments = parser.parse_args()
    try:
        return _obey(arguments)
    except (LabError, RuntimeError, ValueError) as error:
        print(f"tests.lab: {error}", file=sys.stderr)
        return 1


def _obey(arguments: argparse.Namespace) -> int:
    match arguments.command:
        case "up":
            lab = Lab(
                arguments.n, shown=arguments.show, shared=arguments.share, mtu=arguments.mtu, stay=True
            ).up()
            if arguments.slurm:
                variables = Slurm(lab).__enter__().variables
                print(f"export {' '.join(f'{key}={value}' for key, value in variables.items())}")
            print(f"{lab.name}: ssh -F {lab.ssh_config} h1")
        case "list":
            for name, folder in labs().items():
                print(f"{name}  {folder}{'  (nobody owns it)' if name in ownerless() else ''}")
        case "down":
            named = _named(arguments.lab) if arguments.lab else _removable(arguments.all)
            for name, folder in named.items():
                clear(folder)
                print(f"{name} is gone")
        case _:
            _to_a_host(Lab.open(arguments.lab), arguments)
    return 0


def _to_a_host(lab: Lab, arguments: argparse.Namespace) -> None:
    i = arguments.i
    match arguments.command:
        case "exec":
            command = lab.host(i).enter(*arguments.words)
            os.execvp(command[0], command)
        case "processes":
            for process in lab.host(i).processes():
                print(f"{process.pid:8} {process.inner:6}  {process.command}")
        case "rate":
            lab.rate(i, arguments.mbit or None)
        case "boot":
            lab.boot(i)
        case "cut":
            lab.power_cut(i)
        case "pull":
            lab.pull_cable(i)
        case "plug":
            lab.plug_cable(i)


def _named(name: str) -> dict[str, Path]:
    there = labs()
    if name not in there:
        raise ValueError(f"there is no lab {name}; there are: {', '.join(there) or 'none'}")
    return {name: there[name]}


def _removable(everything: bool) -> dict[str, Path]:
    if everything:
        return labs()
    if len(staying()) > 1:
        raise ValueError(f"which one? --lab NAME of {', '.join(staying())}, or --all")
    return {**ownerless(), **staying()}


if __name__ == "__main__":
    sys.exit(main())
