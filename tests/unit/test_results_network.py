"""network.jsonl: read whole, damaged and absent; exact accounting; uplinks; staleness."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from results.delivery import (
    ALIKE,
    FAST,
    SLOW,
    UNLIMITED,
    accounting,
    accounting_over_seeds,
    bytes_per_node,
    staleness_over_seeds,
    utilisation,
)
from results.delivery_tables import accounting_table, staleness_table, utilisation_table
from results.network import FATES, LINK_COUNTERS
from results.read import Run, read_run
from results.tables import terminal_rows
from tests.unit.synthetic_run import SyntheticArm, SyntheticRun

ARMS = (SyntheticArm(name="divshare", asynchronous=True), SyntheticArm(name="mosaic"))
EMULATED = SyntheticRun(arms=ARMS, seeds=(1, 2), network=True, slow=2)
SIZE = 2_000_000 // 6


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return read_run(EMULATED.write(tmp_path_factory.mktemp("network") / "run"))


def log_of(folder: Path) -> Path:
    return folder / "arm-0" / "seed-1" / "network.jsonl"


def edited(folder: Path, edit: Callable[[dict[str, Any]], None]) -> Run:
    """The run with every line of one network log edited."""
    path = log_of(folder)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        edit(line)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return read_run(folder)


def said(run: Run) -> str:
    return "\n".join(f"{problem.where}: {problem.what}" for problem in run.problems)


def test_everything_is_read(run: Run) -> None:
    assert run.problems == ()
    network = run.network
    assert set(network.headers) == {(arm.name, seed) for arm in ARMS for seed in (1, 2)}
    assert network.headers["divshare", 1]["compute_s"] == [0.25] * 4
    assert len(network.uplinks) == 2 * 2 * 4
    assert len(network.links) == 2 * 2 * 4 * 3
    assert len(network.ends) == 2 * 2
    assert network.transfers["start_s"].max() < 5 * 0.25
    assert all(network.links[name].dtype == np.int64 for name in LINK_COUNTERS)
    assert network.unbalanced == ()


def test_the_accounting_is_the_sum_over_links(run: Run) -> None:
    table = accounting(run).set_index(["arm", "seed"])
    made = sum(table[name] for name in FATES)
    assert made.tolist() == table["made"].tolist()
    # Rounds 1 to 19 of four nodes queue six messages each; a fast node sends them all.
    row = table.loc[("divshare", 1)]
    assert row["made"] == 4 * 19 * 6
    assert row["made_bytes"] == row["made"] * SIZE
    # A slow one sends a message in 5 / 32 s from 0.25 s to 5 s, the 31st being under way at the end.
    assert row["in_flight"] == 2
    assert row["delivered"] + row["replaced"] == 2 * 19 * 6 + 2 * 30
    assert row["dropped_end"] + row["dropped_flush"] == 2 * (19 * 6 - 31)
    assert row["sent_bytes"] == (row["delivered"] + row["replaced"]) * SIZE
    # Synchronous: everything leaves before the next round.
    assert table.loc[("mosaic", 2), "dropped_flush"] == 0
    means = accounting_over_seeds(run).set_index("arm")
    assert means.loc["divshare", ["n", "made"]].tolist() == [2, 456]
    per_node = bytes_per_node(run).set_index(["arm", "seed"]).loc[("divshare", 1)]
    assert per_node["made_per_node"] == 114 * SIZE
    assert per_node["delivered_per_node"] == row["delivered_bytes"] / 4


def test_the_accounting_is_of_the_nodes_that_it_tells_of(tmp_path: Path) -> None:
    """One that was killed in real time gave no account: what its log counts would not match the others'."""
    folder = EMULATED.write(tmp_path / "run")
    path = log_of(folder)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    kept = [line for line in lines if line["event"] not in ("uplink", "links") or line["node"] != 0]
    assert len(kept) < len(lines)
    path.write_text("".join(json.dumps(line) + "\n" for line in kept))
    whole, less = read_run(EMULATED.write(tmp_path / "whole")), read_run(folder)
    row = accounting(less).set_index(["arm", "seed"]).loc[("divshare", 1)]
    before = accounting(whole).set_index(["arm", "seed"]).loc[("divshare", 1)]
    assert (before["nodes"], row["nodes"]) == (4, 3)
    assert row["made"] == 3 * 19 * 6
    assert row["sent"] * SIZE == row["sent_bytes"]
    per_node = bytes_per_node(less).set_index(["arm", "seed"]).loc[("divshare", 1)]
    assert per_node["made_per_node"] == 114 * SIZE


def test_utilisation_tells_fast_from_slow(run: Run) -> None:
    table = utilisation(run).set_index(["arm", "rate_class"])
    fast, slow = table.loc[("divshare", FAST)], table.loc[("divshare", SLOW)]
    assert (fast["nodes"], fast["slowest_bps"], slow["fastest_bps"]) == (4, 60e6, 12e6)
    # Three quarters of 19 of 20 rounds; from the first refill to the end.
    assert fast["mean"] == pytest.approx(0.75 * 0.95)
    assert slow["low"] == pytest.approx(0.95)
    shown = utilisation_table(run)
    assert shown is not None
    assert [cell.text for cell in shown.rows[0]] == [
        "divshare",
        "fast",
        "60 Mbit/s",
        "4",
        "71.2",
        "71.2",
        "71.2",
    ]


@pytest.mark.parametrize(
    ("rates", "classes"),
    [
        ([60e6, 59e6, 61e6, 60.5e6], {ALIKE}),
        ([60e6, 12e6, 61e6, 11e6], {FAST, SLOW}),
        ([None, 60e6, 61e6, 62e6], {UNLIMITED, ALIKE}),
        ([None] * 4, {UNLIMITED}),
    ],
)
def test_rate_classes_follow_the_rates(tmp_path: Path, rates: list[float | None], classes: set[str]) -> None:
    spec = SyntheticRun(arms=ARMS[:1], seeds=(1,), network=True)
    folder = spec.write(tmp_path / "run")

    def rate(line: dict[str, Any]) -> None:
        if line["event"] == "uplink":
            line["rate_bps"] = rates[line["node"]]

    changed = edited(folder, rate)
    assert set(utilisation(changed)["rate_class"]) == classes
    assert (utilisation_table(changed) is None) == (classes == {UNLIMITED})


def test_a_message_unaccounted_for_is_a_loud_problem(tmp_path: Path) -> None:
    def lose(line: dict[str, Any]) -> None:
        if line["event"] == "links" and line["node"] == 2:
            line["delivered"][1] -= 1

    broken = edited(EMULATED.write(tmp_path / "run"), lose)
    assert "network.jsonl: the accounting does not hold in 1 place(s), the first is 2 -> " in said(broken)
    assert len(broken.network.unbalanced) == 1
    assert broken.network.unbalanced[0].startswith("divshare, seed 1: the accounting does not hold")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([1, 2], "its lists differ in length"),
        ([1, "2", 3], "'made' is no list of counts"),
        ([1, -2, 3], "'made' is no list of counts"),
        ([1.5, 2, 3], "'made' is no list of counts"),
        ([[1], [2, 3], 4], "'made' is no list of numbers"),
        ([1, 2, 10**30], "'made' is no list of counts"),
        (None, "'made' is no list"),
    ],
)
def test_a_damaged_line_of_links_costs_that_line_only(tmp_path: Path, value: object, words: str) -> None:
    def damage(line: dict[str, Any]) -> None:
        if line["event"] == "links" and line["node"] == 1:
            line["made"] = value

    broken = edited(EMULATED.write(tmp_path / "run"), damage)
    assert f"links of node 1 were left out: {words}" in said(broken)
    assert len(broken.network.links) == 2 * 2 * 4 * 3 - 3


def test_a_cut_log_keeps_what_is_whole(tmp_path: Path) -> None:
    folder = EMULATED.write(tmp_path / "run")
    content = log_of(folder).read_bytes().splitlines(keepends=True)
    log_of(folder).write_bytes(b"".join(content[:7]) + content[7][:30])
    broken = read_run(folder)
    assert "its last line is cut off" in said(broken)
    assert "has no end event: its writer was ended before it was whole" in said(broken)
    assert len(broken.network.links) == 3 * 4 * 3 + 2 * 3
    assert len(broken.network.uplinks) == 16


def test_unusable_fields_and_foreign_lines_are_reported(tmp_path: Path) -> None:
    def damage(line: dict[str, Any]) -> None:
        if line["event"] == "uplink":
            line["busy_s"] = "long"
            line["node"] = line["node"] or None
        if line["event"] == "transfer" and line["node"] == 3:
            line["start_s"] = None
        if line["event"] == "end":
            line["event"] = "round"

    broken = edited(EMULATED.write(tmp_path / "run"), damage)
    assert "3 value(s) of 'busy_s' are no numbers and count as missing" in said(broken)
    assert "1 uplink event(s) without a node were left out" in said(broken)
    assert "unknown event 'round': 1 line(s) left out" in said(broken)
    mine = broken.network.transfers
    assert not ((mine["arm"] == "divshare") & (mine["seed"] == 1) & (mine["node"] == 3)).any()


def test_runs_without_a_network_have_empty_frames_and_no_problem(tmp_path: Path) -> None:
    old = read_run(SyntheticRun(seeds=(1,)).write(tmp_path / "run"))
    assert old.problems == ()
    assert old.network.links.empty
    assert old.rounds["made_bytes"].isna().all()
    assert accounting_table(old) is None
    assert utilisation_table(old) is None
    assert staleness_table(old) is None
    headings, _ = terminal_rows(old)
    assert "sent (MB)" in headings
    assert not any("attempted" in heading for heading in headings)


def test_one_missing_log_among_many_is_a_problem(tmp_path: Path) -> None:
    folder = EMULATED.write(tmp_path / "run")
    log_of(folder).unlink()
    assert "arm-0/seed-1/network.jsonl: is missing: no accounting of links" in said(read_run(folder))


def test_staleness_is_over_what_was_aggregated(run: Run) -> None:
    table = staleness_over_seeds(run).set_index("arm")
    # Node i of the asynchronous arm aggregates messages of age 1 + i / 2.
    assert table.loc["divshare", ["mean", "largest", "idle"]].tolist() == [1.75, 2.5, 0.0]
    assert table.loc["mosaic", "largest"] == 0.0
    shown = staleness_table(run)
    assert shown is not None
    assert shown.rows[0][2].text == "1.75 ± 0.00"


def test_the_terminal_has_attempts_deliveries_and_at_most_120_columns(run: Run) -> None:
    headings, rows = terminal_rows(run)
    assert {"attempted (MB)", "delivered (MB)"} <= set(headings)
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    assert sum(widths) + 3 * len(widths) - 1 <= 120
    narrow, _ = terminal_rows(run, 40)
    assert narrow == ["arm", "seeds", "node_avg (%)", "complete"]
    wide, _ = terminal_rows(run, 400)
    assert len(wide) == 16
