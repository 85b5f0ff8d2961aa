"""How figures look: one colour and marker per arm, legible in print, in grey and to colour-blind readers."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

Format: TypeAlias = Literal["png", "pdf", "svg"]

# Okabe and Ito's palette without its yellow, which is too faint for lines on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
GREY = "#555555"
# So many seeds are drawn one by one; more would be a thicket, and their band is narrow enough to read.
SEEDS_DRAWN = range(2, 6)
_LONGEST_LABEL = 42
_ROW = 86
# Any, since the keys of rc_context are typed as a closed list.
_RC: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.labelsize": 9,
    "axes.linewidth": 0.8,
    "axes.edgecolor": "#333333",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "lines.linewidth": 1.7,
    "lines.markersize": 4.2,
    "pdf.fonttype": 42,
    # Without a salt the ids in an SVG are random, and the same run would never give the same report twice.
    "svg.hashsalt": "decentral",
    "svg.fonttype": "path",
}


@dataclass(frozen=True)
class ArmStyle:
    """Colour, marker and printable name of one arm, the same in all figures of a run."""

    label: str
    color: str
    marker: str


def arm_styles(arms: Sequence[str]) -> dict[str, ArmStyle]:
    """Styles by arm, in order; beyond seven arms colours come again with other markers."""
    return {
        arm: ArmStyle(printable(arm), PALETTE[i % len(PALETTE)], MARKERS[i % len(MARKERS)])
        for i, arm in enumerate(arms)
    }


def printable(text: str) -> str:
    """``text`` as a label: no markup, no characters that the font lacks, not too long."""
    font = font_manager.get_font(font_manager.findfont("DejaVu Sans"))
    # Matplotlib typesets what stands between two dollar signs, and hides labels that start with "_".
    shown = "".join(c if c.isprintable() and font.get_char_index(ord(c)) else "?" for c in text)
    if len(shown) > _LONGEST_LABEL:
        shown = shown[: _LONGEST_LABEL - 1] + "…"
    return (" " if shown.startswith("_") else "") + shown.replace("$", r"\$")


def new_figure(panels: int = 1, height: float = 3.15, *, stacked: bool = False) -> tuple[Figure, list[Axes]]:
    """An empty figure, 5.6 inches wide, with ``panels`` axes side by side, or ``stacked`` over one x axis."""
    rows, columns = (panels, 1) if stacked else (1, panels)
    with mpl.rc_context(_RC):
        figure = Figure(figsize=(5.6, height), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False, sharex=stacked)
    return figure, list(axes.flat)


def draw_curve(
    axes: Axes,
    table: pd.DataFrame,
    x: str,
    y: str,
    style: ArmStyle,
    *,
    seeds: pd.DataFrame | None = None,
    scale: float = 1.0,
    dashed: bool = False,
) -> None:
    """Draw one arm's mean over seeds, with the band of its t-interval unless ``dashed``.

    Args:
        axes: where to.
        table: ``metrics.across_seeds``, ascending in ``x``. Points to which fewer seeds came than elsewhere
            (a run was cut short) continue the curve as a thin dotted line without band.
        x: column.
        y: column; its half-width is ``<y>_ci``, NaN where there is one seed, and then there is no band.
        style: of the arm.
        seeds: what ``table`` is the mean of: seed, ``x`` and ``y``, ascending in ``x``. With 2 to 5 seeds
            each is drawn as a thin line, since an interval of so few says less than the values themselves.
        scale: what ``y`` is multiplied with.
        dashed: draw a secondary curve.
    """
    across = table[x].to_numpy(dtype=np.float64)
    mean = table[y].to_numpy(dtype=np.float64) * scale
    half = table[f"{y}_ci"].to_numpy(dtype=np.float64) * scale
    whole = (table["n"] == table["n"].max()).to_numpy()
    every = max(1, len(across) // 8)
    # fit_y puts whatever was measured inside the axes: only markers at 0 or 100 % reach over their edge.
    look: dict[str, Any] = {"color": style.color, "solid_capstyle": "round", "clip_on": False}
    if dashed:
        look |= {"linestyle": (0, (4, 2)), "linewidth": 1.2}
    else:
        look |= {
            "marker": style.marker,
            "markevery": every,
            "markeredgecolor": "white",
            "markeredgewidth": 0.5,
        }
    axes.plot(across, np.where(whole, mean, np.nan), zorder=3, **look)
    if not whole.all():
        # With its neighbours, so that the dotted line meets the solid one.
        fewer = np.pad(~whole, 1)
        joined = fewer[:-2] | fewer[1:-1] | fewer[2:]
        axes.plot(across, np.where(joined, mean, np.nan), color=style.color, linestyle=":", linewidth=1.1)
    if not dashed:
        low, high = (np.where(whole, mean + sign * half, np.nan) for sign in (-1, 1))
        axes.fill_between(across, low, high, color=style.color, alpha=0.09, linewidth=0, zorder=1)
    if seeds is not None and seeds["seed"].nunique() in SEEDS_DRAWN:
        lines = [rows[[x, y]].to_numpy(dtype=np.float64) * (1.0, scale) for _, rows in seeds.groupby("seed")]
        axes.add_collection(LineCollection(lines, colors=style.color, alpha=0.5, linewidths=0.7, zorder=2))


def fit_y(axes: Axes, lowest: float = -math.inf, highest: float = math.inf) -> None:
    """Fit the y axis to the lines, those of single seeds included; bands are cut where they leave it.

    Args:
        axes: with linear or logarithmic y axis.
        lowest: smallest possible value, beyond which the axis does not go; ignored where lines do.
        highest: largest possible value, likewise.
    """
    values = _measured(axes)
    if len(values):
        axes.set_ylim(limits(values, lowest, highest, log=axes.get_yscale() == "log"))


def limits(
    values: npt.NDArray[np.float64],
    lowest: float = -math.inf,
    highest: float = math.inf,
    *,
    log: bool = False,
) -> tuple[float, float]:
    """Ends of an axis for finite ``values``: 5 % of their span around them, within what is possible."""
    low, high = float(values.min()), float(values.max())
    if log:
        margin = (high / low) ** 0.05
        return low / margin, high * margin
    span = high - low
    if span <= 1e-9 * max(abs(low), abs(high)):
        # A flat curve: its rounding errors are not worth an axis.
        span = abs(high) or 1.0
    bottom, top = low - 0.05 * span, high + 0.05 * span
    # A mean of scores of 1 may be 1 + 2e-16.
    slack = 1e-9 * max(abs(low), abs(high))
    return (
        max(bottom, lowest) if low >= lowest - slack else bottom,
        min(top, highest) if high <= highest + slack else top,
    )


def log_y(axes: Axes) -> bool:
    """Switch to a log axis where all values are positive and span more than a factor of 30."""
    values = _measured(axes)
    if not len(values) or values.min() <= 0 or values.max() < 30 * values.min():
        return False
    axes.set_yscale("log")
    return True


def _measured(axes: Axes) -> npt.NDArray[np.float64]:
    """All finite y values of the lines in ``axes``: means and single seeds, not bands."""
    ys: list[Any] = [line.get_ydata() for line in axes.get_lines()]
    for lines in axes.collections:
        if isinstance(lines, LineCollection):
            ys += [np.asarray(path.vertices)[:, 1] for path in lines.get_paths()]
    return np.concatenate([np.array([]), *(_finite(y) for y in ys)])


def _finite(values: Any) -> npt.NDArray[np.float64]:
    numbers = np.asarray(values, dtype=np.float64)
    return numbers[np.isfinite(numbers)]


def round_axis(axes: Axes) -> None:
    """Label the x axis for local rounds: whole numbers only."""
    axes.set_xlabel("local rounds")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7, steps=[1, 2, 5, 10]))


def arm_legend(figure: Figure, styles: Sequence[ArmStyle]) -> None:
    """Put the arms above the axes, in one row where they fit."""
    with mpl.rc_context(_RC):
        handles = [
            Line2D([], [], color=style.color, marker=style.marker, markeredgecolor="white", label=style.label)
            for style in styles
        ]
        lengths = [len(style.label) + 7 for style in styles]
        columns = len(styles) if sum(lengths) <= _ROW else max(1, _ROW // max(lengths))
        figure.legend(
            handles=handles, loc="outside upper left", ncols=columns, columnspacing=1.4, handlelength=2.2
        )


def patch_legend(figure: Figure, handles: Sequence[Any], columns: int | None = None) -> None:
    """Put labelled ``handles`` above the axes, in one row unless ``columns`` says otherwise."""
    with mpl.rc_context(_RC):
        count = len(handles) if columns is None else columns
        figure.legend(
            handles=handles,
            loc="outside upper left",
            ncols=count,
            columnspacing=1.2,
            handlelength=1.3,
            fontsize=7.8,
        )


def line_legend(axes: Axes, lines: Sequence[tuple[Any, str]]) -> None:
    """Say in the emptiest corner of the axes what solid and dashed mean: (line style, meaning) pairs."""
    with mpl.rc_context(_RC):
        handles = [
            Line2D([], [], color=GREY, linestyle=look, linewidth=1.3, label=what) for look, what in lines
        ]
        legend = axes.legend(handles=handles, loc="best", fontsize=7.5, handlelength=2.6)
        legend.set_frame_on(True)
        legend.get_frame().set(facecolor="white", edgecolor="none", alpha=0.8)


def encode(figure: Figure, kind: Format) -> bytes:
    """The figure as a file; the same figure gives the same bytes."""
    metadata = {"png": {"Software": None}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}[kind]
    buffer = io.BytesIO()
    with mpl.rc_context(_RC):
        if figure.get_layout_engine() is not None:
            # Laid out once, not again for every format: it is the slowest part of drawing.
            figure.draw_without_rendering()
            figure.set_layout_engine("none")
        figure.savefig(buffer, format=kind, dpi=200, metadata=metadata)
    return buffer.getvalue()
