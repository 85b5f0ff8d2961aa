"""Run folders in every state that a launcher, a kill or a disk can leave them in."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decentral.errors import ConfigError
from results.logs import columns, read_log
from results.read import FIELDS, read_run
from tests.unit.synthetic_run import SyntheticArm, SyntheticRun

TWO = SyntheticRun(seeds=(1, 2))


def node_log(folder: Path, arm: int = 0, seed: int = 1, node: int = 0) -> Path:
    return folder / f"arm-{arm}" / f"seed-{seed}" / "nodes" / f"{node:03d}.jsonl"


def texts(folder: Path) -> str:
    return "\n".join(f"{problem.where}: {problem.what}" for problem in read_run(folder).problems)


def test_a_complete_run_is_read_whole(tmp_path: Path) -> None:
    run = read_run(TWO.write(tmp_path / "run"))
    assert run.problems == ()
    assert run.complete
    assert run.arms == ("mosaic", "el")
    assert (run.metric.name, run.metric.higher_is_better) == ("acc", True)
    assert len(run.rounds) == 2 * 2 * 4 * 20
    assert len(run.evaluations) == 2 * 2 * 4 * (5 + 1)
    assert len(run.averages) == 2 * 2 * (5 + 1)
    assert len(run.ends) == 2 * 2 * 4
    assert set(FIELDS["round"]) <= set(run.rounds)
    assert run.rounds["node"].dtype == np.int64
    assert list(run.rounds["arm"].cat.categories) == ["mosaic", "el"]
    first = run.evaluations.iloc[0]
    assert first["score"] == pytest.approx(-0.05)
    assert first["test_loss"] == pytest.approx(1.05)
    assert run.jobs[0].rounds == (20, 20)
    assert run.jobs[0].asked_rounds == 20


def test_true_arm_names_come_from_the_manifest_not_from_folders(tmp_path: Path) -> None:
    run = read_run(SyntheticRun(arms=(SyntheticArm(name="a/b <c>"),), seeds=(1,)).write(tmp_path / "run"))
    assert run.arms == ("a/b <c>",)
    assert set(run.evaluations["arm"]) == {"a/b <c>"}


@pytest.mark.parametrize("damage", ["absent", "damaged", "not an object"])
def test_without_a_manifest_folders_and_headers_serve(tmp_path: Path, damage: str) -> None:
    folder = TWO.write(tmp_path / "run")
    manifest = folder / "manifest.json"
    if damage == "absent":
        manifest.unlink()
    else:
        manifest.write_text("{" if damage == "damaged" else "[]")
    run = read_run(folder)
    assert run.arms == ("mosaic", "el")
    assert len(run.evaluations) == 2 * 2 * 4 * 6
    assert any(problem.where == "manifest.json" for problem in run.problems)
    assert all(job.complete for job in run.jobs)
    assert not run.complete
    assert run.state == "unknown"


def test_a_line_cut_off_by_a_kill_costs_that_line_only(tmp_path: Path) -> None:
    folder = TWO.write(tmp_path / "run")
    log = node_log(folder)
    whole = read_run(folder)
    log.write_bytes(log.read_bytes()[:-30])
    run = read_run(folder)
    assert len(run.ends) == len(whole.ends) - 1
    assert len(run.rounds) == len(whole.rounds)
    assert "its last line is cut off" in texts(folder)
    assert "no end event of 1 of 4 nodes (0)" in texts(folder)
    assert not run.complete


@settings(deadline=None)
@given(st.integers(min_value=0))
def test_cut_anywhere_all_whole_lines_before_the_cut_stay(cut: int) -> None:
    lines = [{"event": "header", "v": 1, "node": 3}]
    lines += [{"event": "round", "round": r, "train_loss": r / 7, "note": "é"} for r in range(1, 6)]
    content = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
    cut %= len(content) + 1
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "003.jsonl"
        path.write_bytes(content[:cut])
        log = read_log(path)
    whole = content[:cut].count(b"\n")
    at_the_end = cut < len(content) and content[cut : cut + 1] == b"\n"
    assert len(log.events["round"]) + bool(log.header) == whole + at_the_end
    if not at_the_end and cut and content[cut - 1 : cut] != b"\n":
        assert any("cut off" in problem for problem in log.problems)


def test_damage_in_the_middle_is_counted_and_the_rest_is_kept(tmp_path: Path) -> None:
    folder = TWO.write(tmp_path / "run")
    log = node_log(folder)
    lines = log.read_bytes().splitlines(keepends=True)
    lines[3] = b'{"event":"round","rou\n'
    lines[5] = b"\x00\xff\xfe\n"
    lines[7] = b'["event"]\n'
    lines[9] = b'{"event":"gossip","round":1}\n'
    lines[11] = b'{"event":"round","round":-1}\n'
    log.write_bytes(b"".join(lines))
    said = texts(folder)
    assert "3 damaged line(s) left out, the first is line 4" in said
    assert "unknown event 'gossip': 1 line(s) left out" in said
    assert "'round without a round': 1 line(s) left out" in said
    assert len(read_run(folder).ends) == 2 * 2 * 4


def test_an_unknown_schema_version_is_reported_and_read_as_far_as_known(tmp_path: Path) -> None:
    folder = TWO.write(tmp_path / "run")
    log = node_log(folder)
    log.write_text(log.read_text().replace('"v":1', '"v":2', 1))
    assert "schema version 2 is unknown" in texts(folder)
    assert len(read_run(folder).evaluations) == 2 * 2 * 4 * 6


def test_missing_nodes_files_and_jobs_are_named(tmp_path: Path) -> None:
    folder = SyntheticRun(seeds=(1, 2), nodes=8, absent=(("el", 2),), state="failed").write(tmp_path / "run")
    for node in (1, 2, 3, 6):
        node_log(folder, node=node).unlink()
    (folder / "arm-1" / "seed-1" / "metrics.jsonl").unlink()
    run = read_run(folder)
    assert "no log of 4 of 8 nodes (1-3, 6)" in texts(folder)
    assert "arm-1/seed-1/metrics.jsonl: is missing" in texts(folder)
    jobs = {(job.arm, job.seed): job for job in run.jobs}
    assert (jobs["mosaic", 1].found, jobs["mosaic", 1].complete) == (4, False)
    assert (jobs["el", 2].folder, jobs["el", 2].state, jobs["el", 2].complete) == (None, "pending", False)


def test_jobs_that_only_the_settings_ask_for_were_not_started(tmp_path: Path) -> None:
    folder = TWO.write(tmp_path / "run")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["jobs"] = manifest["jobs"][:-1]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    shutil.rmtree(folder / "arm-1" / "seed-2")
    run = read_run(folder)
    assert run.jobs[-1].state == "not started"
    assert not run.complete


def test_a_manifest_cannot_point_outside_its_run(tmp_path: Path) -> None:
    TWO.write(tmp_path / "other")
    folder = TWO.write(tmp_path / "run")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["jobs"][0]["folder"] = "../other/arm-0/seed-1"
    manifest["jobs"][1]["folder"] = str(tmp_path / "other" / "arm-0" / "seed-2")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert texts(folder).count("is outside the run folder: left out") == 2


def test_null_scores_are_nan_and_no_error(tmp_path: Path) -> None:
    arms = (SyntheticArm(name="a", diverged=(2,)),)
    run = read_run(SyntheticRun(arms=arms, seeds=(1,)).write(tmp_path / "run"))
    lost = run.evaluations[run.evaluations["score"].isna()]
    assert set(lost["node"]) == {2}
    assert run.problems == ()


def test_headers_that_disagree_on_the_metric_are_reported(tmp_path: Path) -> None:
    folder = TWO.write(tmp_path / "run")
    log = node_log(folder, arm=1)
    log.write_text(log.read_text().replace('"metric":"acc"', '"metric":"rmse"'))
    run = read_run(folder)
    assert run.metric.higher_is_better is None
    assert "headers name several metrics" in texts(folder)


def test_values_that_are_no_numbers_count_as_missing() -> None:
    table, problems = columns([{"time_s": "soon"}, {"time_s": 10**400}, {"time_s": None}, {"time_s": 2}], [])
    np.testing.assert_array_equal(table["time_s"], [np.nan, np.nan, np.nan, 2.0])
    assert problems == ("2 value(s) of 'time_s' are no numbers and count as missing",)


def test_no_run_folder_is_refused_with_the_path(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no run folder"):
        read_run(tmp_path)
    with pytest.raises(ConfigError, match="nowhere"):
        read_run(tmp_path / "nowhere")


def test_empty_logs_are_read_as_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    log = node_log(folder)
    log.parent.mkdir(parents=True)
    log.write_bytes(b"")
    run = read_run(folder)
    assert (len(run.rounds), len(run.evaluations), len(run.jobs)) == (0, 0, 1)
    assert "has no header" in texts(folder)
