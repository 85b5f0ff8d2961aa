"""Every host gets a look at what it has, then only what it lacks; all hosts at once."""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from decentral.errors import PreflightError
from launch.deploy.archive import write_archive
from launch.deploy.at_once import each
from launch.deploy.data import Sent, send_data
from launch.deploy.line import FOLDER, Lines, Route, limit_s, printable
from launch.deploy.onhost.tree import Refused, code_hash, code_paths, files_hash, listing
from launch.deploy.packages import CHECK, Packages
from launch.deploy.plan import Impossible, Place, Plan, disagreements, plan_host
from launch.deploy.sharing import carriers_of
from launch.versions import differing

if TYPE_CHECKING:
    from launch.hosts import Host

Tell: TypeAlias = Callable[[str], None]

CHECKOUT = Path(__file__).resolve().parents[2]
_LOOK_S = 90.0
_PIP_S = 3600.0
_PIP_BYTES = 3 << 30
_SHARED_S = 120.0
"""Network file systems remember for a minute that something was not there."""


def hash_of(checkout: Path) -> str:
    """Content hash of the code in ``checkout``.

    Raises:
        PreflightError: a file of it cannot be read, or goes away meanwhile.
    """
    try:
        return code_hash(str(checkout))
    except OSError as error:
        raise _changing(error) from error


def _changing(error: OSError) -> PreflightError:
    return PreflightError(
        f"{error.filename} is part of the code and cannot be read: {error.strerror}; start again once "
        f"nothing changes the checkout any more"
    )


class Deployment:
    """Brings what agents need to hosts.

    Args:
        route: how hosts are reached.
        send: folder of data sets to bring too; None: none.
        checkout: the code.
        parts: modules of the user's own to bring: name there, and path here, of every file.
    """

    def __init__(
        self,
        route: Route,
        *,
        send: Path | None = None,
        checkout: Path = CHECKOUT,
        parts: Sequence[tuple[str, Path]] = (),
    ) -> None:
        self._lines = Lines(route)
        self._send = send
        self._checkout = checkout
        self._parts = sorted(parts)
        self._places: dict[str, Place] = {}

    def place(self, host: Host) -> Place:
        """Where the things of the agent of ``host`` lie; after ``deploy``."""
        return self._places[host.name]

    def deploy(self, hosts: Sequence[Host], tell: Tell, here: Sequence[str] = ()) -> None:
        """Bring what is lacking to ``hosts``.

        Args:
            hosts: where.
            tell: hears a line on what takes time; called in this thread only.
            here: names of further hosts of the run, which have this Python.

        Raises:
            PreflightError: a line for every host where that failed.
        """
        if not hosts:
            return
        if not (self._checkout / "setup.cfg").is_file():
            raise PreflightError(
                f"{self._checkout} has no setup.cfg; other hosts need decentral to be run from a checkout"
            )
        unsaid, tell = tell, lambda line: unsaid(printable(line))
        packages = Packages.of(self._checkout)
        wanted = hash_of(self._checkout)
        try:
            parts = files_hash((name, str(path)) for name, path in self._parts)
        except OSError as error:
            raise _changing(error) from error
        looks = each(self._lines, hosts, partial(self._look, packages, wanted, parts, secrets.token_hex(8)))
        plans = self._plans(hosts, looks, packages)
        # Now, for an environment takes many minutes, and would be refused when it is ready.
        if problems := differing(
            dict.fromkeys(here, packages.versions) | {plan.host.name: plan.versions for plan in plans}
        ):
            raise PreflightError("\n".join(problems))
        for host in hosts:
            for line in disagreements(host, looks[host.name], packages):
                tell(line)
        self._carry_sources("code", [plan for plan in plans if plan.code], wanted, tell)
        self._carry_sources("parts", [plan for plan in plans if plan.parts], parts, tell)
        self._carry_environments([plan for plan in plans if plan.environment is not None], packages, tell)
        self._places = {plan.host.name: plan.place for plan in plans}
        if self._send is not None:
            self._carry_data(plans, self._send, tell)

    def cancel(self) -> None:
        """Make ``deploy``, which is under way or yet to come, fail within 2 s; also from a signal handler."""
        self._lines.cancel()

    def _look(self, packages: Packages, wanted: str, parts: str, run: str, host: Host) -> dict[str, Any]:
        request = {
            "do": "look",
            "run": run,
            "folder": host.folder or FOLDER,
            "code": f"code-{wanted}",
            "hash": wanted,
            **({"parts": parts} if self._parts else {}),
            "checkout": str(self._checkout),
            "pins": packages.pins,
            "packages": list(packages.versions),
            "own": sys.executable,
            "given": host.python,
            "data": [name for name in (host.data, os.environ.get("DECENTRAL_DATA")) if name],
        }
        return self._lines.ask(host, "looking at what is there", request, _LOOK_S)

    def _plans(
        self, hosts: Sequence[Host], looks: dict[str, dict[str, Any]], packages: Packages
    ) -> list[Plan]:
        plans, problems = [], []
        data = os.environ.get("DECENTRAL_DATA") or None
        for host in hosts:
            look = looks[host.name]
            try:
                plan = plan_host(host, look, packages, str(self._checkout), data, parts=bool(self._parts))
            except Impossible as impossible:
                problems.append(printable(f"host {host.name}: {impossible}"))
            else:
                plans.append(plan)
        if problems:
            raise PreflightError("\n".join(problems))
        return plans

    def _carry_sources(
        self, do: Literal["code", "parts"], plans: Sequence[Plan], wanted: str, tell: Tell
    ) -> None:
        """Bring Python files, whose hash is ``wanted``, to every host."""
        if not plans:
            return
        what, files = "copying modules of your own", self._parts
        if do == "code":
            what = "copying the code"
            files = [(name, self._checkout / name) for name in code_paths(str(self._checkout))]
        where = {
            plan.host.name: (plan.place.code if do == "code" else plan.place.parts or "") for plan in plans
        }
        try:
            size = sum(path.stat().st_size for _, path in files)
        except OSError as error:
            raise _changing(error) from error
        carriers, others = carriers_of(plans, lambda plan: where[plan.host.name])
        tell(f"{what} to {', '.join(carriers)}")

        def bring(host: Host) -> None:
            request = {
                "do": do,
                "folder": carriers[host.name].place.folder,
                "name": f"{do}-{wanted}",
                "hash": wanted,
                "bytes": 2 * size,  # what is compiled of it comes on top
                "files": len(files),
            }
            payload = partial(write_archive, files=files, packed=True)
            self._lines.ask(host, what, request, limit_s(size), payload)

        each(self._lines, [plan.host for plan in carriers.values()], bring)
        self._wait({plan.host.name: where[plan.host.name] for plan, _ in others}, plans)

    def _carry_environments(self, plans: Sequence[Plan], packages: Packages, tell: Tell) -> None:
        if not plans:
            return
        carriers, others = carriers_of(plans, lambda plan: plan.place.python)
        copies = {name: plan for name, plan in carriers.items() if plan.environment == "copy"}
        files = [(file.name, file.path) for file in packages.files] if copies else []
        size = sum(file.size for file in packages.files) if copies else 0
        if copies:
            tell(f"copying the environment to {', '.join(copies)}: {size >> 20} MiB each")
        if len(copies) < len(carriers):
            by_pip = {name: plan for name, plan in carriers.items() if name not in copies}
            tell(f"installing packages with pip on {', '.join(by_pip)}, whose Python or system is another")

        def bring(host: Host) -> float:
            plan = carriers[host.name]
            copy = host.name in copies
            request = {
                "do": "environment",
                "folder": plan.place.folder,
                "pins": packages.pins,
                "by": plan.environment,
                "code": plan.place.code,
                "check": CHECK,
                "bytes": size + (size >> 3) if copy else _PIP_BYTES,
                "files": len(files),
                "requirements": [str(one) for one in packages.required],
                "constraints": packages.constraints,
            }
            began = time.monotonic()
            if copy:
                payload = partial(write_archive, files=files)
                self._lines.ask(host, "copying the environment", request, limit_s(size), payload)
            else:
                self._lines.ask(host, "installing packages", request, _PIP_S)
            return time.monotonic() - began

        hosts = [plan.host for plan in carriers.values()]
        each(
            self._lines,
            hosts,
            bring,
            lambda host, s: tell(f"host {host.name}: environment ready after {s:.0f} s"),
        )
        self._wait({plan.host.name: plan.place.python for plan, _ in others}, plans)

    def _carry_data(self, plans: Sequence[Plan], source: Path, tell: Tell) -> None:
        wanting = [plan for plan in plans if plan.host.data is None]
        carriers, others = carriers_of(wanting, lambda plan: plan.place.sent_data)
        source = source.resolve()
        try:
            files = listing(str(source))
        except Refused as refused:
            raise PreflightError(str(refused)) from refused
        except OSError as error:
            raise PreflightError(
                f"{error.filename} among the data sets cannot be looked at: {error.strerror}; "
                f"make it readable or remove it"
            ) from error
        if not files:
            raise PreflightError(
                f"{source} holds no files; set DECENTRAL_DATA to the folder of the data sets"
            )
        sent = self._bring_data(files, source, [plan.host for plan in carriers.values()], tell)
        # A carrier that sees the launcher's own files makes no folder that the others could wait for.
        made = {name for name, one in sent.items() if one.folder == carriers[name].place.sent_data}
        self._wait({plan.host.name: plan.place.sent_data for plan, by in others if by in made}, wanting)
        # To the others nothing is sent where all is there; they may see the launcher's files, or not.
        sent |= self._bring_data(files, source, [plan.host for plan, _ in others], tell)
        for plan in wanting:
            self._places[plan.host.name] = replace(plan.place, data=sent[plan.host.name].folder)

    def _bring_data(
        self, files: dict[str, list[int]], source: Path, hosts: Sequence[Host], tell: Tell
    ) -> dict[str, Sent]:
        def sent(host: Host, sent: Sent) -> None:
            if sent.size:
                tell(f"host {host.name}: {sent.size >> 20} MiB of data sets copied to {sent.folder}")

        return each(self._lines, hosts, partial(send_data, self._lines, source, files), sent)

    def _wait(self, paths: Mapping[str, str], plans: Sequence[Plan]) -> None:
        """Until hosts see what another one has put into the folder that they share with it.

        Args:
            paths: of that, by name of the host.
            plans: of these hosts and others.
        """

        def wait(host: Host) -> None:
            request = {"do": "wait", "path": paths[host.name], "patience_s": _SHARED_S}
            self._lines.ask(host, "waiting for the shared folder", request, _SHARED_S + _LOOK_S)

        each(self._lines, [plan.host for plan in plans if plan.host.name in paths], wait)
