"""Looking at a run from outside: whose process it is, how far it is, and which one is meant."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from decentral.errors import ConfigError, RunFailed
from launch.cli import app
from launch.launcher import Launcher, stat_fields
from launch.live import LIVE, LiveFile
from launch.paths import RunFolder
from launch.runs import find, look
from launch.status import as_json, lines
from launch.stop import stop
from tests.fake_launcher import launcher, run_folder
from tests.harness import SilentDisplay

__all__ = ["launcher"]


class TestLauncher:
    def test_manifest_and_back(self) -> None:
        here = Launcher.this()
        assert Launcher.named_in(json.loads(json.dumps({"launcher": here.to_manifest()}))) == here
        assert here.alive()
        assert here.here
        assert not here.stopped()

    @pytest.mark.parametrize("said", [None, 3, {}, {"host": "h1"}, {"host": 1, "pid": "x"}])
    def test_manifests_that_do_not_say(self, said: Any) -> None:
        assert Launcher.named_in({"launcher": said}) is None

    def test_another_process_with_its_pid_is_not_it(self) -> None:
        here = Launcher.this()
        assert not replace(here, started=here.started - 1).alive()

    def test_another_machine_boot_or_container_is_not_it(self) -> None:
        here = Launcher.this()
        for other in (replace(here, host="h9"), replace(here, boot="x"), replace(here, namespace="pid:[1]")):
            assert not other.alive()
        assert not replace(here, host="h9").here
        assert not replace(here, namespace="pid:[1]").here
        assert replace(here, boot="x").here  # this machine before it was started anew: it is gone for sure

    def test_a_dead_one(self, launcher: subprocess.Popen[str], tmp_path: Path) -> None:
        named = look(tmp_path / "run").launcher
        assert named is not None
        assert named.pid == launcher.pid
        assert named.alive()
        launcher.kill()
        while (fields := stat_fields(launcher.pid)) is not None and fields[0] != "Z":
            pass
        assert not named.alive()  # not yet waited for, but ended

    def test_a_name_with_brackets_and_spaces(self) -> None:
        name = Path("/proc/self/comm")
        before = name.read_text().strip()
        name.write_text("a) Z (b")
        try:
            fields = stat_fields(os.getpid())
        finally:
            name.write_text(before)
        assert fields is not None
        assert fields[0] == "R"


class TestLiveFile:
    def live(self, folder: Path) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((folder / LIVE).read_text())
        return content

    def test_says_how_far_the_run_is(self, tmp_path: Path) -> None:
        now_s = 1000.0
        shown = LiveFile(RunFolder(tmp_path), SilentDisplay(), now=lambda: now_s)
        shown.plan([("EL", 1), ("EL", 2)], nodes=3, max_rounds=10)
        assert self.live(tmp_path)["job"] is None
        shown.job_started("EL", 1, 3, 10)
        shown.hosts({"h1": (0, 1), "h2": (2, 3, 4)})
        shown.progress(0, 5, 1.0)
        assert self.live(tmp_path)["job"]["rounds"] == [0, 0, 0]  # within the same second
        now_s += 1.0
        shown.heard("h1")
        shown.progress(1, 4, 1.0)
        job = self.live(tmp_path)["job"]
        assert (job["arm"], job["seed"], job["rounds"]) == ("EL", 1, [5, 4, 0])
        h1, h2 = job["hosts"]
        assert (h1["name"], h1["nodes"], h1["members"], h1["slowest"], h1["fastest"], h1["heard_s"]) == (
            *("h1", [0, 1], 2, 4, 5),
            1001.0,
        )
        assert (h2["nodes"], h2["members"], h2["heard_s"]) == ([2], 3, 1000.0)
        shown.stalled(2, "is stopped (SIGSTOP)", 2.0)
        (stall,) = self.live(tmp_path)["job"]["stalls"]
        assert stall == {
            **{"member": 2, "name": "node 2 on host h2"},
            **{"what": "is stopped (SIGSTOP)", "since_s": 999.0},
        }
        now_s += 9.0
        shown.stalled(2, None, 0.0)
        assert self.live(tmp_path)["job"]["stalls"] == []
        shown.stalled(3, "is stopped (SIGSTOP)", 1.0)
        shown.job_ended("EL", 1, "failed", "")
        assert [(s["name"], s["for_s"]) for s in shown.stalls] == [
            ("node 2 on host h2", 11.0),
            ("the observer on host h2", 1.0),
        ]
        assert self.live(tmp_path)["ended"] == 1
        shown.job_started("EL", 2, 3, 10)
        assert shown.stalls == []
        shown.close()
        assert list(tmp_path.iterdir()) == []

    def test_a_disk_that_refuses_it_is_noted_once_and_ends_nothing(self, tmp_path: Path) -> None:
        notes: list[str] = []

        class Noting(SilentDisplay):
            def note(self, text: str) -> None:
                notes.append(text)

        now_s = iter(range(0, 1000, 10))
        shown = LiveFile(RunFolder(tmp_path / "absent"), Noting(), now=lambda: float(next(now_s)))
        shown.plan([("EL", 1)], nodes=3, max_rounds=10)
        shown.job_started("EL", 1, 3, 10)
        assert len(notes) == 1
        assert "cannot write" in notes[0]
        (tmp_path / "absent").mkdir()  # there is space again
        shown.tick()
        assert self.live(tmp_path / "absent")["job"]["arm"] == "EL"
        shown.close()
        assert list((tmp_path / "absent").iterdir()) == []


class TestStatus:
    def test_ended(self, tmp_path: Path) -> None:
        stalls = [{"name": "node 3 on host h2", "what": "is stopped (SIGSTOP)", "for_s": 12.0}]
        entry = {"arm": "EL", "seed": 1, "folder": "el/seed-1", "state": "failed", "stalls": stalls}
        fields = {"state": "failed", "cause": "node 3 died", "exit_code": 4, "ended_utc": "noon"}
        seen = look(run_folder(tmp_path / "run", jobs=[entry], **fields))
        text = "\n".join(lines(seen))
        assert text.startswith("run: failed at noon with exit code 4: node 3 died")
        assert "EL seed 1: node 3 on host h2 is stopped (SIGSTOP) for 12.0 s" in text
        assert (as_json(seen)["life"], as_json(seen)["live"]) == ("ended", None)

    def test_running(self, launcher: subprocess.Popen[str], tmp_path: Path) -> None:
        shown = LiveFile(RunFolder(tmp_path / "run"), SilentDisplay(), now=lambda: 1000.0)
        shown.plan([("EL", 1)], nodes=3, max_rounds=10)
        shown.job_started("EL", 1, 3, 10)
        shown.hosts({"h1": (0, 1, 2), "h2": (3, 4)})
        shown.host("h1", "running", 3)
        shown.evaluated(0, 5, "acc", 0.5, 1.0)
        shown.stalled(1, "is stopped (SIGSTOP)", 2.0)
        seen = look(tmp_path / "run")
        text = "\n".join(lines(seen, now_s=1010.0))
        assert f"launcher pid {launcher.pid} on host " in text
        assert "EL seed 1 (1 of 1) for 0:00:10: round 0..5 of 10" in text
        assert "h1: running, 3 of 3 processes, 3 nodes, round 0..5, heard 10 s ago" in text
        assert "h2: starting, 2 processes, 0 nodes, heard 10 s ago" in text
        assert "node 1 on host h1 is stopped (SIGSTOP) since 12 s" in text
        assert "the launcher has said nothing for 10 s" in text
        assert as_json(seen)["live"]["job"]["rounds"] == [5, 0, 0]

    def test_running_without_lost_nodes(self, launcher: subprocess.Popen[str], tmp_path: Path) -> None:
        shown = LiveFile(RunFolder(tmp_path / "run"), SilentDisplay(), now=lambda: 1000.0)
        shown.plan([("EL", 1)], nodes=5, max_rounds=10)
        shown.job_started("EL", 1, 5, 10)
        shown.hosts({"h1": (0, 1, 2), "h2": (3, 4), "h3": (5, 6)})
        for node, round_ in enumerate((7, 2, 8, 4, 3)):
            shown.progress(node, round_, 1.0)
        shown.stalled(3, "is stopped (SIGSTOP)", 2.0)
        for node in (1, 3, 4):
            shown.lost(node)
        assert [stall["member"] for stall in shown.stalls] == [3], "it is over"
        text = "\n".join(lines(look(tmp_path / "run"), now_s=1000.0))
        assert "round 7..8 of 10" in text
        assert "h1: starting, 3 processes, 3 nodes, round 7..8, heard" in text
        assert "h2: starting, 2 processes, 2 nodes, heard" in text
        assert "lost     nodes 1, 3-4; the others go on" in text
        assert "stalled" not in text

    def test_a_stopped_launcher(self, launcher: subprocess.Popen[str], tmp_path: Path) -> None:
        launcher.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, launcher.pid, os.WSTOPPED | os.WNOWAIT)
        assert f"kill -CONT {launcher.pid} goes on" in "\n".join(lines(look(tmp_path / "run")))

    @pytest.mark.parametrize("resumed", [False, True])
    def test_a_stopped_launcher_of_other_hosts(
        self, resumed: bool, launcher: subprocess.Popen[str], tmp_path: Path
    ) -> None:
        path = tmp_path / "run" / "manifest.json"
        manifest = json.loads(path.read_text())
        here, two = [{"host": "localhost"}], [{"host": "h1", "remote": False}, {"host": "h2", "remote": True}]
        there = {"hosts": here, "resumed": [{"hosts": two}]} if resumed else {"hosts": two}
        path.write_text(json.dumps(manifest | there))
        launcher.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, launcher.pid, os.WSTOPPED | os.WNOWAIT)
        text = "\n".join(lines(look(tmp_path / "run")))
        assert "its other hosts give it up after 6 s" in text
        assert f"kill -CONT {launcher.pid} lets it end, and decentral run --resume run with" in text

    def test_a_killed_launcher(self, launcher: subprocess.Popen[str], tmp_path: Path) -> None:
        launcher.kill()
        launcher.wait()
        text = "\n".join(lines(look(tmp_path / "run")))
        assert f"its launcher (pid {launcher.pid}) is gone; decentral resume run goes on" in text

    def test_on_another_host(self, tmp_path: Path) -> None:
        elsewhere = replace(Launcher.this(), host="h9").to_manifest()
        folder = run_folder(tmp_path / "run", launcher=elsewhere)
        assert "no sign of life; host h9 can tell" in "\n".join(lines(look(folder)))
        shown = LiveFile(RunFolder(folder), SilentDisplay())
        shown.plan([("EL", 1)], nodes=3, max_rounds=10)
        assert "running on host h9" in "\n".join(lines(look(folder)))
        with pytest.raises(RunFailed, match="was started on host h9: run decentral stop run there"):
            stop(look(folder), now=False)

    def test_the_newest_that_lives_is_meant(self, launcher: subprocess.Popen[str], tmp_path: Path) -> None:
        for name in ("a-old", "z-new"):
            run_folder(tmp_path / name, state="done")
        assert find(None, tmp_path).name == "run"
        launcher.kill()
        launcher.wait()
        assert find(None, tmp_path).name == "z-new"
        assert find(Path("a-old"), tmp_path).name == "a-old"
        with pytest.raises(ConfigError, match="holds no run"):
            find(None, tmp_path / "z-new")
        with pytest.raises(ConfigError, match="is no run folder"):
            find(Path("b"), tmp_path)

    def test_json_of_the_command(self, tmp_path: Path) -> None:
        run_folder(tmp_path / "run", state="done", exit_code=0)
        done = CliRunner().invoke(app, ["status", "--json", "--out", str(tmp_path)])
        assert done.exit_code == 0
        assert json.loads(done.stdout)["state"] == "done"
