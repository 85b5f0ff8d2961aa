"""How figures look: one colour and marker per arm, legible in print, in grey and to colour-blind readers."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

Format: TypeAlias = Literal["png", "pdf", "svg"]

# Okabe and Ito's palette without its yellow, which is too faint for lines on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
GREY = "#555555"
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


def new_figure(panels: int = 1, height: float = 3.15) -> tuple[Figure, list[Axes]]:
    """An empty figure, 5.6 inches wide, with ``panels`` axes side by side."""
    with mpl.rc_context(_RC):
        figure = Figure(figsize=(5.6, height), layout="constrained")
        axes = figure.subplots(1, panels, squeeze=False)
    return figure, list(axes[0])


def draw_curve(
    axes: Axes,
    table: pd.DataFrame,
    x: str,
    y: str,
    style: ArmStyle,
    *,
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
        scale: what ``y`` is multiplied with.
        dashed: draw a secondary curve.
    """
    across = table[x].to_numpy(dtype=np.float64)
    mean = table[y].to_numpy(dtype=np.float64) * scale
    half = table[f"{y}_ci"].to_numpy(dtype=np.float64) * scale
    whole = (table["n"] == table["n"].max()).to_numpy()
    every = max(1, len(across) // 8)
    look: dict[str, Any] = {"color": style.color, "solid_capstyle": "round"}
    if dashed:
        look |= {"linestyle": (0, (4, 2)), "linewidth": 1.2}
    else:
        look |= {
            "marker": style.marker,
            "markevery": every,
            "markeredgecolor": "white",
            "markeredgewidth": 0.5,
        }
    axes.plot(across, np.where(whole, mean, np.nan), **look)
    if not whole.all():
        # With its neighbours, so that the dotted line meets the solid one.
        fewer = np.pad(~whole, 1)
        joined = fewer[:-2] | fewer[1:-1] | fewer[2:]
        axes.plot(across, np.where(joined, mean, np.nan), color=style.color, linestyle=":", linewidth=1.1)
    if not dashed:
        low, high = (np.where(whole, mean + sign * half, np.nan) for sign in (-1, 1))
        axes.fill_between(across, low, high, color=style.color, alpha=0.16, linewidth=0)


def fit_y(axes: Axes) -> None:
    """Fit the y axis to the curves; a band (two seeds give wide ones) may widen it by at most a half."""
    curves = [_finite(line.get_ydata()) for line in axes.get_lines()]
    values = np.concatenate(curves) if curves else np.array([])
    if not len(values):
        return
    low, high = float(values.min()), float(values.max())
    span = high - low
    if span <= 1e-9 * max(abs(low), abs(high)):
        # A flat curve: its rounding errors are not worth an axis.
        span = abs(high) or 1.0
    bands = [
        _finite(np.asarray(path.vertices)[:, 1]) for band in axes.collections for path in band.get_paths()
    ]
    reach = np.concatenate(bands) if bands else values
    bottom, top = (max(float(reach.min()), low - span / 2), min(float(reach.max()), high + span / 2))
    axes.set_ylim(min(low, bottom) - 0.05 * span, max(high, top) + 0.05 * span)


def log_y(axes: Axes) -> bool:
    """Switch to a log axis where all values are positive and span more than a factor of 30."""
    values = np.concatenate([_finite(line.get_ydata()) for line in axes.get_lines()] or [np.array([])])
    if not len(values) or values.min() <= 0 or values.max() < 30 * values.min():
        return False
    axes.set_yscale("log")
    return True


def _finite(values: Any) -> npt.NDArray[np.float64]:
    numbers = np.asarray(values, dtype=np.float64)
    return numbers[np.isfinite(numbers)]


def round_axis(axes: Axes) -> None:
    """Label the x axis for local rounds: whole numbers only."""
    axes.set_xlabel("local rounds")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))


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
