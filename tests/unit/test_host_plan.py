"""What validate shows of several hosts, and what hosts lack: all without connecting to any."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from decentral.config import load
from decentral.errors import ConfigError, PreflightError
from launch.cli import app
from launch.crossing import crossings
from launch.host_plan import check_hosts, host_tables, notes
from launch.hosts import Host, Hosts
from launch.placing import place_arm
from launch.preflight import AGENT_BYTES, REPORT_BYTES, Demand, check_facts, preflight

TINY = """
name = "tiny"
nodes = 8
data = { name = "digits" }
train = { lr = 0.1, batch = 8, local_steps = 1 }
run = { max_rounds = 20, test_after = 10 }

[[arm]]
name = "D-PSGD"
algorithm = "dpsgd"
topology = "ring"

[[arm]]
name = "DivShare"
algorithm = { name = "divshare", recipients = 3 }
fragments = { count = 4 }
"""
HOSTS = """
[[host]]
name = "a"
user = "ann"
address = "10.0.0.1"
port = 2222
bind = "10.1.0.1"
ports = "20000-20009"
cores = 8

[[host]]
name = "b"
cores = 8
"""


def made(*hosts: Host) -> Hosts:
    return Hosts(hosts=hosts, source="test", kind="ssh")


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


@pytest.fixture
def files(tiny: Path, tmp_path: Path) -> tuple[str, str]:
    hosts = tmp_path / "hosts.toml"
    hosts.write_text(HOSTS)
    return str(tiny), str(hosts)


def cli(*arguments: str, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(app, list(arguments), env=env)


class TestCrossing:
    A, B = Host(name="a", cores=8), Host(name="b", cores=8)

    def test_of_a_graph_edges_are_counted(self, tiny: Path) -> None:
        arm = load(tiny).arms[0]  # a ring of 8, cut in two places: 2 messages cross each way
        demand = Demand.of(arm, 1)
        found = crossings(demand, 1, place_arm(arm, 1, made(self.A, self.B)))
        assert [each.round_bytes for each in found.values()] == [2 * 4 * demand.d] * 2
        # the observer is on the first host, so the other's four nodes send it their snapshots
        assert [each.snapshot_bytes for each in found.values()] == [0, 4 * 4 * demand.d]
        assert found["b"].run_bytes(20, 3) == (20 * 2 + 3 * 4) * 4 * demand.d

    def test_recipients_at_random_are_expected_anywhere(self, tiny: Path) -> None:
        arm = load(tiny).arms[1]
        demand = Demand.of(arm, 1)
        hosts = made(Host(name="a", nodes=(0, 1)), Host(name="b"))
        found = crossings(demand, 1, place_arm(arm, 1, hosts))
        recipients = 3
        assert found["a"].round_bytes == pytest.approx(2 * recipients * 6 / 7 * 4 * demand.d)
        assert found["b"].round_bytes == pytest.approx(6 * recipients * 2 / 7 * 4 * demand.d)

    def test_nothing_leaves_the_only_host(self, tiny: Path) -> None:
        for arm in load(tiny).arms:
            placement = place_arm(arm, 1, made(self.A))
            (found,) = crossings(Demand.of(arm, 1), 1, placement).values()
            assert (found.round_bytes, found.snapshot_bytes) == (0, 0)
            assert placement.tcp_sockets("a") == 0


class TestTables:
    def test_placement_and_load(self, tiny: Path, files: tuple[str, str]) -> None:
        from launch.hosts import load_hosts

        experiment, hosts = load(tiny), load_hosts(Path(files[1]))
        (title, header, rows), (load_title, load_header, loads) = host_tables(experiment, hosts)
        assert (title, load_title) == ("placement of all arms", "load of the hosts")
        assert dict(zip(header, rows[0], strict=True)) == {
            **{"host": "a", "reached at": "ann@10.0.0.1 port 2222", "listens on": "10.1.0.1"},
            **{"ports": "20000-20009", "sockets": "6", "cores": "8", "nodes": "0-3"},
            **{"also": "observer, timekeeper", "processes per core": "0.75", "pinned to": "0-5"},
        }
        assert rows[1] == ["b", "b", "-", "any", "4", "8", "4-7", "-", "0.5", "0-3"]
        assert [row[:2] for row in loads] == [
            ["D-PSGD", "a"],
            ["D-PSGD", "b"],
            ["DivShare", "a"],
            ["DivShare", "b"],
        ]
        assert all(len(row) == len(load_header) for row in loads)

    def test_unknown_is_said(self, tiny: Path) -> None:
        hosts = made(Host(name="a"), Host(name="b"))
        experiment = load(tiny, ["run.clock=wall", "run.time_limit_s=60"])
        rows = host_tables(experiment, hosts)[0][2]
        assert [row[5] for row in rows] == ["unknown"] * 2
        assert [row[-2:] for row in rows] == [["unknown"] * 2] * 2
        told = "\n".join(notes(experiment, hosts))
        assert "cores of all hosts are unknown" in told
        assert "at most 120 s" in told
        assert "real time: unknown" in notes(load(tiny), hosts)[-1]
        known = "\n".join(notes(experiment, hosts, {"a": 4, "b": 4}))
        assert "unknown" not in known

    def test_arms_of_other_sizes_have_a_placement_of_their_own(self, tiny: Path) -> None:
        experiment = load(tiny, ["arm.DivShare.nodes=6"])
        titles = [title for title, _, _ in host_tables(experiment, made(Host(name="a"), Host(name="b")))]
        assert titles == ["placement of D-PSGD", "placement of DivShare", "load of the hosts"]


class TestCommand:
    @pytest.mark.parametrize("command", [("validate",), ("run", "--dry-run")])
    def test_shows_hosts_and_starts_nothing(
        self, command: tuple[str, ...], files: tuple[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: Any, **__: Any) -> None:
            pytest.fail("a process was started")

        monkeypatch.setattr("subprocess.Popen", refuse)
        monkeypatch.setattr("socket.socket", refuse)
        result = cli(*command, files[0], "--hosts", files[1])
        assert (result.exit_code, result.stderr) == (0, "")
        assert (
            "13 processes at most: 8 nodes, an observer, a timekeeper, 2 agents and this one" in result.stdout
        )
        assert re.search(r"^ b +b +- +any +4 +8 +4-7 ", result.stdout, re.MULTILINE)

    def test_slurm(self, files: tuple[str, str]) -> None:
        env = {"SLURM_JOB_NODELIST": "n[1-2]", "SLURM_JOB_CPUS_PER_NODE": "4(x2)"}
        result = cli("validate", files[0], "--slurm", env=env)
        assert (result.exit_code, result.stderr) == (0, "")
        assert re.search(r"^ n2 +n2 +- +any +4 +4 +4-7 ", result.stdout, re.MULTILINE)

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("validate", "--slurm", "--hosts", "HOSTS"), "given twice"),
            (
                ("validate", "--hosts", "HOSTS", "--executor", "inline"),
                "with --executor inline all nodes are",
            ),
            (("run", "--dry-run", "--predict", "--hosts", "HOSTS"), "the same on any hosts"),
            (("validate", "--hosts", "absent"), "absent.*No such file"),
        ],
    )
    def test_refusals(self, arguments: tuple[str, ...], words: str, files: tuple[str, str]) -> None:
        command, *rest = (files[1] if word == "HOSTS" else word for word in arguments)
        result = cli(command, files[0], *rest)
        assert (result.exit_code, result.stdout) == (2, "")
        assert re.search(words, " ".join(result.stderr.replace("│", " ").split()))

    def test_a_range_of_ports_too_short(self, files: tuple[str, str], tmp_path: Path) -> None:
        (tmp_path / "hosts.toml").write_text(HOSTS.replace("20000-20009", "20000-20004"))
        result = cli("validate", *files[:1], "--hosts", files[1])
        assert (result.exit_code, result.stdout) == (ConfigError.exit_code, "")
        assert result.stderr == (
            'decentral: host "a": ports = "20000-20004": are 5 ports, and 6 processes are placed there, each '
            'with one; write a longer range such as "20000-20011"\n'
        )

    def test_lists_must_fit_every_arm(self, tiny: Path) -> None:
        experiment = load(tiny, ["arm.DivShare.nodes=6"])
        with pytest.raises(ConfigError, match=r'^arm "DivShare": host "a": nodes = \[6, 7\]'):
            check_hosts(experiment, made(Host(name="a", nodes=(6, 7)), Host(name="b")))


class TestFacts:
    GOOD: dict[str, Any] = {  # noqa: RUF012
        **{"cores": 4, "memory_available": 64 << 30, "disk_free": 64 << 30, "nofile_hard": 4096},
        "versions": {"python": "3.11.2", "torch": "2.3.0", "numpy": "2.0"},
    }

    def problems(self, tiny: Path, overrides: Sequence[str] = (), **changed: Any) -> list[str]:
        facts = {
            "a": {**self.GOOD, "address": "10.0.0.1"},
            "b": {**self.GOOD, "address": "10.0.0.2", **changed},
        }
        hosts = made(Host(name="a"), Host(name="b", ports="20000-20099"))
        return check_facts(load(tiny, overrides), hosts, facts)

    def test_hosts_that_have_everything(self, tiny: Path) -> None:
        assert self.problems(tiny) == []
        assert self.problems(tiny, nofile_hard=-1) == []
        assert self.problems(tiny, ports_free=4, ports_taken=[20000]) == []
        assert self.problems(tiny, ports_free=None, ports_taken=[]) == []

    def test_a_host_gives_back_what_a_run_has_taken_before_the_next(self, tiny: Path) -> None:
        demand = Demand.of(load(tiny).arms[0], 1)
        for seeds in ("[1]", "[1,2,3]"):
            assert self.problems(tiny, [f"seeds={seeds}"], disk_free=demand.disk_bytes(4)) == []
            assert self.problems(tiny, [f"seeds={seeds}"], disk_free=demand.disk_bytes(4) - 1) != []

    def test_checkpoints_take_space(self, tiny: Path) -> None:
        free = Demand.of(load(tiny).arms[0], 1).disk_bytes(4)
        assert self.problems(tiny, ["checkpoint.every=5"], disk_free=free)
        with_them = Demand.of(load(tiny, ["checkpoint.every=5"]).arms[0], 1).disk_bytes(4)
        assert self.problems(tiny, ["checkpoint.every=5"], disk_free=with_them) == []

    def test_the_launchers_own_machine_writes_into_the_run_folder(self, tiny: Path) -> None:
        facts = {name: {**self.GOOD, "disk_free": 0} for name in "ab"}
        problems = check_facts(load(tiny), made(Host(name="a", local=True), Host(name="b")), facts)
        assert problems
        assert all(problem.startswith("host b: ") for problem in problems)

    def test_every_seed_counts(self, tmp_path: Path) -> None:
        """Regions, and with them how many nodes a host gets, are drawn anew for every seed."""
        path = tmp_path / "regions.toml"
        path.write_text(TINY.replace("nodes = 8", "nodes = 25") + '\n[network]\nname = "aws10"\n')
        hosts = made(Host(name="a", regions=("tokyo",)), Host(name="b"))
        on_a = {seed: len(place_arm(load(path).arms[0], seed, hosts).nodes_on("a")) for seed in range(1, 30)}
        few, many = min(on_a, key=on_a.__getitem__), max(on_a, key=on_a.__getitem__)
        assert on_a[few] < on_a[many]
        free = Demand.of(load(path).arms[0], few).memory_bytes(on_a[few])
        facts = {"a": {"memory_available": free}}
        for seeds, expected in (([few], 0), ([few, many], 2), ([many, few], 2)):
            assert len(check_facts(load(path, [f"seeds={seeds}"]), hosts, facts)) == expected

    @pytest.mark.parametrize(
        ("changed", "words"),
        [
            (
                {"memory_available": AGENT_BYTES},
                r'4 nodes of arm "D-PSGD" need about \d+ MiB of memory and 600',
            ),
            ({"disk_free": 4096}, "MiB of disk space and 0 MiB are free; free space, or set folder"),
            ({"nofile_hard": 80}, "8 nodes need 88 file descriptors per process and it allows 80"),
            (
                {"ports_free": 3, "ports_taken": [20000, 20001]},
                r"4 processes need a port each and only 3 of ports = 20000-20099 are free "
                r"\(taken: 20000, 20001, ...\); set a longer range",
            ),
            ({"address": "127.0.1.1"}, "127.0.1.1, which other hosts cannot reach; set bind"),
        ],
    )
    def test_what_is_lacking_is_named_with_the_host(
        self, changed: dict[str, Any], words: str, tiny: Path
    ) -> None:
        problems = self.problems(tiny, **changed)
        assert problems
        assert all(problem.startswith("host b: ") for problem in problems)
        assert re.search(words, problems[0])

    def test_a_range_of_ports_that_is_too_short_once_cores_are_known(self, tiny: Path) -> None:
        hosts = made(Host(name="a", ports="20000-20003", cores=1), Host(name="b", cores=64))
        check_hosts(load(tiny), hosts)
        facts = {name: {**self.GOOD, "cores": 1} for name in "ab"}
        (problem,) = check_facts(load(tiny), hosts, facts)
        assert problem.startswith("host a: 6 processes need a port each and ports = 20000-20003 are fewer")

    def test_versions_that_differ(self, tiny: Path) -> None:
        (problem,) = self.problems(tiny, versions={"python": "3.12.1", "torch": "2.4.0", "numpy": "2.0"})
        assert problem.startswith("torch is 2.3.0 on a, 2.4.0 on b: results may differ")

    def test_builds_of_one_version_are_left_to_what_they_compute(self, tiny: Path) -> None:
        for build in ("2.3.0+cpu", "2.3.0+cu126"):
            assert not self.problems(tiny, versions={"python": "3.12.1", "torch": build, "numpy": "2.0"})

    def test_one_machine_may_talk_to_itself(self, tiny: Path) -> None:
        facts = {name: {**self.GOOD, "address": "127.0.0.1"} for name in "ab"}
        assert check_facts(load(tiny), made(Host(name="a"), Host(name="b")), facts) == []

    def test_a_host_without_members_needs_nothing(self, tiny: Path) -> None:
        facts = {"a": {**self.GOOD, "cores": 16}, "b": {"memory_available": 0, "disk_free": 0, "cores": 1}}
        assert check_facts(load(tiny), made(Host(name="a"), Host(name="b", share=0)), facts) == []


class TestLauncher:
    """What the machine that the command is typed on must have."""

    def test_memory_is_needed_where_nodes_run(
        self, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("launch.preflight.memory_available", lambda: AGENT_BYTES)
        with pytest.raises(PreflightError, match=r"8 nodes need about .* 600 MiB are available"):
            preflight(load(tiny), tmp_path)
        preflight(load(tiny), tmp_path, elsewhere=True)

    def test_all_that_is_collected_needs_space(
        self, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def disk_usage(path: Path) -> Any:
            return SimpleNamespace(free=REPORT_BYTES)

        monkeypatch.setattr("launch.preflight.shutil.disk_usage", disk_usage)
        with pytest.raises(PreflightError, match="has 10 MiB free"):
            preflight(load(tiny), tmp_path, elsewhere=True)
