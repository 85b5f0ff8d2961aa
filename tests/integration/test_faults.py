"""Whatever a node does, the run ends at once, says the first cause, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from launch.executors.base import Interruption, Job, Outcome
from launch.executors.local import LocalExecutor
from launch.paths import JobFolder
from tests.harness import SilentDisplay, arm, events

LONG = {"max_rounds": 100_000, "test_after": 100_000}
ROOT = Path(__file__).parents[2]


def faulty(how: str, **tables: Any) -> Any:
    """Eight nodes on the quadratic; node 3 fails in round 5."""
    algorithm = {"name": "tests.integration.faulty:Faulty", "settings": {"how": how}}
    return arm(**{"algorithm": algorithm, "fragments": {"count": 1}, "run": LONG, **tables})


def outcome_of(settings: Any, folder: Path, display: SilentDisplay | None = None) -> Outcome:
    """How ``settings`` end on processes; the agent is gone afterwards."""
    executor = LocalExecutor()
    try:
        with Interruption().installed() as interruption:
            return executor.run(Job(settings, 1, JobFolder(folder)), display or SilentDisplay(), interruption)
    finally:
        executor.close()


@pytest.mark.parametrize(
    ("how", "cause"),
    [
        ("raise", "failed after round 4 of 100000: ValueError: the learning rate is purple\n"),
        ("exit", "exited early with code 0 after round 4 of"),
        ("return", "failed after round 4 of 100000: the algorithm returned after 4 rounds"),
        ("kill", "was killed by SIGKILL (somebody else's kill: the kernel counts none for want of memory)"),
        ("segfault", "was killed by SIGSEGV"),
        ("limit", "ran out of memory (its address space is limited to 32 GiB, ulimit -v): "),
        (
            "limit_torch",
            "ran out of memory (its address space is limited to 32 GiB, ulimit -v): RuntimeError: ",
        ),
    ],
)
def test_first_cause_is_named(how: str, cause: str, tmp_path: Path) -> None:
    outcome = outcome_of(faulty(how), tmp_path)
    assert (outcome.state, outcome.exit_code) == ("failed", 4)
    assert outcome.cause is not None
    assert outcome.cause.startswith("node 3 on host localhost ")
    assert cause in outcome.cause
    for log in (tmp_path / "nodes").iterdir():
        lines = events(log)  # every line is valid JSON
        assert lines[0]["event"] == "header"
        assert sum(line["event"] == "round" for line in lines) >= 1


def assert_deadlock(outcome: Outcome) -> None:
    """The message lists who waits, and says of one node for whom."""
    assert outcome.exit_code == 4
    assert outcome.cause is not None
    assert "deadlock: " in outcome.cause
    assert "1 more messages of round 4" in outcome.cause
    assert re.search(r"node \d waits for 3 messages of round 4 from nodes [\d, ]*3", outcome.cause)
    assert outcome.cause.splitlines()[-1].endswith(" they are here")


def test_silent_node_is_a_deadlock_that_names_it(tmp_path: Path) -> None:
    assert_deadlock(outcome_of(faulty("never_send"), tmp_path))


def test_an_algorithm_that_is_not_what_it_says_is_refused(tmp_path: Path) -> None:
    confused = {"algorithm": {"name": "tests.integration.faulty:Confused"}, "fragments": {"count": 1}}
    outcome = outcome_of(arm(**confused), tmp_path)
    assert outcome.exit_code == 4
    assert outcome.cause is not None
    assert "exchange() in an algorithm with synchronous = False" in outcome.cause


def test_silent_node_inline_is_the_same_deadlock(tmp_path: Path) -> None:
    from launch.executors.inline import InlineExecutor

    with Interruption().installed() as interruption:
        job = Job(faulty("never_send"), 1, JobFolder(tmp_path))
        executor = InlineExecutor()
        outcome = executor.run(job, SilentDisplay(), interruption)
        executor.close()
    assert_deadlock(outcome)


def test_silent_node_in_real_time_is_a_stall_that_names_it(tmp_path: Path) -> None:
    run = {**LONG, "liveness_timeout_s": 5.0, "clock": "wall"}
    everybody = {"name": "regular", "settings": {"degree": 7}}
    outcome = outcome_of(faulty("never_send", run=run, topology=everybody), tmp_path)
    assert outcome.exit_code == 4
    assert outcome.cause is not None
    # It waits for the next round of those that wait for it, so it may be the first whose patience ends.
    assert re.search(r"^node 3 |of round 4 from nodes? ([0-7], )*3\b", outcome.cause), outcome.cause
    assert "heard nothing for 5 s while it waited for" in outcome.cause
    assert "run.liveness_timeout_s" in outcome.cause


def test_agent_killed(tmp_path: Path) -> None:
    class Killer(SilentDisplay):
        def progress(self, node: int, round: int, train_loss: float | None) -> None:
            executor_agent = psutil.Process().children()
            for agent in executor_agent:
                agent.kill()

    executor = LocalExecutor()
    with Interruption().installed() as interruption:
        job = Job(arm(run=LONG), 1, JobFolder(tmp_path))
        outcome = executor.run(job, Killer(), interruption)
    executor.close()
    assert outcome.exit_code == 4
    assert outcome.cause == "agent on host localhost was killed by signal 9"


def test_job_that_cannot_be_loaded_is_refused(tmp_path: Path) -> None:
    partition = {"name": "file", "settings": {"path": str(tmp_path / "absent.json")}}
    outcome = outcome_of(arm(data={"name": "quadratic", "partition": partition}), tmp_path / "run")
    assert outcome.state == "failed"
    assert outcome.cause is not None
    assert "absent.json" in outcome.cause
    assert outcome.exit_code == 2
    assert "Traceback" not in outcome.cause


def test_inline_run_heeds_an_interrupt_that_came_before_it(tmp_path: Path) -> None:
    from launch.executors.inline import InlineExecutor

    executor = InlineExecutor()
    with Interruption().installed() as interruption:
        os.kill(os.getpid(), signal.SIGINT)
        outcome = executor.run(Job(arm(run=LONG), 1, JobFolder(tmp_path)), SilentDisplay(), interruption)
    executor.close()
    assert (outcome.state, outcome.exit_code) == ("interrupted", 5)
    assert all(events(log)[-1]["reason"] == "interrupted" for log in (tmp_path / "nodes").iterdir())


def test_a_folder_too_long_for_sockets_is_refused_before_any_process_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """107 bytes are the limit; node 0's socket would still fit, the timekeeper's does not."""
    long = tmp_path / ("x" * (107 - len(str(tmp_path)) - len("//decentral-01234567-01234567/0.sock")))
    long.mkdir(mode=0o700)
    monkeypatch.setenv("TMPDIR", str(long))
    outcome = outcome_of(arm(), tmp_path / "run")
    assert (outcome.state, outcome.exit_code) == ("failed", 3)
    assert outcome.cause is not None
    assert "timekeeper.sock has 11" in outcome.cause
    assert outcome.cause.endswith("set TMPDIR to a shorter folder")
    assert not list((tmp_path / "run").rglob("nodes/*.jsonl"))
    assert not list(long.iterdir())
