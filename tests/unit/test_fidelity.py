"""The verdict on a wall-clock run: every broken promise is named, none is invented."""

from __future__ import annotations

import json
import math
import time
from typing import Any

import numpy as np
import pytest

from decentral.fidelity import (
    NOT_CHECKED,
    NOT_TRUSTWORTHY,
    TRUSTWORTHY,
    CpuTimes,
    cpu_times,
    merge,
    node_account,
)
from decentral.network.model import NetworkModel
from decentral.observations import Samples, Transfers
from decentral.seeding import Seeds

MS = 1_000_000
BEFORE = CpuTimes(at_s=7.0, ran_s=1.0, waited_s=0.5, busy=100, stolen=10, total=1000)
AFTER = CpuTimes(at_s=10.0, ran_s=3.0, waited_s=0.6, busy=600, stolen=20, total=2000)


def network(up: float = 1e6, down: float = math.inf, contention: Any = "uplink") -> NetworkModel:
    return NetworkModel(
        n=3,
        uplink_bps=np.full(3, up),
        downlink_bps=np.full(3, down),
        latency_ns=np.array([[5 * MS]]),
        contention=contention,
        seeds=Seeds(1),
    )


def account(
    node: int = 0,
    *,
    slow: float = 1.0,
    late_ms: float = 0.1,
    timer_ms: float = 0.1,
    after: CpuTimes = AFTER,
    model: NetworkModel | None = None,
) -> dict[str, Any]:
    """Of a node that sent 10 messages of 40 ms to both others, and heard as many."""
    others = [j for j in range(3) if j != node]
    transfers, lateness, heard = Transfers(), Samples(), {j: Samples() for j in others}
    for _ in range(10):
        lateness.add(round(timer_ms * MS))
        for j in others:
            transfers.add(j, bits=40_000, asked_ns=40 * MS, took_ns=round(slow * 40 * MS), followed=False)
            transfers.delayed(j, 5 * MS)
            heard[j].add(round(late_ms * MS))
    made = node_account(
        node=node,
        model=model or network(),
        transfers=transfers,
        lateness_ns=lateness,
        heard=heard,
        before=BEFORE,
        after=after,
    )
    return dict(json.loads(json.dumps(made)))


def test_kept_promises_are_trusted_and_told() -> None:
    merged = merge([account(i) for i in (2, 0, 1)], 3)
    assert (merged["verdict"], merged["reasons"]) == (TRUSTWORTHY, [])
    assert merged["rate_error_median"] == 0.0
    assert merged["latency_error_ms_median"] == pytest.approx(0.1)
    assert merged["timer_lateness_ms_p99"] == pytest.approx(0.1)
    assert merged["cpu_saturation"] == 0.5
    assert merged["cpu_waited"] == pytest.approx(0.1 / 2.1)
    assert merged["cpu_stolen"] == 0.01
    first, *others = merged["links"]
    assert [(link["node"], link["to"]) for link in others] == [(0, 2), (1, 0), (1, 2), (2, 0), (2, 1)]
    assert first == {
        "node": 0,
        "to": 1,
        "asked_bps": 1e6,
        "achieved_bps": 1e6,
        "asked_latency_s": 0.005,
        "achieved_latency_s": pytest.approx(0.0051),
        "transfers": 10,
    }
    json.dumps(merged, allow_nan=False)


@pytest.mark.parametrize(
    ("broken", "word"),
    [
        ({"slow": 1.06}, "rate was off by 5.7%"),
        ({"slow": 0.94}, "rate was off by 6.4%"),
        ({"slow": 0.0}, "rate was off by"),
        ({"late_ms": 2.1}, "2.1 ms off its time"),
        ({"late_ms": -2.1}, "2.1 ms off its time"),
        ({"timer_ms": 10.5}, "10.5 ms late"),
        ({"after": AFTER._replace(waited_s=1.0)}, "waited for a core in 20% of the time"),
        ({"after": AFTER._replace(waited_s=None, busy=1060)}, "cores were busy for 96%"),
        ({"after": AFTER._replace(stolen=80)}, "gave 7% of the cores' time"),
    ],
)
def test_every_broken_promise_is_flagged(broken: dict[str, Any], word: str) -> None:
    merged = merge([account(i, **broken) for i in range(3)], 3)
    assert merged["verdict"] == NOT_TRUSTWORTHY
    (reason,) = merged["reasons"]
    assert word in reason
    assert ";" in reason, "it says what to do"
    json.dumps(merged, allow_nan=False)


@pytest.mark.parametrize("kept", [{"slow": 1.04}, {"late_ms": 1.9}, {"timer_ms": 9.5}])
def test_what_lies_within_the_bounds_is_no_reason(kept: dict[str, Any]) -> None:
    assert merge([account(i, **kept) for i in range(3)], 3)["verdict"] == TRUSTWORTHY


def test_one_overloaded_node_is_enough_for_timers_and_cores_but_not_for_medians() -> None:
    good = [account(0), account(1)]
    assert merge([*good, account(2, timer_ms=11.0)], 3)["verdict"] == NOT_TRUSTWORTHY
    assert merge([*good, account(2, after=AFTER._replace(waited_s=2.0))], 3)["verdict"] == NOT_TRUSTWORTHY
    assert merge([*good, account(2, slow=1.5, late_ms=4.0)], 3)["verdict"] == TRUSTWORTHY


def test_a_node_that_sleeps_is_not_judged_by_what_waking_up_costs() -> None:
    sleepy = AFTER._replace(at_s=107.0, ran_s=1.2, waited_s=0.6)
    assert merge([account(i, after=sleepy) for i in range(3)], 3)["cpu_waited"] == pytest.approx(0.1 / 50)


def test_noise_of_single_links_cancels() -> None:
    merged = merge([account(0, slow=0.8), account(1, slow=1.0), account(2, slow=1.2)], 3)
    assert merged["rate_error_median"] == 0.0
    assert {round(link["achieved_bps"] / 1e6, 3) for link in merged["links"]} == {1.25, 1.0, 0.833}


def test_short_transfers_are_timed_in_long_rows_without_the_first() -> None:
    transfers = Transfers()

    def row(length: int) -> tuple[int, int]:
        transfers.begin_row()
        transfers.add(1, bits=1000, asked_ns=MS, took_ns=MS + MS // 2, followed=False)
        for _ in range(length):
            transfers.add(1, bits=1000, asked_ns=MS, took_ns=MS + 1, followed=True)
        ((_, link),) = transfers
        return link.timed_asked_ns, link.timed_ns

    assert row(39) == (0, 0), "what lateness there is, is part of the latency"
    assert row(40) == (40 * MS, 40 * MS + 40)
    assert row(39) == (40 * MS, 40 * MS + 40)
    assert row(50) == (90 * MS, 90 * MS + 90)
    ((_, link),) = transfers
    assert (link.transfers, link.bits, link.asked_ns) == (172, 172_000, 172 * MS)


def test_unlimited_links_have_no_rate_to_keep() -> None:
    merged = merge([account(i, model=network(up=math.inf)) for i in range(3)], 3)
    assert merged["rate_error_median"] is None
    assert merged["verdict"] == TRUSTWORTHY, "latencies and cores were checked"
    assert {link["asked_bps"] for link in merged["links"]} == {None}
    shared = network(up=math.inf, down=1e6, contention="both")
    assert merge([account(0, model=shared)], 1)["rate_error_median"] == 0.0


def test_nothing_measured_and_missing_accounts_are_not_trusted_blindly() -> None:
    quiet = node_account(
        node=0,
        model=network(),
        transfers=Transfers(),
        lateness_ns=Samples(),
        heard={},
        before=BEFORE,
        after=AFTER,
    )
    merged = merge([quiet], 1)
    assert merged["verdict"] == NOT_CHECKED
    assert "no message" in merged["reasons"][0]
    merged = merge([account(0), account(1)], 3)
    assert merged["verdict"] == NOT_CHECKED
    assert "1 of 3 nodes" in merged["reasons"][0]
    assert {link["achieved_latency_s"] for link in merged["links"] if link["to"] == 2} == {None}
    assert merge([], 3)["verdict"] == NOT_CHECKED
    merged = merge([account(0), account(1, timer_ms=20.0)], 3)
    assert merged["verdict"] == NOT_TRUSTWORTHY, "what is known to be bad stays bad"


def test_samples_stay_bounded_and_even() -> None:
    samples = Samples(most=64)
    for value in range(10_000):
        samples.add(value)
    assert samples.count == 10_000
    assert 32 <= len(samples.values) < 64
    steps = {b - a for a, b in zip(samples.values, samples.values[1:], strict=False)}
    assert len(steps) == 1
    median = samples.quantile(0.5)
    assert median is not None
    assert abs(median - 5000) < 400
    assert Samples().quantile(0.5) is None


def test_cpu_times_count_this_thread_and_its_host() -> None:
    before, start = cpu_times(), time.thread_time()
    while time.thread_time() < start + 0.05:
        pass
    after = cpu_times()
    assert after.at_s - before.at_s > after.ran_s - before.ran_s - 0.001
    assert after.ran_s - before.ran_s >= 0.05
    assert after.total > before.total
    assert before.busy <= after.busy
    if before.waited_s is not None:
        assert after.waited_s is not None
        assert after.waited_s >= before.waited_s
