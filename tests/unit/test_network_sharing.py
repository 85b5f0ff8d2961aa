"""Fair sharing: optimal rates, runs against exact arithmetic, and shares of messages that arrive in time."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from decentral.network.flows import Flow
from decentral.network.ledger import Ledger
from decentral.network.links import Item, Links
from decentral.network.maxmin import CAP, DESTINATION, RATE, SENDER, MaxMinRates
from decentral.network.model import INFINITE_NS, NetworkModel
from decentral.network.sharing import max_min_rates, water_level
from decentral.seeding import Seeds

RATES = st.one_of(st.sampled_from([1.0, 2.0, 3.0, 6.0, math.inf]), st.floats(0.1, 1e9))
Real = NDArray[np.float64]
Whole = NDArray[np.int64]


Case: TypeAlias = tuple[Real, Real, Whole, Whole, Real]  # the arguments of max_min_rates


def assert_max_min_fair(case: Case, rates: Real) -> None:
    """Feasible, and every flow is at its cap or crosses a full link on which none is faster."""
    up, down, i, j, caps = case
    slack = 1e-9
    loads = [(up, i), (down, j)]
    assert (rates > 0).all()
    assert (rates <= caps).all()
    at_rest = rates == caps
    for capacity, link in loads:
        load = np.bincount(link, weights=rates, minlength=capacity.size)
        fastest = np.zeros(capacity.size)
        np.maximum.at(fastest, link, rates)
        assert (load <= capacity * (1 + slack)).all()
        full = np.isfinite(capacity) & (load >= capacity * (1 - slack))
        at_rest |= full[link] & (rates >= fastest[link] * (1 - slack))
    assert at_rest.all()


@st.composite
def flows(draw: st.DrawFn) -> Case:
    n, m = draw(st.integers(2, 6)), draw(st.integers(1, 15))
    node, rate = st.integers(0, n - 1), RATES
    up, down = (np.array(draw(st.lists(rate, min_size=n, max_size=n))) for _ in range(2))
    i, j = (np.array(draw(st.lists(node, min_size=m, max_size=m))) for _ in range(2))
    return up, down, i, j, np.array(draw(st.lists(rate, min_size=m, max_size=m)))


@given(flows())
def test_rates_are_max_min_fair(case: Case) -> None:
    assert_max_min_fair(case, max_min_rates(*case))


@given(st.floats(1.0, 1e9), st.lists(RATES, min_size=1, max_size=12))
def test_one_link_is_filled_to_a_level(capacity: float, caps: list[float]) -> None:
    level = water_level(capacity, caps)
    rates = np.minimum(caps, level)
    zeros = np.zeros(len(caps), dtype=np.int64)
    everywhere = np.array([math.inf])
    case = (np.array([capacity]), everywhere, zeros, zeros, np.array(caps))
    assert_max_min_fair(case, rates)
    np.testing.assert_allclose(rates, max_min_rates(*case), rtol=1e-12)


def test_textbook_network() -> None:
    """Uplinks 1, 10 and downlinks 4, 9: flow 0 -> 0 gets 1, what 0 leaves of downlink 0 goes to 1 -> 0."""
    up, down = np.array([1.0, 10.0]), np.array([4.0, 9.0])
    i, j = np.array([0, 1, 1]), np.array([0, 0, 1])
    np.testing.assert_allclose(max_min_rates(up, down, i, j, np.full(3, math.inf)), [1.0, 3.0, 7.0])


class ExactRates:
    """Flows in rational arithmetic: rates of everything are filled anew, drop by drop, at every event."""

    def __init__(self, model: NetworkModel) -> None:
        self.model = model
        self.left_: dict[Flow, Fraction] = {}
        self.rate: dict[Flow, Fraction] = {}
        self.now_ns = 0

    def capacity(self, flow: Flow) -> list[tuple[tuple[str, int, int], float]]:
        i, j = flow.sender, flow.item.destination
        limits = [(("up", i, 0), self.model.uplink_bps[i])]
        if self.model.contention == "both":
            limits.append((("down", j, 0), self.model.downlink_bps[j]))
        if self.model.pair_bps is not None:
            limits.append((("pair", i, j), self.model.pair_bps[i, j]))
        return limits

    def move(self, now_ns: int) -> None:
        for flow, rate in self.rate.items():
            self.left_[flow] = max(Fraction(0), self.left_[flow] - rate * (now_ns - self.now_ns) / 10**9)
        self.now_ns = now_ns

    def fill(self) -> None:
        rising = {flow for flow, left in self.left_.items() if left}
        self.rate = {flow: Fraction(0) for flow in rising}
        while rising:
            used: dict[tuple[str, int, int], Fraction] = {}
            load: dict[tuple[str, int, int], int] = {}
            size: dict[tuple[str, int, int], Fraction] = {}
            for flow in self.rate:
                for link, capacity in self.capacity(flow):
                    size[link] = Fraction(capacity)
                    used[link] = used.get(link, Fraction(0)) + self.rate[flow]
                    load[link] = load.get(link, 0) + (flow in rising)
            rise = min((size[link] - used[link]) / load[link] for link in load if load[link])
            for flow in rising:
                self.rate[flow] += rise
            full = {link for link in load if used[link] + rise * load[link] == size[link]}
            rising = {flow for flow in rising if full.isdisjoint(link for link, _ in self.capacity(flow))}

    def add(self, now_ns: int, flow: Flow) -> None:
        self.move(now_ns)
        self.left_[flow] = Fraction(flow.bits)
        self.fill()

    def next_ns(self) -> int:
        return min((self.ends_ns(flow) for flow in self.left_), default=INFINITE_NS)

    def ends_ns(self, flow: Flow) -> int:
        left = self.left_[flow]
        return self.now_ns + (math.ceil(left * 10**9 / self.rate[flow]) if left else 0)

    def pop(self) -> Flow:
        at_ns = self.next_ns()
        due = [flow for flow in self.left_ if self.ends_ns(flow) == at_ns]
        flow = min(due, key=lambda flow: (flow.sender, flow.order))
        self.cut(at_ns, flow)
        return flow

    def left(self, now_ns: int, flow: Flow) -> float:
        self.move(now_ns)
        return float(self.left_[flow])

    def cut(self, now_ns: int, flow: Flow) -> None:
        self.move(now_ns)
        del self.left_[flow]
        self.fill()


def random_model(seed: int, **changes: Any) -> NetworkModel:
    """Rates that are no round numbers, so that nothing ends at the same instant by chance."""
    draw = np.random.default_rng(seed)
    n = 5
    rates = draw.uniform(1e6, 9e6, size=(2, n))
    pair = draw.uniform(1e6, 9e6, size=(n, n)) if seed % 2 else None
    values: dict[str, Any] = {"uplink_bps": rates[0], "downlink_bps": rates[1], "pair_bps": pair}
    values |= {"latency_ns": np.array([[12_345]]), "abort_on_flush": seed % 3 == 0, "seeds": Seeds(seed)}
    return NetworkModel(n=n, **(values | changes))


def random_run(links: Links, seed: int, check: bool = False) -> list[tuple[int, int, int]]:
    """Refill queues at random times; (time, sender, sequence) of all arrivals."""
    draw = np.random.default_rng(seed)
    n = links.model.n
    arrivals = []
    for k, now_ns in enumerate(np.sort(draw.integers(0, 40_000_000, size=16)).tolist()):
        while links.next_event() < (now_ns, 1):
            arrivals += links.step()
            if check:
                assert_current_rates_fair(links)
        sender = int(draw.integers(n))
        others = [j for j in range(n) if j != sender]
        queue = [
            Item(int(draw.choice(others)), int(draw.integers(0, 6000)), 10 * k + s, k, 0, 0) for s in range(5)
        ]
        links.put(now_ns, sender, queue, flush=bool(draw.random() < 0.7))
    while links.next_event()[0] < INFINITE_NS:
        arrivals += links.step()
    links.ledger.check()
    return [(at_ns, sender, item.sequence) for at_ns, sender, item in arrivals]


def assert_current_rates_fair(links: Links) -> None:
    """What MaxMinRates works with right now is fair: no link above its rate, nothing can be raised."""
    state = links._flows
    assert isinstance(state, MaxMinRates)
    links.next_event()
    m = len(state._flows)
    if m == 0 or state._changed_ns is not None:  # others end at this instant: rates come after them
        return
    i, j, rates = state._whole[SENDER, :m], state._whole[DESTINATION, :m], state._real[RATE, :m]
    assert_max_min_fair((state._uplink, state._downlink, i, j, state._real[CAP, :m]), rates)


def with_rates(model: NetworkModel, rates: Any) -> Links:
    links = Links(model, Ledger(model.n))
    links._flows = rates(model)
    return links


def assert_same_within_rounding(
    got: list[tuple[int, int, int]], expected: list[tuple[int, int, int]]
) -> None:
    """The same messages arrive; events may round their times by a nanosecond, later ones build on it."""
    got, expected = (sorted(run, key=lambda arrival: arrival[1:]) for run in (got, expected))
    assert [arrival[1:] for arrival in got] == [arrival[1:] for arrival in expected]
    assert max((abs(a[0] - b[0]) for a, b in zip(got, expected, strict=True)), default=0) <= 25


# The examples are always the same: a flush within a rounding error of an end could part two correct runs.
WAYS = [("uplink", 1), ("uplink", 2), ("uplink", None), ("both", 1), ("both", 2), ("both", None)]


@pytest.mark.parametrize(("contention", "concurrency"), WAYS)
@given(seed=st.integers(0, 10**6))
@settings(max_examples=4, derandomize=True)
def test_runs_agree_with_exact_arithmetic(contention: str, concurrency: int | None, seed: int) -> None:
    model = random_model(seed, contention=contention, concurrency=concurrency)
    got = random_run(Links(model, Ledger(5)), seed)
    assert_same_within_rounding(got, random_run(with_rates(model, ExactRates), seed))


@pytest.mark.parametrize(("contention", "concurrency"), WAYS)
@given(seed=st.integers(0, 10**6), overhead_ns=st.sampled_from([0, 1000, 777_777]))
@settings(max_examples=10, derandomize=True)
def test_cheap_ways_agree_with_the_general_one(
    contention: str, concurrency: int | None, seed: int, overhead_ns: int
) -> None:
    model = random_model(seed, contention=contention, concurrency=concurrency, overhead_ns=overhead_ns)
    cheap, general = Links(model, Ledger(5)), with_rates(model, MaxMinRates)
    got, expected = random_run(cheap, seed), random_run(general, seed, check=True)
    if (contention, concurrency) == ("uplink", 1):
        assert got == expected
    assert_same_within_rounding(got, expected)
    assert cheap.sent_bytes == general.sent_bytes
    assert np.allclose(cheap.sent_bits, general.sent_bits, atol=2)
    assert np.allclose(cheap.busy_ns, general.busy_ns, atol=50)


class Shares(NamedTuple):
    """Shares of a round's messages that an independent fluid model saw leave before the flush."""

    contention: Literal["uplink", "both"]
    concurrency: int | None
    stragglers: int
    fast: float
    slow: float | None
    tolerance: float
    rounds: tuple[int, int]  # measured; the first start with idle links


N, RECIPIENTS, FRAGMENTS, NBYTES = 60, 6, 10, 35_924
TABLE = [
    Shares("uplink", 1, 0, 1.0, None, 0.01, (1, 6)),
    Shares("uplink", 1, 30, 1.0, 0.20, 0.01, (1, 6)),
    Shares("both", 1, 0, 0.505, None, 0.02, (1, 10)),
    Shares("both", 1, 30, 0.13, 0.10, 0.02, (1, 10)),
    Shares("both", 8, 30, 0.23, 0.16, 0.025, (2, 8)),
    # Aborting at the flush; how much arrives depends on how the nodes' rounds are aligned.
    Shares("both", None, 30, 0.44, 0.00, 0.07, (0, 3)),
]


@pytest.mark.parametrize(
    "expected", TABLE, ids=lambda row: f"{row.contention}-{row.concurrency}-{row.stragglers}"
)
def test_shares_that_arrive_before_the_flush(expected: Shares) -> None:
    rates = np.full(N, 60e6)
    rates[: expected.stragglers] /= 5
    model = NetworkModel(
        n=N, uplink_bps=rates, downlink_bps=rates, latency_ns=np.array([[1_000_000]]), seeds=Seeds(1),
        contention=expected.contention, concurrency=expected.concurrency,
        abort_on_flush=expected.concurrency is None,
    )  # fmt: skip
    links = Links(model, Ledger(N))
    compute_ns = round(RECIPIENTS * FRAGMENTS * NBYTES * 8 * 1e9 / 60e6)
    draw = np.random.default_rng(5)
    sent = []
    for k in range(expected.rounds[1] + 1):
        while links.next_event() < (k * compute_ns, 1):
            links.step()
        sent.append(list(links.sent))
        for i in range(N):
            peers = [j for j in range(N) if j != i]
            pairs = [
                (int(j), f) for f in range(FRAGMENTS) for j in draw.choice(peers, RECIPIENTS, replace=False)
            ]
            draw.shuffle(pairs)
            items = [Item(j, NBYTES, 60 * k + s, k, f, 0) for s, (j, f) in enumerate(pairs)]
            links.put(k * compute_ns, i, items, flush=True)
    share = np.diff(sent[expected.rounds[0] :], axis=0) / (RECIPIENTS * FRAGMENTS)
    assert share[:, expected.stragglers :].mean() == pytest.approx(expected.fast, abs=expected.tolerance)
    if expected.slow is not None:
        assert share[:, : expected.stragglers].mean() == pytest.approx(expected.slow, abs=expected.tolerance)
