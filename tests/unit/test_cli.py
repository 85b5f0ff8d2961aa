"""The command line: what it prints, what it imports, and which exit code stands for what."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from decentral.config import SHIPPED, load
from decentral.errors import (
    ConfigError,
    DecentralError,
    Interrupted,
    PreflightError,
    RunFailed,
)
from launch import overview, parts
from launch.cli import app
from launch.commands.tables import print_table
from launch.compose import settled
from launch.rounds import most_rounds

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "matplotlib", "pandas", "zmq", "scipy", "sklearn")

TINY = """
name = "tiny"
description = "a tiny comparison"
nodes = 4
seeds = [1, 2]
topology = { name = "ring" }
data = { name = "digits" }
train = { lr = 0.1, batch = 8, local_steps = 1 }
run = { max_rounds = 5 }

[[arm]]
name = "D-PSGD"
algorithm = "dpsgd"

[[arm]]
name = "Mosaic"
algorithm = "mosaic"
topology = { name = "regular", degree = 2 }
fragments = { count = 4 }
"""


def cli(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


class TestUsage:
    def test_help_names_every_command(self) -> None:
        result = cli("--help")
        assert result.exit_code == 0
        for command in ("run", "validate", "list", "report", "download"):
            assert f"\n  {command} " in result.stdout

    @pytest.mark.parametrize(
        "arguments",
        [
            ("walk",),
            ("run", "--seed", "1"),
            ("run", "--seeds", "1,two"),
            ("run", "--seeds", ""),
            ("run", "--seeds", "-1"),
            ("run", "--executor", "threads"),
            ("run", "--predict"),
            ("run", "--dry-run", "--predict-rounds", "3"),
            ("run", "--dry-run", "--predict", "--predict-rounds", "1"),
            ("run", "a.toml", "b.toml"),
            ("report",),
            ("download",),
        ],
    )
    def test_usage_errors_exit_with_2(self, arguments: tuple[str, ...]) -> None:
        result = cli(*arguments)
        assert result.exit_code == 2
        assert result.stdout == ""
        assert "Traceback" not in result.stderr

    @pytest.mark.parametrize(
        "arguments", [["--help"], ["list"], ["validate"], ["run", "--dry-run"], ["run", "absent"]]
    )
    def test_nothing_heavy_is_imported_before_it_is_needed(self, arguments: list[str]) -> None:
        program = (
            "import atexit, sys\n"
            f"atexit.register(lambda: print('IMPORTED', *sorted({{*sys.modules}} & {{*{HEAVY}}})))\n"
            "from launch.cli import app\n"
            f"app({arguments})\n"
        )
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
        assert done.stdout.splitlines()[-1] == "IMPORTED", done.stderr

    def test_module_is_the_command(self) -> None:
        command = [sys.executable, "-m", "launch", "list"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("algorithms\n")


class TestList:
    def test_every_shipped_part_and_experiment_has_a_line(self) -> None:
        result = cli("list")
        assert result.exit_code == 0
        sections = {block.partition("\n")[0]: block for block in result.stdout.split("\n\n")}
        assert list(sections) == [
            "algorithms",
            "topologies",
            "networks",
            "tasks",
            "partitions",
            "experiments",
        ]
        for title, kind in overview.KINDS:
            assert [line.split()[0] for line in sections[title].splitlines()[1:]] == parts.available(kind)
        names = [line.split()[0] for line in sections["experiments"].splitlines()[1:]]
        assert names == sorted(path.stem for path in SHIPPED.glob("*.toml"))
        assert "default" in names

    def test_every_line_says_something(self) -> None:
        for section in overview.catalogue().values():
            assert [name for name, description in section.items() if len(description) < 10] == []

    def test_broken_experiment_file_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "broken.toml").write_text("name = ")
        monkeypatch.setattr(overview, "SHIPPED", tmp_path)
        with pytest.raises(ConfigError, match=r"broken\.toml"):
            overview.experiments()


class TestPlan:
    def test_traffic_is_that_of_the_topology_and_independent_of_fragments(self, tiny: Path) -> None:
        dpsgd, mosaic = (overview.arm_plan(arm, 1) for arm in load(tiny).arms)
        assert dpsgd.parameters == mosaic.parameters > 0
        assert (dpsgd.messages, mosaic.messages) == (
            2,
            8,
        )  # a ring's 2 neighbors; degree 2 for each of 4 fragments
        assert dpsgd.bytes == mosaic.bytes == 2 * 4 * dpsgd.parameters
        assert dpsgd.total_bytes == dpsgd.bytes * 4 * 5

    def test_irregular_graphs_give_the_mean_over_nodes(self, tiny: Path) -> None:
        arm = load(tiny, ['arm.D-PSGD.topology={name="star"}']).arms[0]
        assert overview.arm_plan(arm, 1).messages == 2 * (4 - 1) / 4

    @pytest.mark.parametrize(
        ("count", "text"),
        [
            (0, "0 B"),
            (999, "999 B"),
            (999.7, "1 kB"),
            (98976, "99 kB"),
            (2.5e9, "2.5 GB"),
            (3.21e15, "3210 TB"),
        ],
    )
    def test_size(self, count: float, text: str) -> None:
        assert overview.size(count) == text

    @pytest.mark.parametrize("command", [("validate",), ("run", "--dry-run")])
    def test_shows_every_arm_and_starts_nothing(
        self, command: tuple[str, ...], tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        result = cli(*command, str(tiny), "--seeds", "1,2,3", "--set", "nodes=6")
        assert (result.exit_code, result.stderr) == (0, "")
        lines = result.stdout.splitlines()
        assert lines[0] == "tiny: a tiny comparison"
        d = overview.arm_plan(load(tiny).arms[0], 1).parameters
        header, dpsgd = (
            re.split(r" {2,}", line.strip()) for line in lines if line.startswith((" arm", " D-PSGD"))
        )
        assert dict(zip(header[:9], dpsgd[:9], strict=True)) == {
            **{"arm": "D-PSGD", "algorithm": "dpsgd", "topology": "ring", "n": "6"},
            **{"ends after": "5 rounds", "compute": "1 s", "K": "1", "d": str(d), "messages": "2"},
        }
        assert lines[-1] == (
            "6 runs (2 arms, seeds 1, 2, 3), one after the other; "
            "10 processes at most: 6 nodes, an observer, a timekeeper, an agent and this one"
        )
        assert os.listdir(tmp_path) == ["tiny.toml"]

    def test_inline_needs_one_process(self, tiny: Path) -> None:
        result = cli("validate", str(tiny), "--executor", "inline")
        assert (
            result.stdout.splitlines()[-1]
            == "4 runs (2 arms, seeds 1, 2), one after the other, in this process"
        )

    @pytest.mark.parametrize(
        ("overrides", "text"),
        [
            (["compute.time_per_round=0.0125"], "0.0125 s"),
            (["compute.slow_nodes=1", "compute.slow_factor=2.5"], "1 to 2.5 s"),
            (["compute.time_per_round=measured"], "measured"),
            (["run.clock=wall"], "real"),
        ],
    )
    def test_compute_time_of_a_round(self, overrides: list[str], text: str, tiny: Path) -> None:
        rows = overview.plan_rows(load(tiny, overrides))
        assert [row[overview.PLAN_HEADER.index("compute")] for row in rows] == [text, text]

    def test_a_single_run_is_told_in_the_singular(self, tiny: Path) -> None:
        experiment = load(tiny, (), (7,))
        single = experiment.model_copy(update={"arms": experiment.arms[:1]})
        assert overview.processes(single, "inline") == "1 run (1 arm, seed 7), in this process"

    @pytest.mark.parametrize("command", [("validate",), ("run", "--dry-run"), ("run",)])
    def test_inline_nodes_have_no_real_time(self, command: tuple[str, ...], tiny: Path) -> None:
        result = cli(*command, str(tiny), "--set", "run.clock=wall", "--executor", "inline")
        assert (result.exit_code, result.stdout) == (ConfigError.exit_code, "")
        assert 'run.clock = "wall": inline nodes take turns' in result.stderr
        assert "--executor processes" in result.stderr

    @pytest.mark.parametrize("name", sorted(path.stem for path in SHIPPED.glob("*.toml")))
    def test_shipped_experiments_are_possible(self, name: str) -> None:
        experiment = load(Path(name))
        assert len(overview.plan_rows(experiment)) == len(experiment.arms)

    @pytest.mark.parametrize("name", ["default", "stragglers_cifar10"])
    def test_time_limits_of_whole_compute_times_end_after_so_many_rounds(self, name: str) -> None:
        experiment = settled(load(Path(name)))
        rounds = {"default": 70, "stragglers_cifar10": 100}[name]
        assert {most_rounds(arm, experiment.seeds[0]) for arm in experiment.arms} == {rounds}

    def test_shipped_experiments_on_a_star_state_the_overhead(self) -> None:
        stars = [
            arm
            for path in SHIPPED.glob("*.toml")
            for arm in load(Path(path.stem)).arms
            if arm.network.name == "star"
        ]
        assert stars
        assert {arm.network.settings.get("overhead_bytes") for arm in stars} == {0}

    def test_all_problems_are_told_at_once_without_traceback(self, tiny: Path) -> None:
        result = cli("validate", str(tiny), "--set", "topology.degre=3", "--set", "train.lr=-1")
        assert result.exit_code == ConfigError.exit_code
        assert result.stdout == ""
        assert "train.lr = -1" in result.stderr
        assert "Traceback" not in result.stderr


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., Path]], list[Any]]:
    """Puts a function in the place of ``run_experiment``; returns the list of its calls' arguments."""

    def install(run_experiment: Callable[..., Path]) -> list[Any]:
        calls: list[Any] = []

        def noting(*arguments: Any) -> Path:
            calls.append(arguments)
            return run_experiment(*arguments)

        module = ModuleType("launch.session")
        vars(module).update(RunOptions=SimpleNamespace, run_experiment=noting)
        monkeypatch.setitem(sys.modules, "launch.session", module)
        monkeypatch.setattr(
            "launch.commands.tables.show_comparison", lambda folder: print(f"comparison of {folder}")
        )
        return calls

    return install


def raising(error: BaseException) -> Callable[..., Path]:
    def run_experiment(*_: Any) -> Path:
        raise error

    return run_experiment


class TestPredict:
    def test_two_tables_and_how_long_it_took(self, tiny: Path, tmp_path: Path) -> None:
        out = tmp_path / "runs"
        result = cli("run", str(tiny), "--dry-run", "--predict", "--out", str(out))
        assert result.exit_code == 0, result.stderr
        lines = result.stdout.splitlines()
        assert lines[0] == "tiny: a tiny comparison"
        assert [line.split()[:2] for line in lines if line.startswith(" D-PSGD")] == [["D-PSGD", "1"]] * 2
        assert len([line for line in lines if line.startswith(" Mosaic")]) == 2
        assert re.fullmatch(r"predicted in \d+\.\d s", lines[-1])
        assert "linearly" not in result.stdout
        assert not out.exists()

    def test_seeds_and_rounds(self, tiny: Path) -> None:
        asked = ("--seeds", "4,5", "--predict-rounds", "2", "--set", "arm.Mosaic.run.max_rounds=50")
        result = cli("run", str(tiny), "--dry-run", "--predict", *asked)
        assert result.exit_code == 0, result.stderr
        rows = [line.split() for line in result.stdout.splitlines() if line.startswith(" Mosaic")]
        assert [row[:2] for row in rows] == [["Mosaic", "4"], ["Mosaic", "5"]] * 2
        assert rows[0][-3:] == ["the", "first", "2"]
        assert "linearly" in result.stdout

    def test_needs_no_data_set(self, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("DECENTRAL_DATA", raising=False)
        absent = 'data={name = "cifar10", folder = "/absent"}'
        assert cli("run", str(tiny), "--dry-run", "--set", absent).exit_code != 0
        result = cli("run", str(tiny), "--dry-run", "--predict", "--predict-rounds", "2", "--set", absent)
        assert result.exit_code == 0, result.stderr

    def test_what_only_training_can_tell_is_refused(self, tiny: Path) -> None:
        result = cli("run", str(tiny), "--dry-run", "--predict", "--set", 'compute.time_per_round="measured"')
        assert (result.exit_code, result.stdout) == (ConfigError.exit_code, "")
        assert "nothing is trained" in result.stderr

    def test_says_what_is_missing(self) -> None:
        assert "add --dry-run" in cli("run", "--predict").stderr
        assert "add --predict" in cli("run", "--dry-run", "--predict-rounds", "3").stderr


class TestRun:
    def test_passes_everything_on_and_shows_the_comparison(
        self, tiny: Path, tmp_path: Path, session: Callable[[Callable[..., Path]], list[Any]]
    ) -> None:
        calls = session(lambda *_: tmp_path / "the run")
        arguments = ("--seeds", "7", "--set", "nodes=8", "--out", str(tmp_path), "--executor", "inline")
        result = cli("run", str(tiny), *arguments)
        assert (result.exit_code, result.stdout) == (0, f"comparison of {tmp_path / 'the run'}\n")
        ((experiment, options, _),) = calls
        assert (experiment.seeds, {arm.nodes for arm in experiment.arms}) == ((7,), {8})
        assert (options.out, options.executor) == (tmp_path, "inline")
        assert options.command[0] == "decentral"

    def test_default_experiment_processes_and_folder(
        self, session: Callable[[Callable[..., Path]], list[Any]], tmp_path: Path
    ) -> None:
        calls = session(lambda *_: tmp_path)
        assert cli("run").exit_code == 0
        ((experiment, options, _),) = calls
        assert experiment.name == load(Path("default")).name
        assert (options.out, options.executor) == (ROOT / "results" / "runs", "processes")

    @pytest.mark.parametrize("kind", [ConfigError, PreflightError, RunFailed, Interrupted])
    def test_failures_are_one_message_and_their_exit_code(
        self, kind: type[DecentralError], tiny: Path, session: Callable[[Callable[..., Path]], list[Any]]
    ) -> None:
        session(raising(kind("node 3 died of SIGKILL")))
        result = cli("run", str(tiny))
        assert (result.exit_code, result.stdout) == (kind.exit_code, "")
        assert result.stderr == "decentral: node 3 died of SIGKILL\n"

    def test_what_was_measured_before_a_failure_is_shown(
        self, tiny: Path, tmp_path: Path, session: Callable[[Callable[..., Path]], list[Any]]
    ) -> None:
        error = RunFailed("node 3 died")
        error.run_folder = tmp_path  # type: ignore[attr-defined]
        session(raising(error))
        result = cli("run", str(tiny))
        assert (result.exit_code, result.stdout) == (4, f"comparison of {tmp_path}\n")

    def test_strict_is_for_paced_links(
        self, tiny: Path, tmp_path: Path, session: Callable[[Callable[..., Path]], list[Any]]
    ) -> None:
        calls = session(lambda *_: tmp_path)
        result = cli("run", str(tiny), "--strict")
        assert (result.exit_code, result.stdout, calls) == (2, "", [])
        assert "--strict" in result.stderr
        assert "run.clock=wall" in result.stderr
        assert cli("run", str(tiny), "--strict", "--set", "arm.Mosaic.run.clock=wall").exit_code == 0
        assert [options.strict for _, options, _ in calls] == [True]

    def test_data_is_sent_to_hosts_alone(
        self, tiny: Path, tmp_path: Path, session: Callable[[Callable[..., Path]], list[Any]]
    ) -> None:
        calls = session(lambda *_: tmp_path)
        result = cli("run", str(tiny), "--send-data")
        assert (result.exit_code, result.stdout, calls) == (2, "", [])
        assert "--send-data" in result.stderr
        assert "add --hosts FILE" in result.stderr
        hosts = tmp_path / "hosts"
        hosts.write_text("gpu1\ngpu2\n")
        assert cli("run", str(tiny), "--hosts", str(hosts)).exit_code == 0
        assert cli("run", str(tiny), "--hosts", str(hosts), "--send-data").exit_code == 0
        assert [options.send_data for _, options, _ in calls] == [False, True]

    def test_interruption(self, tiny: Path, session: Callable[[Callable[..., Path]], list[Any]]) -> None:
        session(raising(KeyboardInterrupt()))
        result = cli("run", str(tiny))
        assert (result.exit_code, result.stderr) == (5, "decentral: interrupted\n")

    def test_bugs_keep_their_traceback(
        self, tiny: Path, session: Callable[[Callable[..., Path]], list[Any]]
    ) -> None:
        session(raising(ZeroDivisionError("a bug")))
        result = cli("run", str(tiny))
        assert result.exit_code == 1
        assert isinstance(result.exception, ZeroDivisionError)


@pytest.mark.parametrize(("columns", "turned"), [(100, False), (40, True), (10, True)])
def test_tables_are_never_squeezed(
    columns: int, turned: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": str(columns)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)
    print_table(
        ["arm", "a long heading", "another long heading"], [["Mosaic [K]", "1.25", "2"], ["EL", "3", "4"]]
    )
    text = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out)
    lines = [line.split("  ") for line in text.splitlines() if line.strip()]
    cells = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    rows = [row for row in cells if not row[0].startswith("─")]
    expected = [
        ["arm", "a long heading", "another long heading"],
        ["Mosaic [K]", "1.25", "2"],
        ["EL", "3", "4"],
    ]
    assert rows == ([list(row) for row in zip(*expected, strict=True)] if turned else expected)


class TestReport:
    def test_no_run_folder(self, tmp_path: Path) -> None:
        result = cli("report", str(tmp_path))
        assert result.exit_code == ConfigError.exit_code
        assert str(tmp_path) in result.stderr
        assert "Traceback" not in result.stderr


class TestDownload:
    def test_tasks_without_data_to_fetch_say_so(self) -> None:
        result = cli("download", "digits")
        assert (result.exit_code, result.stdout) == (ConfigError.exit_code, "")
        assert "nothing to download" in result.stderr

    def test_unknown_task(self) -> None:
        result = cli("download", "cifar11")
        assert result.exit_code == ConfigError.exit_code
        assert "cifar10" in result.stderr

    def test_fetches(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(parts.resolve("task", "movielens"), "fetch", lambda self: tmp_path / self.version)
        for arguments, version in (((), "latest-small"), (("--set", "version=100k"), "100k")):
            result = cli("download", "movielens", *arguments)
            assert (result.exit_code, result.stdout) == (0, f"movielens: {tmp_path / version}\n")

    def test_unknown_setting(self) -> None:
        result = cli("download", "movielens", "--set", "versoin=100k")
        assert result.exit_code == ConfigError.exit_code
        assert "version" in result.stderr
