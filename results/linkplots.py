"""Figures of the emulated network: what became of attempted bytes, and how busy uplinks were."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from results.delivery import ALIKE, FAST, SLOW, UNLIMITED, accounting_over_seeds, uplinks_by_class
from results.panels import by_arm
from results.read import Run
from results.style import GREY, arm_styles, new_figure, patch_legend

# Okabe and Ito again; greys for what no rule of an algorithm or a network decided.
_FATES = {
    "delivered": ("delivered", "#0072B2"),
    "replaced": ("replaced", "#56B4E9"),
    "dropped_flush": ("dropped: flush", "#E69F00"),
    "dropped_abort": ("dropped: abort", "#D55E00"),
    "dropped_loss": ("dropped: loss", "#CC79A7"),
    "dropped_end": ("dropped: end", "#777777"),
    "dropped_lost_node": ("dropped: lost node", "#009E73"),
    "in_flight": ("in flight at the end", "#C8C8C8"),
}
_MARKERS = {UNLIMITED: "D", FAST: "o", ALIKE: "o", SLOW: "v"}
_SHIFTS = {UNLIMITED: 0.18, FAST: 0.18, ALIKE: 0.0, SLOW: -0.18}


def fate_bars(run: Run) -> Figure | None:
    """Shares of the attempted payload bytes that were delivered, replaced, dropped and in flight, per arm."""
    table = accounting_over_seeds(run)
    table = table[table["made_bytes"] > 0].set_index("arm")
    if table.empty or table["made_bytes"].equals(table["delivered_bytes"]):
        return None
    styles = {arm: style for arm, style in arm_styles(run.arms).items() if arm in table.index}
    present = {name: look for name, look in _FATES.items() if (table[f"{name}_bytes"] > 0).any()}
    figure, (axes,) = new_figure(height=1.2 + 0.36 * len(styles))
    for place, arm in enumerate(reversed(styles)):
        row = table.loc[[arm]].iloc[0]
        left = 0.0
        for name, (_, color) in present.items():
            share = 100.0 * float(row[f"{name}_bytes"] / row["made_bytes"])
            axes.barh(place, share, left=left, height=0.6, color=color, edgecolor="white", linewidth=0.6)
            left += share
        total = row["made_bytes"] / row["nodes"] / 1e6
        axes.annotate(
            f"{total:,.3g} MB" if total < 1000 else f"{total / 1000:,.3g} GB",
            (101.5, place),
            va="center",
            fontsize=8,
        )
    axes.set_yticks(range(len(styles)), [style.label for style in reversed(styles.values())])
    axes.set_ylim(-0.5, len(styles) - 0.5)
    axes.set_xlim(0.0, 117.0)
    axes.set_xticks(range(0, 101, 20))
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("share of attempted payload (%)   |   attempted per node")
    handles = [Patch(facecolor=color, label=label) for label, color in present.values()]
    patch_legend(figure, handles, min(4, len(handles)))
    return figure


def utilisation_of_uplinks(run: Run) -> Figure | None:
    """Busy share of every node's uplink, one row per arm, fast and slow uplinks apart; a bar is the mean."""
    table = uplinks_by_class(run).dropna(subset=["utilisation"])
    if table["rate_bps"].isna().all():
        return None
    rows = list(by_arm(run, table))
    classes = [name for name in _MARKERS if (table["rate_class"] == name).any()]
    figure, (axes,) = new_figure(height=1.05 + 0.45 * len(rows))
    for place, (_, style, part) in enumerate(reversed(rows)):
        for name in classes:
            busy = 100.0 * part.loc[part["rate_class"] == name, "utilisation"].to_numpy(dtype=np.float64)
            if not len(busy):
                continue
            middle = place + _SHIFTS[name]
            # Golden-ratio steps spread dots evenly without a random draw.
            shift = ((np.arange(len(busy)) * 0.6180339887) % 1.0 - 0.5) * 0.22
            face = "white" if name == SLOW else style.color
            axes.plot(
                busy,
                middle + shift,
                _MARKERS[name],
                color=style.color,
                markerfacecolor=face,
                markersize=3.6,
                markeredgewidth=0.8,
                alpha=0.7,
                clip_on=False,
            )
            axes.plot(
                [busy.mean()] * 2, [middle - 0.17, middle + 0.17], color="#111111", linewidth=2.0, zorder=4
            )
    axes.set_yticks(range(len(rows)), [style.label for _, style, _ in reversed(rows)])
    axes.set_ylim(-0.5, len(rows) - 0.5)
    axes.set_xlim(0.0, 100.0)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("utilisation of a node's uplink (% of the run)")
    if classes != [ALIKE]:
        handles = [
            Line2D(
                [],
                [],
                color=GREY,
                linestyle="",
                marker=_MARKERS[name],
                markerfacecolor="white" if name == SLOW else GREY,
                markersize=4.5,
                label=f"{name} uplinks",
            )
            for name in classes
        ]
        patch_legend(figure, handles)
    return figure
