"""How a run was emulated, as its report states it, and how well wall-clock runs kept what they promised."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from results.delivery_tables import fidelity_banner
from results.emulation import compute_rule, emulation_facts, emulation_table
from results.fidelity import NOT_CHECKED, NOT_TRUSTWORTHY, TRUSTWORTHY
from results.read import read_run
from results.tables import DASH, terminal_rows
from tests.unit.synthetic_run import SyntheticArm, SyntheticRun


def test_contention_concurrency_and_compute_are_stated(tmp_path: Path) -> None:
    arms = (SyntheticArm(name="divshare", asynchronous=True), SyntheticArm(name="mosaic"))
    run = read_run(SyntheticRun(arms=arms, seeds=(1, 2), network=True, slow=2).write(tmp_path / "run"))
    facts = dict(emulation_facts(run))
    assert facts["contention"].startswith("uplink")
    assert facts["concurrency"] == "1 per sender"
    assert facts["compute"] == "0.25 s per local round"
    headings, rows = emulation_table(run)
    assert headings == ["setting", "all arms"]
    shown = dict(rows)
    assert shown["uplinks"] == "2 fast 60 Mbit/s; 2 slow 12 Mbit/s"
    assert shown["latency"] == "2 ms"
    assert shown["a flush"] == "lets transfers in progress go on"
    assert shown["compute time per round"] == "0.25 s"


@pytest.mark.parametrize(
    ("compute", "words"),
    [
        ({"time_per_round": 2}, "2 s per local round"),
        ({"time_per_round": "match_comm", "match_comm": "calibrated"}, "match_comm (calibrated)"),
        ({"time_per_round": "match_comm", "recipients": 6}, "match_comm (nominal, recipients = 6)"),
        (
            {"time_per_round": "measured", "slow_nodes": 3, "slow_factor": 5.0, "jitter": 0.1},
            "measured; 3 nodes 5.0 times slower; jitter ±10 %",
        ),
        ({}, ""),
    ],
)
def test_the_compute_rule_in_words(compute: dict[str, Any], words: str) -> None:
    assert compute_rule({"compute": compute}) == words


DOUBT: dict[str, Any] = {
    "verdict": NOT_TRUSTWORTHY,
    "reasons": ["CPU saturated"],
    "rate_error_median": 0.21,
    "latency_error_ms_median": 4.5,
    "timer_lateness_ms_p99": 30.0,
    "cpu_saturation": 0.99,
    "links": [{}, {}],
}


def test_fidelity_is_read_and_doubts_reach_the_terminal(tmp_path: Path) -> None:
    fidelity = {("mosaic", 1): DOUBT, ("el", 1): {"verdict": TRUSTWORTHY, "reasons": []}}
    run = read_run(SyntheticRun(seeds=(1,), clock="wall", fidelity=fidelity).write(tmp_path / "run"))
    first, second = run.fidelity
    assert (first.arm, first.verdict, first.reasons, first.links) == (
        *("mosaic", NOT_TRUSTWORTHY, ("CPU saturated",)),
        2,
    )
    assert first.rate_error_median == 0.21
    assert second.verdict == TRUSTWORTHY
    assert np.isnan(second.cpu_saturation)
    _, rows = terminal_rows(run)
    assert [row[-1] for row in rows] == ["yes; NOT TRUSTWORTHY", "yes"]
    assert fidelity_banner(run)[0][2][0] == "median error of rate 21 %"
    assert dict(emulation_facts(run))["compute"] == "real time (wall clock)"


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"verdict": "fine"}', '{"verdict": 3, "reasons": "x"}', "{}"]
)
def test_a_damaged_fidelity_file_is_not_called_trustworthy(tmp_path: Path, content: str) -> None:
    folder = SyntheticRun(seeds=(1,)).write(tmp_path / "run")
    (folder / "arm-0" / "seed-1" / "fidelity.json").write_text(content)
    (doubtful,) = read_run(folder).fidelity
    assert doubtful.verdict == NOT_CHECKED
    assert "no verdict that this version knows" in doubtful.reasons[0]
    assert fidelity_banner(read_run(folder))[0][1] != "best"


def test_a_verdict_lost_among_others_is_a_problem(tmp_path: Path) -> None:
    spec = SyntheticRun(seeds=(1,), clock="wall", fidelity={("mosaic", 1): DOUBT})
    problems = read_run(spec.write(tmp_path / "run")).problems
    assert [problem.where for problem in problems] == ["arm-1/seed-1/fidelity.json"]


def test_without_settings_nothing_is_claimed(tmp_path: Path) -> None:
    folder = SyntheticRun(seeds=(1,)).write(tmp_path / "run")
    (folder / "resolved.json").unlink()
    run = read_run(folder)
    assert emulation_facts(run) == []
    assert DASH not in {value for row in emulation_table(run)[1] for value in row[1:]}


def test_what_differs_between_arms_is_said_by_arm(tmp_path: Path) -> None:
    slower = SyntheticArm(name="slower", settings={"compute": {"time_per_round": "match_comm"}})
    run = read_run(SyntheticRun(arms=(SyntheticArm(name="a"), slower), seeds=(1,)).write(tmp_path / "run"))
    assert dict(emulation_facts(run))["compute"] == "differs between arms"
    headings, rows = emulation_table(run)
    assert headings == ["setting", "a", "slower"]
    assert ["compute", "0.25 s per local round", "match_comm (nominal)"] in rows
    assert ["contention", *["uplink: senders' uplinks only"] * 2] in rows
