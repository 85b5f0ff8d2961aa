"""launch/run_cluster.sh, tests/run.sh and .ci/run in a copy of the checkout, with stubs of Python and pip.

The scripts, bash and every tool they call are real; the stubs stand for what takes minutes and a network.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = ("setup.cfg", "pyproject.toml", "constraints.txt", "launch/bootstrap.sh", "launch/run_cluster.sh")
SCRIPTS = ("launch/bootstrap.sh", "launch/run_cluster.sh", "tests/run.sh", ".ci/run")
TOOLS = (
    *("bash", "env", "dirname", "readlink", "sha256sum", "df", "awk", "flock", "id", "ls", "find", "mkdir"),
    *("touch", "mv", "rm", "cp", "cat", "chmod", "tail", "grep", "printf"),
)

PYTHON = r"""#!/usr/bin/env bash
set -eu
note() { printf '%s\n' "$*" >>"$NOTES"; }
case "$*" in
    --version) echo "Python @VERSION@" ;;
    "-I -c import ensurepip, venv") exit @NO_VENV@ ;;
    "-I -m venv -- "*)
        note venv
        mkdir -p "$5/bin"
        cp "$0" "$5/bin/python"
        for tool in decentral ruff mypy lint-imports; do
            cp "$(dirname "$0")/tool" "$5/bin/$tool"
        done
        ;;
    "-I -m pip install "*)
        note "pip ${*: -1}"
        if [[ ${PIP_BLOCKS:-} ]]; then echo begun >"$PIP_BLOCKS.begun"; cat "$PIP_BLOCKS.go"; fi
        if [[ ${PIP_SAYS:-} ]]; then echo "$PIP_SAYS"; exit 1; fi
        ;;
    "-m pytest"*) echo "pytest ${*:3}"; exit "${PYTEST_EXIT:-0}" ;;
    *) echo "unexpected: $*" >&2; exit 99 ;;
esac
"""

TOOL = r"""#!/usr/bin/env bash
name=${0##*/}
echo "$name in $PWD, safe path ${PYTHONSAFEPATH:-}:$(printf ' <%s>' "$@")"
[[ ${FAILS:-} != "$name" ]]
"""


@dataclass(frozen=True)
class Checkout:
    """A copy of the scripts and a PATH with nothing but the tools they need and stubs of Python."""

    root: Path
    bin: Path
    notes: Path

    def python(self, name: str, version: str, *, venv: bool = True) -> Path:
        """Put a stub of ``version`` into PATH as ``name``."""
        path = self.bin / name
        path.write_text(PYTHON.replace("@VERSION@", version).replace("@NO_VENV@", "0" if venv else "1"))
        path.chmod(0o755)
        return path

    def environment(self, extra: Mapping[str, str]) -> dict[str, str]:
        kept = {
            name: os.environ[name]
            for name in ("TMPDIR", "HOME", "DECENTRAL_TEST_SESSION")
            if name in os.environ
        }
        return {**kept, "PATH": str(self.bin), "NOTES": str(self.notes), **extra}

    def run(
        self, script: str, *arguments: str, cwd: Path | None = None, **extra: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a script to its end."""
        return subprocess.run(
            [self.root / script, *arguments],
            cwd=cwd or self.root.parent,
            env=self.environment(extra),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def noted(self) -> list[str]:
        """What the stubs were asked to do, since the last call."""
        notes = self.notes.read_text().splitlines() if self.notes.exists() else []
        self.notes.unlink(missing_ok=True)
        return notes


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    made = Checkout(tmp_path / "a checkout", tmp_path / "bin", tmp_path / "notes")
    made.bin.mkdir()
    for name in TOOLS:
        real = shutil.which(name)
        assert real, f"{name} is missing on this machine"
        (made.bin / name).symlink_to(real)
    (made.bin / "tool").write_text(TOOL)
    (made.bin / "tool").chmod(0o755)
    for name in {*FILES, *SCRIPTS}:
        (made.root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, made.root / name)
    return made


@pytest.mark.parametrize("script", SCRIPTS)
def test_bash_accepts_it(script: str) -> None:
    done = subprocess.run(["bash", "-n", ROOT / script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert os.access(ROOT / script, os.X_OK) == (script != "launch/bootstrap.sh")


class TestPython:
    def test_too_old(self, checkout: Checkout) -> None:
        found = checkout.python("python3", "3.9.2")
        done = checkout.run("launch/run_cluster.sh")
        assert done.returncode == 3
        assert done.stderr == (
            "run_cluster.sh: decentral needs Python 3.11 or newer; "
            f"found 3.9.2 at {found}; install it or set PYTHON=...\n"
        )
        assert not (checkout.root / ".venv").exists()

    def test_none(self, checkout: Checkout) -> None:
        done = checkout.run("launch/run_cluster.sh")
        assert done.returncode == 3
        assert "found none in PATH" in done.stderr

    def test_without_venv(self, checkout: Checkout) -> None:
        checkout.python("python3", "3.12.4", venv=False)
        done = checkout.run("launch/run_cluster.sh")
        assert done.returncode == 3
        assert "has no venv with pip" in done.stderr
        assert "apt install python3.12-venv" in done.stderr

    def test_the_one_named_by_the_user_is_the_only_candidate(self, checkout: Checkout) -> None:
        checkout.python("python3.13", "3.13.0")
        done = checkout.run("launch/run_cluster.sh", PYTHON=str(checkout.python("old", "3.10.14")))
        assert done.returncode == 3
        assert "found 3.10.14" in done.stderr
        done = checkout.run("launch/run_cluster.sh", PYTHON=str(checkout.root / "absent"))
        assert done.returncode == 3
        assert "is no Python that runs" in done.stderr
        assert checkout.noted() == []

    def test_a_usable_one_is_found_behind_unusable_ones(self, checkout: Checkout) -> None:
        checkout.python("python3.13", "3.13.0", venv=False)
        checkout.python("python3.11", "3.11.9")
        checkout.python("python3", "3.9.2")
        done = checkout.run("launch/run_cluster.sh")
        assert done.returncode == 0
        assert "with Python 3.11.9" in done.stderr


class TestSetUp:
    def test_first_use_from_another_directory_then_no_set_up(
        self, checkout: Checkout, tmp_path: Path
    ) -> None:
        checkout.python("python3.11", "3.11.9")
        elsewhere = tmp_path / "else where"
        elsewhere.mkdir()
        arguments = ("my file.toml", "--set", 'topology = { name = "ring" }', "--seeds", "1,2")
        expected = (
            f"decentral in {elsewhere}, safe path 1: <run> <my file.toml> <--set> "
            '<topology = { name = "ring" }> <--seeds> <1,2>\n'
        )
        first = checkout.run("launch/run_cluster.sh", *arguments, cwd=elsewhere)
        assert (first.returncode, first.stdout) == (0, expected)
        assert [line.split()[1] for line in first.stderr.splitlines()] == ["making", "installing", "ready"]
        assert checkout.noted() == ["venv", "pip ."]
        second = checkout.run("launch/run_cluster.sh", *arguments, cwd=elsewhere)
        assert (second.returncode, second.stdout, second.stderr) == (0, expected, "")
        assert checkout.noted() == []

    def test_without_arguments_and_through_a_link(self, checkout: Checkout, tmp_path: Path) -> None:
        checkout.python("python3", "3.11.9")
        link = tmp_path / "link"
        link.symlink_to(checkout.root / "launch" / "run_cluster.sh")
        done = subprocess.run(
            [link], env=checkout.environment({}), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0
        assert done.stdout.endswith(": <run>\n")
        assert (checkout.root / ".venv").is_dir()

    def test_exit_code_is_that_of_the_run(self, checkout: Checkout) -> None:
        checkout.python("python3", "3.11.9")
        assert checkout.run("launch/run_cluster.sh", FAILS="decentral").returncode == 1

    @pytest.mark.parametrize("file", ["setup.cfg", "pyproject.toml", "constraints.txt"])
    def test_new_requirements_are_installed_into_the_same_environment(
        self, checkout: Checkout, file: str
    ) -> None:
        checkout.python("python3", "3.11.9")
        assert checkout.run("launch/run_cluster.sh").returncode == 0
        checkout.noted()
        with (checkout.root / file).open("a") as opened:
            opened.write("# changed\n")
        assert checkout.run("launch/run_cluster.sh").returncode == 0
        assert checkout.noted() == ["pip ."]

    def test_another_python_makes_it_anew(self, checkout: Checkout) -> None:
        checkout.python("python3", "3.11.9")
        assert checkout.run("launch/run_cluster.sh").returncode == 0
        checkout.noted()
        newer = checkout.python("newer", "3.12.4")
        assert checkout.run("launch/run_cluster.sh", PYTHON=str(newer)).returncode == 0
        assert checkout.noted() == ["venv", "pip ."]

    def test_a_moved_checkout_makes_it_anew(self, checkout: Checkout, tmp_path: Path) -> None:
        checkout.python("python3", "3.11.9")
        assert checkout.run("launch/run_cluster.sh").returncode == 0
        checkout.noted()
        moved = Checkout(checkout.root.rename(tmp_path / "moved"), checkout.bin, checkout.notes)
        assert moved.run("launch/run_cluster.sh").returncode == 0
        assert checkout.noted() == ["venv", "pip ."]

    def test_an_environment_of_the_users_is_left_alone(self, checkout: Checkout) -> None:
        checkout.python("python3", "3.11.9")
        (checkout.root / ".venv").mkdir()
        (checkout.root / ".venv" / "pyvenv.cfg").touch()
        done = checkout.run("launch/run_cluster.sh")
        assert done.returncode == 3
        assert "was not made by this script" in done.stderr
        assert (checkout.root / ".venv" / "pyvenv.cfg").exists()
        assert checkout.noted() == []

    def test_too_little_space(self, checkout: Checkout) -> None:
        checkout.python("python3", "3.11.9")
        (checkout.bin / "df").unlink()
        (checkout.bin / "df").write_text(
            "#!/usr/bin/env bash\necho header\necho /dev/x 9000000 8000000 1048576 90% /\n"
        )
        (checkout.bin / "df").chmod(0o755)
        done = checkout.run("launch/run_cluster.sh")
        assert done.returncode == 3
        assert "needs about 3 GB" in done.stderr
        assert "1024 MB are free" in done.stderr
        assert checkout.noted() == []

    def test_full_disk_is_named(self, checkout: Checkout) -> None:
        checkout.python("python3", "3.11.9")
        says = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device"
        done = checkout.run("launch/run_cluster.sh", PIP_SAYS=says)
        assert done.returncode == 3
        assert says in done.stderr
        assert "the disk is full" in done.stderr.splitlines()[-1]

    def test_pips_failure_is_shown_and_tried_again_next_time(self, checkout: Checkout) -> None:
        checkout.python("python3", "3.11.9")
        done = checkout.run(
            "launch/run_cluster.sh", PIP_SAYS="ERROR: No matching distribution found for torch"
        )
        assert done.returncode == 3
        assert "No matching distribution" in done.stderr
        assert "check the network" in done.stderr.splitlines()[-1]
        assert checkout.run("launch/run_cluster.sh").returncode == 0
        assert checkout.noted() == ["venv", "pip ."] * 2


class TestConcurrency:
    @pytest.fixture
    def blocked(self, checkout: Checkout, tmp_path: Path) -> Callable[[], subprocess.Popen[str]]:
        """Starts run_cluster.sh and returns once its pip has begun; pip goes on when ``go`` is opened."""
        checkout.python("python3", "3.11.9")
        for name in ("pip.begun", "pip.go"):
            os.mkfifo(tmp_path / name)

        def start() -> subprocess.Popen[str]:
            process = subprocess.Popen(
                [checkout.root / "launch" / "run_cluster.sh"],
                env=checkout.environment({"PIP_BLOCKS": str(tmp_path / "pip")}),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            (tmp_path / "pip.begun").read_text()
            return process

        return start

    def test_two_at_once_install_once(
        self, checkout: Checkout, blocked: Callable[[], subprocess.Popen[str]], tmp_path: Path
    ) -> None:
        with (
            blocked() as first,
            subprocess.Popen(
                [checkout.root / "launch" / "run_cluster.sh"],
                env=checkout.environment({}),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            ) as second,
        ):
            assert second.stderr is not None
            assert "waiting for another set-up" in second.stderr.readline()
            (tmp_path / "pip.go").write_text("")
            outputs = [process.communicate(timeout=60)[0] for process in (first, second)]
        assert [first.returncode, second.returncode] == [0, 0]
        assert all(output.endswith(": <run>\n") for output in outputs)
        assert checkout.noted() == ["venv", "pip ."]

    def test_killed_half_way_is_made_anew(
        self, checkout: Checkout, blocked: Callable[[], subprocess.Popen[str]]
    ) -> None:
        with blocked() as process:
            os.killpg(process.pid, signal.SIGKILL)
        (checkout.root / ".venv" / "half").touch()
        assert checkout.noted() == ["venv", "pip ."]
        assert checkout.run("launch/run_cluster.sh").returncode == 0
        assert checkout.noted() == ["venv", "pip ."]
        assert not (checkout.root / ".venv" / "half").exists()


class TestChecks:
    @pytest.fixture(autouse=True)
    def _python(self, checkout: Checkout) -> None:
        checkout.python("python3", "3.11.9")

    def test_everything_runs_and_pytest_has_the_last_word(self, checkout: Checkout) -> None:
        done = checkout.run("tests/run.sh", "--fast", "-k", "a name")
        assert done.returncode == 0
        tools = [line.split()[0] for line in done.stdout.splitlines() if not line.startswith("==")]
        assert tools == ["ruff", "ruff", "mypy", "lint-imports", "pytest"]
        assert done.stdout.splitlines()[-1] == "pytest -m not slow -k a name"
        assert checkout.noted() == ["venv", "pip .[dev]"]

    def test_dev_tools_are_added_to_what_a_run_made_and_serve_runs(self, checkout: Checkout) -> None:
        for script, expected in (
            ("launch/run_cluster.sh", ["venv", "pip ."]),
            ("tests/run.sh", ["pip .[dev]"]),
            ("launch/run_cluster.sh", []),
            ("tests/run.sh", []),
        ):
            assert checkout.run(script).returncode == 0
            assert checkout.noted() == expected

    @pytest.mark.parametrize("tool", ["ruff", "mypy", "lint-imports"])
    def test_a_failed_check_fails_the_whole_but_not_the_rest(self, checkout: Checkout, tool: str) -> None:
        done = checkout.run("tests/run.sh", FAILS=tool)
        assert done.returncode == 1
        assert f"== failed: {tool}" in done.stdout
        assert done.stdout.splitlines()[-1].startswith("pytest")

    def test_failed_tests_fail_the_whole(self, checkout: Checkout) -> None:
        assert checkout.run("tests/run.sh", PYTEST_EXIT="1").returncode == 1

    @pytest.mark.parametrize(
        ("extra", "expected"),
        [({}, "{beside}/shared/data"), ({"DECENTRAL_DATA": "/chosen"}, "/chosen")],
        ids=["beside the checkout", "chosen by the user"],
    )
    def test_ci_names_the_data_beside_the_checkout(
        self, checkout: Checkout, extra: dict[str, str], expected: str
    ) -> None:
        beside = checkout.root.parent
        (beside / "shared" / "data").mkdir(parents=True)
        (checkout.root / "tests" / "run.sh").write_text('#!/usr/bin/env bash\necho "$DECENTRAL_DATA: $*"\n')
        done = checkout.run(".ci/run", "--fast", **extra)
        assert done.stdout == f"{expected.format(beside=beside)}: --fast\n"
