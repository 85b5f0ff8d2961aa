"""Computation and transfers of a few nodes over the first rounds, as in DivShare's Figure 3."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from results.metrics import JOB
from results.read import Run
from results.style import arm_styles, new_figure, patch_legend
from results.tables import time_label

ROUNDS = 4
_COMPUTE, _WAIT, _CUT, _LOST, _MARK = "#555555", "#E2E2E2", "#D55E00", "#CC79A7", "#000000"
# By the parity of the round in which a message was made, so that stale ones stand out.
_ROUNDS = ("#0072B2", "#56B4E9")
_BOTTOM, _MIDDLE, _TOP = -0.40, 0.04, 0.36

Spans = npt.NDArray[np.float64]


def timeline(run: Run) -> Figure | None:
    """One panel per arm, its first seed with transfers: nodes with the fastest and the slowest uplinks.

    Upper bars of a node are compute windows and, light, waiting for others; lower bars are transfers in
    progress on its uplink. None where no transfer took any time.
    """
    shown = run.network.transfers
    shown = shown[shown["end_s"] > shown["start_s"]]
    if shown.empty:
        return None
    seeds = shown.groupby("arm", observed=True, sort=True)["seed"].min()
    panels = [(arm, style, int(seeds[arm])) for arm, style in arm_styles(run.arms).items() if arm in seeds]
    end = min(_horizon(run), float(shown["end_s"].max()))
    most = 6 if len(panels) <= 2 else 4 if len(panels) <= 4 else 2
    chosen = [shown_nodes(_of(run.network.uplinks, arm, seed), most) for arm, _, seed in panels]
    height = 0.85 + sum(0.42 + 0.36 * len(nodes) for nodes in chosen)
    figure, all_axes = new_figure(len(panels), height, stacked=True)
    marks = False
    for axes, (arm, style, seed), nodes in zip(all_axes, panels, chosen, strict=True):
        rounds, transfers = _of(run.rounds, arm, seed), _of(shown, arm, seed)
        for place, node in enumerate(reversed(nodes.index)):
            _draw_computation(axes, place, rounds[rounds["node"] == node], end)
            marks = _draw_drops(axes, place, rounds[rounds["node"] == node], end) or marks
            _draw_transfers(axes, place, transfers[transfers["node"] == node], end)
        axes.set_yticks(range(len(nodes)), [_label(node, nodes[node]) for node in reversed(nodes.index)])
        axes.set_ylim(-0.55, len(nodes) - 0.4)
        axes.set_xlim(0.0, end)
        axes.grid(visible=False, axis="y")
        axes.set_title(style.label, loc="left", fontsize=8.5, fontweight="bold", pad=3)
    all_axes[-1].set_xlabel(time_label(run))
    patch_legend(figure, _handles(run, shown, marks), 3)
    return figure


def compute_windows(rounds: pd.DataFrame) -> tuple[Spans, Spans]:
    """Begin and end of every compute window and of every wait after it, each of shape (rounds, 2), seconds.

    A window is ``[time_s - wait_s - train_s, time_s - wait_s]``; the wait follows it.
    """
    ends = rounds["time_s"].to_numpy(dtype=np.float64)
    trained = ends - rounds["wait_s"].fillna(0.0).to_numpy(dtype=np.float64)
    begins = trained - rounds["train_s"].to_numpy(dtype=np.float64)
    return np.column_stack([begins, trained]), np.column_stack([trained, ends])


def shown_nodes(uplinks: pd.DataFrame, most: int) -> pd.Series[float]:
    """Up to ``most`` nodes, half with the fastest and half with the slowest uplinks; rate in bit/s by node.

    Fastest first, then by number; an unlimited uplink is faster than any.
    """
    rates = uplinks.drop_duplicates("node").set_index("node")["rate_bps"].astype(np.float64).fillna(np.inf)
    ordered = rates.sort_index().sort_values(ascending=False, kind="stable")
    if len(ordered) <= most:
        return ordered
    slow = rates.sort_index().sort_values(kind="stable").iloc[: most // 2]
    fast = ordered.drop(slow.index).iloc[: most - most // 2]
    return pd.concat([fast, slow.sort_values(ascending=False, kind="stable")])


def lanes(spans: Spans) -> npt.NDArray[np.int64]:
    """The lowest free lane for every span (begin, end), ascending by begin: none overlap in a lane."""
    free: list[float] = []
    taken = []
    for begin, end in spans:
        lane = next((i for i, until in enumerate(free) if until <= begin), len(free))
        free[lane : lane + 1] = [end]
        taken.append(lane)
    return np.array(taken, dtype=np.int64)


def merged(spans: Spans, gap: float) -> Spans:
    """Spans, ascending by begin, with those joined that are at most ``gap`` apart."""
    if not len(spans):
        return spans
    reach = np.maximum.accumulate(spans[:, 1])
    starts = np.flatnonzero(np.concatenate([[True], spans[1:, 0] > reach[:-1] + gap]))
    stops = np.concatenate([starts[1:], [len(spans)]]) - 1
    return np.column_stack([spans[starts, 0], reach[stops]])


def _horizon(run: Run) -> float:
    """Seconds of the first rounds: nominal ones where the log says how long they are, else measured ones."""
    nominal = [
        value for header in run.network.headers.values() for value in _positive(header.get("compute_s"))
    ]
    if nominal:
        # Not longer: transfers that begin later are not in the log.
        return ROUNDS * float(np.median(nominal))
    ends = run.rounds.loc[run.rounds["round"] <= ROUNDS].groupby(JOB, observed=True)["time_s"].max()
    return float(ends.max()) if len(ends) else np.inf


def _positive(values: object) -> list[float]:
    return [v for v in values if isinstance(v, int | float) and v > 0] if isinstance(values, list) else []


def _of(frame: pd.DataFrame, arm: str, seed: int) -> pd.DataFrame:
    return frame[(frame["arm"] == arm) & (frame["seed"] == seed)]


def _label(node: int, rate: float) -> str:
    return f"node {node}\n{'unlimited' if np.isinf(rate) else f'{rate / 1e6:.3g} Mbit/s'}"


def _draw_computation(axes: Axes, place: int, rounds: pd.DataFrame, end: float) -> None:
    computed, waited = compute_windows(rounds)
    for spans, color in ((computed, _COMPUTE), (waited, _WAIT)):
        seen = spans[(spans[:, 1] > spans[:, 0]) & (spans[:, 0] < end)]
        _bars(axes, seen, place + _MIDDLE + 0.02, _TOP - _MIDDLE - 0.02, color, edge="white")


def _draw_drops(axes: Axes, place: int, rounds: pd.DataFrame, end: float) -> bool:
    """Mark every end of a compute window at which messages were dropped from the queue, with their number."""
    ordered = rounds.sort_values("round")
    dropped = np.diff(ordered["dropped"].to_numpy(dtype=np.float64), prepend=0.0)
    ends = compute_windows(ordered)[0][:, 1]
    found = False
    for when, count in zip(ends, dropped, strict=True):
        if count > 0 and when <= end:
            found = True
            axes.plot(
                [when], [place + _TOP + 0.06], "v", color=_MARK, markersize=3.6, clip_on=False, zorder=5
            )
            axes.annotate(
                f"{count:.0f}",
                (when, place + _TOP + 0.06),
                xytext=(-4, 0),
                textcoords="offset points",
                ha="right",
                va="center",
                fontsize=6.3,
            )
    return found


def _draw_transfers(axes: Axes, place: int, transfers: pd.DataFrame, end: float) -> None:
    ordered = transfers[transfers["start_s"] < end].sort_values(["start_s", "end_s"], kind="stable")
    if ordered.empty:
        return
    spans = ordered[["start_s", "end_s"]].to_numpy(dtype=np.float64)
    lane = lanes(spans)
    height = (_MIDDLE - 0.02 - _BOTTOM) / (lane.max() + 1)
    # Bars too narrow to be told apart are drawn as one: the same picture in a fraction of the file.
    narrow = float(np.median(spans[:, 1] - spans[:, 0])) < end / 250
    colors = np.array(
        [_color(outcome, tag) for outcome, tag in zip(ordered["outcome"], ordered["tag"], strict=True)]
    )
    for number in np.unique(lane):
        for color in dict.fromkeys(colors):
            mine = spans[(lane == number) & (colors == color)]
            bars = merged(mine, end / 1000) if narrow else mine
            bottom = place + _MIDDLE - 0.02 - (number + 1) * height
            _bars(axes, bars, bottom, height, str(color), edge="none" if narrow else "white")


def _color(outcome: str, tag: float) -> str:
    if outcome == "aborted":
        return _CUT
    if outcome == "lost":
        return _LOST
    return _ROUNDS[int(tag) % 2] if np.isfinite(tag) else _ROUNDS[0]


def _bars(axes: Axes, spans: Spans, bottom: float, height: float, color: str, *, edge: str) -> None:
    if len(spans):
        widths = np.column_stack([spans[:, 0], spans[:, 1] - spans[:, 0]])
        pairs: Sequence[tuple[float, float]] = [(float(x), float(width)) for x, width in widths]
        axes.broken_barh(pairs, (bottom, height), facecolors=color, edgecolor=edge, linewidth=0.35)


def _handles(run: Run, transfers: pd.DataFrame, marks: bool) -> list[Patch | Line2D]:
    outcomes: Iterable[str] = set(transfers["outcome"])
    handles: list[Patch | Line2D] = [Patch(facecolor=_COMPUTE, label="computing")]
    if (run.rounds["wait_s"] > 0).any():
        handles.append(Patch(facecolor=_WAIT, label="waiting"))
    names = ("transfer: message of an even round", "of an odd round")
    handles += [Patch(facecolor=color, label=name) for color, name in zip(_ROUNDS, names, strict=True)]
    handles += [Patch(facecolor=_CUT, label="transfer cut off")] if "aborted" in outcomes else []
    handles += [Patch(facecolor=_LOST, label="transfer lost")] if "lost" in outcomes else []
    if marks:
        handles.append(
            Line2D([], [], linestyle="", marker="v", color=_MARK, markersize=4, label="messages dropped")
        )
    return handles
