"""Did a wall-clock run keep what it promised? ``fidelity.json``: asked and achieved, and a verdict.

Every node gives an account of itself: how long its transfers were to take and took, how late timers fired,
how late messages reached it, how long it waited for a core. ``merge`` judges all accounts of a job together.
Latencies are compared across processes: those of one host share its monotonic clock, and those of several
hosts agree as far as half a round trip tells, which the launcher shows when a job begins.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from decentral.clock import NS_PER_S
from decentral.network.model import NetworkModel
from decentral.observations import LATENCY_ERROR_MS, RATE_ERROR, Samples, Transfers

TRUSTWORTHY, NOT_TRUSTWORTHY, NOT_CHECKED = "trustworthy", "not trustworthy", "not checked"
LATENESS_MS = 10.0
"""Most lateness of 99 % of any node's timers."""
WAITED_SHARE = 0.1
"""Most of the time in which a node's thread could have run that it may have waited for a core. At least half
of the run counts, so that a node that sleeps a lot is not judged by what waking up costs."""
BUSY_SHARE = 0.95
"""Most of the cores' time in use, where the kernel does not tell how long a process waited for a core."""
STOLEN_SHARE = 0.05
"""Most of the cores' time that a hypervisor may have given to others."""
_SCHEDSTAT = Path("/proc/thread-self/schedstat")
_MS = NS_PER_S / 1000
_MOST_RATIO = 1000.0
"""Achieved to asked rate of a link whose transfers all ended in one instant, when a late timer fired."""


class CpuTimes(NamedTuple):
    """Cumulative: seconds of the calling thread, ticks of all of its host's cores."""

    at_s: float
    ran_s: float
    waited_s: float | None
    busy: int
    stolen: int
    total: int


def cpu_times() -> CpuTimes:
    """Read them now; ``waited_s``, runnable without a core, is None where the kernel does not tell."""
    waited_s = None
    if _SCHEDSTAT.exists():
        waited_s = int(_SCHEDSTAT.read_text(encoding="ascii").split()[1]) / NS_PER_S
    with open("/proc/stat", encoding="ascii") as file:
        user, nice, system, idle, iowait, irq, softirq, stolen = map(int, file.readline().split()[1:9])
    busy = user + nice + system + irq + softirq + stolen
    return CpuTimes(time.monotonic(), time.thread_time(), waited_s, busy, stolen, busy + idle + iowait)


def node_account(
    *,
    node: int,
    model: NetworkModel,
    transfers: Transfers,
    lateness_ns: Samples,
    heard: Mapping[int, Samples],
    before: CpuTimes,
    after: CpuTimes,
) -> dict[str, Any]:
    """One node's account, of plain values.

    Args:
        node: whose.
        model: what was asked.
        transfers: what became of its outgoing transfers.
        lateness_ns: of its timers.
        heard: per sender, by how many ns messages came later than they should have.
        before, after: read by its thread at the start barrier and at its end.
    """
    sent = []
    for to, link in transfers:
        limited = _rate_bps(model, node, to) < float("inf")
        sent.append(
            {
                "to": to,
                "transfers": link.transfers,
                "bits": link.bits,
                "asked_s": link.asked_ns / NS_PER_S if limited else None,
                "timed_asked_s": link.timed_asked_ns / NS_PER_S,
                "timed_s": link.timed_ns / NS_PER_S,
                "asked_latency_s": link.delay_ns / link.delays / NS_PER_S if link.delays else None,
            }
        )
    waited_share = None
    if after.waited_s is not None and before.waited_s is not None:
        waited_s = after.waited_s - before.waited_s
        runnable_s = after.ran_s - before.ran_s + waited_s
        waited_share = waited_s / max(runnable_s, (after.at_s - before.at_s) / 2)
    total = after.total - before.total
    lateness = lateness_ns.quantile(0.99)
    return {
        "node": node,
        "sent": sent,
        "heard": [
            {"from": sender, "messages": samples.count, "late_s": (samples.quantile(0.5) or 0.0) / NS_PER_S}
            for sender, samples in sorted(heard.items())
        ],
        "timer_lateness_ms_p99": None if lateness is None else lateness / _MS,
        "waited_share": waited_share,
        "busy_share": (after.busy - before.busy) / total if total else None,
        "stolen_share": (after.stolen - before.stolen) / total if total else None,
    }


def _rate_bps(model: NetworkModel, i: int, j: int) -> float:
    limits = [float(model.uplink_bps[i])]
    if model.contention == "both":
        limits.append(float(model.downlink_bps[j]))
    if model.pair_bps is not None:
        limits.append(float(model.pair_bps[i, j]))
    return min(limits)


def merge(accounts: Iterable[Mapping[str, Any]], n: int, lost: int = 0) -> dict[str, Any]:
    """The content of a job's ``fidelity.json``.

    Args:
        accounts: of the nodes that gave one.
        n: number of nodes of the job.
        lost: how many of them the others went on without; no account is missed of those.

    Returns:
        ``verdict``, ``reasons``, ``rate_error_median`` (relative), ``latency_error_ms_median``,
        ``timer_lateness_ms_p99`` (of the worst node), ``cpu_saturation`` (busy share of the cores),
        ``cpu_waited`` (share of its time that the worst node waited for a core), and ``links``.
        None where nothing was measured.
    """
    accounts = sorted(accounts, key=lambda account: int(account["node"]))
    links = _links(accounts)
    # Signed: noise of single links cancels, what all of them have in common does not.
    ratios = [(link.pop("ratio"), link["transfers"]) for link in links]
    lates_s = [(link.pop("late_s"), link.pop("messages")) for link in links]
    ratio, late_s = _median(ratios), _median(lates_s)
    measured = {
        "rate_error_median": None if ratio is None else abs(ratio - 1),
        "latency_error_ms_median": None if late_s is None else abs(late_s) * 1000,
        "timer_lateness_ms_p99": _most(account["timer_lateness_ms_p99"] for account in accounts),
        "cpu_saturation": _most(account["busy_share"] for account in accounts),
        "cpu_waited": _most(account["waited_share"] for account in accounts),
        "cpu_stolen": _most(account["stolen_share"] for account in accounts),
    }
    reasons = list(_reasons(measured))
    verdict = NOT_TRUSTWORTHY if reasons else TRUSTWORTHY
    if not reasons and measured["latency_error_ms_median"] is None:
        verdict, reasons = NOT_CHECKED, ["no message was transferred, so nothing could be measured"]
    elif not reasons and len(accounts) < n - lost:
        verdict = NOT_CHECKED
        reasons = [f"{n - lost - len(accounts)} of {n} nodes ended without an account of how they kept time"]
    return {"verdict": verdict, "reasons": reasons, **measured, "links": links}


def _links(accounts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    late = {
        (heard["from"], account["node"]): (heard["late_s"], heard["messages"])
        for account in accounts
        for heard in account["heard"]
    }
    links = []
    for account in accounts:
        for sent in account["sent"]:
            late_s, messages = late.get((account["node"], sent["to"]), (None, 0))
            asked_s, latency_s = sent["asked_s"], sent["asked_latency_s"]
            asked_bps = sent["bits"] / asked_s if asked_s else None
            timed_asked_s = sent["timed_asked_s"]
            ratio = None
            if asked_bps and timed_asked_s:
                ratio = timed_asked_s / max(sent["timed_s"], timed_asked_s / _MOST_RATIO)
            known = late_s is not None and latency_s is not None
            links.append(
                {
                    "node": account["node"],
                    "to": sent["to"],
                    "asked_bps": asked_bps,
                    "achieved_bps": asked_bps * ratio if asked_bps and ratio else None,
                    "asked_latency_s": latency_s,
                    "achieved_latency_s": latency_s + late_s if known else None,
                    "transfers": sent["transfers"],
                    "ratio": ratio,
                    "late_s": late_s,
                    "messages": messages,
                }
            )
    return links


def _reasons(measured: Mapping[str, float | None]) -> Iterable[str]:
    """One sentence for each promise that was not kept."""
    rate, latency_ms, lateness_ms, busy, waited, stolen = measured.values()
    fewer = "use fewer nodes, fewer other processes, or the virtual clock"
    if rate is not None and rate > RATE_ERROR:
        yield (
            f"the median link's rate was off by {rate:.1%} of what was asked, at most {RATE_ERROR:.0%} is "
            f"trusted; ask for lower rates, or use the virtual clock"
        )
    if latency_ms is not None and latency_ms > LATENCY_ERROR_MS:
        yield (
            f"the median message came {latency_ms:.1f} ms off its time, at most {LATENCY_ERROR_MS:g} ms is "
            f"trusted; ask for lower rates, or {fewer}"
        )
    if lateness_ms is not None and lateness_ms > LATENESS_MS:
        yield (
            f"timers of a node fired up to {lateness_ms:.1f} ms late (99th percentile), at most "
            f"{LATENESS_MS:g} ms is trusted; {fewer}"
        )
    if waited is not None and waited > WAITED_SHARE:
        yield (
            f"a node waited for a core in {waited:.0%} of the time in which it could have run, at most "
            f"{WAITED_SHARE:.0%} is trusted; {fewer}"
        )
    if waited is None and busy is not None and busy > BUSY_SHARE:
        yield f"the cores were busy for {busy:.0%} of the time, at most {BUSY_SHARE:.0%} is trusted; {fewer}"
    if stolen is not None and stolen > STOLEN_SHARE:
        yield (
            f"the hypervisor gave {stolen:.0%} of the cores' time to others, at most {STOLEN_SHARE:.0%} is "
            f"trusted; use another machine, or the virtual clock"
        )


def _median(weighted: Sequence[tuple[float | None, int]]) -> float | None:
    """The value of the middle transfer, each link's transfers having the link's value."""
    known = sorted((value, weight) for value, weight in weighted if value is not None and weight)
    half = sum(weight for _, weight in known) / 2
    for value, weight in known:
        half -= weight
        if half <= 0:
            return value
    return None


def _most(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)
