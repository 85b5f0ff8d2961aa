"""``decentral run`` of this checkout in a process of its own, and what tests look at of it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import psutil

from tests.lab.host import Process
from tests.lab.lab import Lab
from tests.lab.view import ROOT

T = TypeVar("T")
STOPPING = re.compile(r": stopping$|, lost$|: (failed|interrupted) after", re.MULTILINE)
START_S = 100.0
"""Hosts are looked at, torch is imported once per host: seconds on an idle machine."""


def wait_for(what: str, condition: Callable[[], T | None], timeout_s: float) -> T:
    """Poll ``condition`` (of other processes, so there is nothing to wait on) until it gives something."""
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s} s"
        time.sleep(0.02)
    return found


class Run:
    """A launcher that runs; killed at the end of the ``with`` statement if it still does.

    Args:
        folder: empty; for the experiment, what the launcher prints, and its runs.
        experiment: TOML.
        *words: further arguments of ``decentral run``.
        before: command that starts it (``salloc -N3``); nothing by default.
        variables: further environment variables.
    """

    def __init__(
        self,
        folder: Path,
        experiment: str,
        *words: str | Path,
        before: tuple[str, ...] = (),
        variables: Mapping[str, str] | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        toml = folder / "experiment.toml"
        toml.write_text(experiment, encoding="utf-8")
        launch = [sys.executable, "-P", "-m", "launch", "run", str(toml), "--out", str(folder / "out")]
        with (folder / "output").open("wb") as output:
            self.process = subprocess.Popen(
                [*before, *launch, *map(str, words)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": str(ROOT), **(variables or {})},
                start_new_session=True,
            )

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def resumed(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """Go on with the run, which has ended, until it ends again."""
        launch = [sys.executable, "-P", "-m", "launch", "run", "--resume", str(self.run_folder)]
        return subprocess.run(
            [*launch, *map(str, words)],
            check=False,
            timeout=300,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    @property
    def launcher(self) -> psutil.Process:
        """The launcher itself, also where another command has started it."""
        first = psutil.Process(self.process.pid)
        family = [first, *first.children(recursive=True)]
        return next(one for one in family if one.cmdline()[1:5] == ["-P", "-m", "launch", "run"])

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return (self.folder / "output").read_text(encoding="utf-8", errors="replace")

    @cached_property
    def run_folder(self) -> Path:
        """The folder of the run; waits until there is one."""
        (manifest,) = self._await("no run folder", lambda: list(self.folder.glob("out/*/manifest.json")))
        return manifest.parent

    @property
    def manifest(self) -> dict[str, Any]:
        """The manifest as it is now."""
        content: dict[str, Any] = json.loads((self.run_folder / "manifest.json").read_text(encoding="utf-8"))
        return content

    def code(self, timeout_s: float = 120.0) -> int:
        """Exit code, after waiting for the end and the report."""
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {timeout_s} s:\n{self.output}") from None

    def ended(self, timeout_s: float) -> dict[str, Any]:
        """The manifest once the run has ended, which is before its report is written."""

        def over() -> dict[str, Any] | None:
            manifest = self.manifest
            return manifest if manifest["state"] != "running" else None

        return self._await("the run goes on", over, timeout_s)

    def stopping(self, timeout_s: float = 60.0) -> None:
        """Wait until the launcher says that it stops the hosts, or that a job has ended."""
        self._await("nothing is being stopped", lambda: bool(STOPPING.search(self.output)), timeout_s)

    def under_way(self, nodes: int = 12, arm: str = "*") -> None:
        """Wait until every node has finished a round and its log has arrived here."""

        def rounds() -> bool:
            logs = list(self.run_folder.glob(f"{arm}/seed-*/nodes/*.jsonl"))
            return len(logs) == nodes and all('"event":"round"' in log.read_text() for log in logs)

        self._await("not all nodes have finished a round", rounds)

    def node_events(self, arm: str = "*") -> dict[int, list[dict[str, Any]]]:
        """All whole lines of the nodes' logs of one arm, by node."""
        return {
            int(log.stem): lines_of(log)
            for log in sorted(self.run_folder.glob(f"{arm}/seed-*/nodes/*.jsonl"))
            if not log.name.endswith("links.json")
        }

    def digests(self, arm: str) -> list[str]:
        """``model_sha256`` of every node at the end of ``arm``."""
        return [lines[-1]["model_sha256"] for _, lines in sorted(self.node_events(arm).items())]

    def metrics(self, arm: str) -> list[dict[str, Any]]:
        """What the observer logged of ``arm``; nothing of it may depend on where nodes ran."""
        (path,) = self.run_folder.glob(f"{arm}/seed-*/metrics.jsonl")
        return [line for line in lines_of(path) if line["event"] == "evaluation"]

    def nodes_on(self, host: str, arm: str = "*") -> dict[int, int]:
        """Node -> process number in its host, of those on ``host``, from the headers of their logs."""
        headers = {node: lines[0] for node, lines in self.node_events(arm).items() if lines}
        return {node: line["pid"] for node, line in headers.items() if line["host"] == host}

    def lines_to(self, host: str) -> list[psutil.Process]:
        """The ssh clients that this launcher has started for ``host``."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        return [child for child in children if child.name() == "ssh" and host in child.cmdline()]

    def _await(self, what: str, condition: Callable[[], T | None], timeout_s: float = START_S) -> T:
        def found() -> T | None:
            result = condition()
            if not result and self.process.poll() is not None:
                raise AssertionError(f"{what}, and the launcher has ended:\n{self.output}")
            return result

        try:
            return wait_for(what, found, timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.output}") from None


def lines_of(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a log that may still grow."""
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def agent(lab: Lab, i: int) -> Process:
    """The agent on host ``i``: the process that all nodes there descend from."""
    agents = [one for one in lab.processes(i) if _is_python(one) and "launch.zygote" in one.command]
    numbers = {one.pid for one in agents}
    (first,) = [one for one in agents if psutil.Process(one.pid).ppid() not in numbers]
    return first


def _is_python(process: Process) -> bool:
    """Whether it is the interpreter itself and not a shell or ssh that was told to start it."""
    return Path(process.command.split()[0]).name.startswith("python")


def node_process(lab: Lab, run: Run, host: int, node: int, arm: str = "*") -> Process:
    """The process of ``node``, which runs on ``host``; ``arm``: where there are several."""
    inner = run.nodes_on(f"h{host}", arm)[node]
    (found,) = [process for process in lab.processes(host) if process.inner == inner]
    return found


@contextmanager
def held(lab: Lab, run: Run, host: int, arm: str = "*") -> Iterator[None]:
    """Stop a node on ``host`` for as long as the block lasts: in emulated time nobody can get past it."""
    process = node_process(lab, run, host, min(run.nodes_on(f"h{host}", arm)), arm)
    os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGCONT)
