"""``decentral logs``: whose, how many lines, and what is added while it looks."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from decentral.errors import ConfigError
from launch import logs as module
from launch.cli import app
from launch.live import LiveFile
from launch.logs import Follower, log_files, tail
from launch.paths import RunFolder
from launch.runs import Seen, look
from tests.fake_launcher import launcher, run_folder
from tests.harness import SilentDisplay

__all__ = ["launcher"]


def test_whose(tmp_path: Path) -> None:
    seen = look(run_folder(tmp_path / "run"))
    job = tmp_path / "run" / "el" / "seed-1"
    assert log_files(seen, None) == log_files(seen, "h1") == [job / "logs" / "h1.log"]
    assert log_files(seen, "1") == [job / "nodes" / "001.jsonl"]
    assert log_files(seen, "observer") == [job / "metrics.jsonl"]
    assert log_files(seen, "timekeeper") == [job / "network.jsonl"]
    for absent in ("2", "h2", "../../manifest"):
        with pytest.raises(ConfigError, match="nodes 0 to 1, hosts h1, observer and timekeeper"):
            log_files(seen, absent)


def test_a_manifest_that_leads_elsewhere(tmp_path: Path) -> None:
    entry = {"arm": "EL", "seed": 1, "folder": "../../etc", "state": "done"}
    with pytest.raises(ConfigError, match="outside the run"):
        log_files(look(run_folder(tmp_path / "run", jobs=[entry])), "observer")


@pytest.mark.parametrize("count", [0, 1, 3, 100_000])
def test_tail(count: int, tmp_path: Path) -> None:
    path = tmp_path / "log"
    written = [f"line {number} {'x' * (number % 50)}" for number in range(20_000)]
    path.write_text("\n".join(written) + "\nhalf a li")
    listed, place = tail(path, count)
    assert listed == (written[-count:] if count else [])
    assert place == path.stat().st_size - len("half a li")


def test_tail_of_little(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "half").write_text("half")
    (tmp_path / "blank").write_text("\n")
    found = [tail(tmp_path / name, 5) for name in ("absent", "empty", "half", "blank")]
    assert found == [([], 0), ([], 0), ([], 0), ([""], 1)]


def test_command(tmp_path: Path) -> None:
    run_folder(tmp_path / "run", state="done")
    for words in (["1"], ["run", "1"], [str(tmp_path / "run"), "1"]):
        done = CliRunner().invoke(app, ["logs", *words, "-n", "2", "--out", str(tmp_path)])
        assert done.stdout == '{"round":18}\n{"round":19}\n'
    assert CliRunner().invoke(app, ["logs", "--out", str(tmp_path)]).stdout == "hello\n"


def test_follows_until_the_run_ends(launcher: subprocess.Popen[str], tmp_path: Path) -> None:
    heard: list[str] = []
    log = tmp_path / "run" / "el" / "seed-1" / "nodes" / "000.jsonl"

    def say(line: str) -> None:
        heard.append(line)
        if line == "one":  # it was added after the beginning: it is followed
            with log.open("a") as file:
                file.write("half")
                file.flush()
                file.write(" and half\nlast\n")
            launcher.send_signal(signal.SIGINT)

    follower = Follower("0", 1, say)
    follower.show(look(tmp_path / "run"))
    assert heard == ['{"round":19}']
    with log.open("a") as file:
        file.write("one\n")
    began = time.monotonic()
    assert follower.follow(look(tmp_path / "run")).life == "ended"
    assert time.monotonic() - began < 30
    assert heard[1:] == ["one", "half and half", "last"]


class Switching:
    """A run of two jobs that goes from one to the other, a step whenever somebody looks at it."""

    def __init__(self, run: Path) -> None:
        self._run = run
        manifest = json.loads((run / "manifest.json").read_text())
        second = {**manifest["jobs"][0], "seed": 2, "folder": "el/seed-2"}
        changed = {"jobs": [*manifest["jobs"], second], "hosts": [{"host": "h1"}, {"host": "h2"}]}
        (run / "manifest.json").write_text(json.dumps(manifest | changed))
        self._live = LiveFile(RunFolder(run), SilentDisplay())
        self._live.plan([("EL", 1), ("EL", 2)], nodes=2, max_rounds=20)
        self._live.job_started("EL", 1, 2, 20)
        self._steps = iter([self.second_job, self.logs, lambda: None])

    def second_job(self) -> None:
        """It loads its data, and nobody of it has begun a log."""
        self._live.job_ended("EL", 1, "done", "")
        self._live.job_started("EL", 2, 2, 20)

    def logs(self) -> None:
        """Its nodes have begun."""
        for kind, name in (("nodes", "001.jsonl"), ("logs", "h1.log")):
            folder = self._run / "el" / "seed-2" / kind
            folder.mkdir(parents=True)
            (folder / name).write_text("second\n")

    def end(self) -> None:
        """Its report is being written: nobody says any more which job runs."""
        self._live.close()

    def look(self, folder: Path) -> Seen:
        next(self._steps, self.end)()
        return look(folder)


@pytest.mark.parametrize("whose", ["1", "h1", None])
def test_follows_from_job_to_job(
    whose: str | None, launcher: subprocess.Popen[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[str] = []

    def say(line: str) -> None:
        heard.append(line)
        if line == "second":
            launcher.send_signal(signal.SIGINT)

    run = tmp_path / "run"
    switching = Switching(run)
    monkeypatch.setattr(module, "look", switching.look)
    follower = Follower(whose, 1, say)
    follower.show(look(run))
    assert follower.follow(look(run)).life == "ended"
    last = "hello" if whose != "1" else '{"round":19}'
    assert heard[:3] == [last, f"==> {log_files_of_second(run, whose)} <==", "second"]


def log_files_of_second(run: Path, whose: str | None) -> Path:
    return run / "el" / "seed-2" / ("nodes/001.jsonl" if whose == "1" else "logs/h1.log")


def test_a_log_that_is_still_to_come(launcher: subprocess.Popen[str], tmp_path: Path) -> None:
    """Of a job that runs; who is not in it has none."""
    run = tmp_path / "run"
    Switching(run).second_job()
    job = run / "el" / "seed-2"
    assert log_files(look(run), "1") == [job / "nodes" / "001.jsonl"]
    assert log_files(look(run), "h2") == [job / "logs" / "h2.log"]
    for absent in ("2", "h3"):
        with pytest.raises(ConfigError, match="has no log"):
            log_files(look(run), absent)
    launcher.kill()
    launcher.wait()
    with pytest.raises(ConfigError, match="has no log"):
        log_files(look(run), "h2")


def test_following_outlives_a_job_that_never_had_the_log(
    launcher: subprocess.Popen[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    looks: list[Seen] = []

    def last_look(folder: Path) -> Seen:
        (run / "el" / "seed-2").mkdir(exist_ok=True)  # it failed before its nodes began
        switching.end()
        looks.append(look(folder))
        if len(looks) == 2:
            launcher.send_signal(signal.SIGINT)
        return looks[-1]

    switching = Switching(run)
    monkeypatch.setattr(module, "look", last_look)
    heard: list[str] = []
    assert Follower("1", 1, heard.append).follow(look(run)).life == "ended"
    with pytest.raises(ConfigError, match="has no log"):
        log_files(looks[0], "1")
