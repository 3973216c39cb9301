"""Histograms of confidences, split where Known, Mixed and Unknown part."""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from inbol_jax.pages.figures import GOOD, NEUTRAL, STYLE

INK = "#33383f"
BOUNDARY_COLOURS = {"Unknown": "#e69f00", "Mixed": NEUTRAL, "Known": GOOD}


@matplotlib.rc_context(STYLE)
def confidence_histograms(
    confidences: Mapping[str, Sequence[float | int]], thresholds: tuple[float, float]
) -> Figure:
    """Histograms of confidences with the thresholds and the shares of Unknown, Mixed and Known.

    Args:
      confidences: {title of the panel: confidences in [0, 1] of its answerable questions}.
      thresholds: (delta_uk, delta_k); Unknown is c <= delta_uk, Known is c >= delta_k.
    """
    figure = Figure(figsize=(3 * max(len(confidences), 2) + 0.6, 3.2), layout="constrained")
    for index, (title, numbers) in enumerate(confidences.items()):
        axes = figure.add_subplot(1, len(confidences), index + 1)
        c = np.round(np.asarray(numbers, np.float64), 9)
        _draw_panel(axes, c, thresholds)
        axes.set_title(f"{title} (n = {len(c)})", fontsize=9)
        if index == 0:
            axes.set_ylabel("share of questions")
    return figure


def _draw_panel(axes: Axes, c: np.ndarray, thresholds: tuple[float, float]) -> None:
    delta_uk, delta_k = thresholds
    classes = {
        "Unknown": c <= delta_uk,
        "Mixed": (c > delta_uk) & (c < delta_k),
        "Known": c >= delta_k,
    }
    # Bars are stacked by class: a threshold falls on a possible confidence, the middle of a bar.
    bottom, edges = np.zeros(11), np.linspace(-0.05, 1.05, 12)
    for name, members in classes.items():
        heights = np.histogram(c[members], edges)[0] / max(len(c), 1)
        axes.bar(np.arange(11) / 10, heights, 0.085, bottom, color=BOUNDARY_COLOURS[name])
        bottom += heights
    top = max(float(bottom.max()), 0.01) * 1.42
    axes.set_ylim(0, top)
    axes.set_xlim(-0.08, 1.08)
    # The names stand at two heights, because the thresholds may be close.
    _mark_threshold(axes, "δ_uk", delta_uk, 0.82, top)
    _mark_threshold(axes, "δ_k", delta_k, 0.76, top)
    middle = min(max((delta_uk + delta_k) / 2, 0.35), 0.65)
    places = ((-0.05, "left"), (middle, "center"), (1.05, "right"))
    bold = {"fontsize": 8, "fontweight": "bold", "color": INK}
    for (place, side), (name, members) in zip(places, classes.items(), strict=True):
        share = members.mean() if len(c) else 0.0
        axes.text(place, 0.985 * top, f"{name}\n{share:.0%}", ha=side, va="top", **bold)
    axes.set_xticks(np.arange(0, 11, 2) / 10)
    axes.grid(False, axis="x")
    axes.set_xlabel("confidence c(x)")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def _mark_threshold(axes: Axes, name: str, value: float, height: float, top: float) -> None:
    """Draws a threshold as a dashed line, with its name beside it, where the axes have room."""
    line = {"color": INK, "linewidth": 1, "linestyle": (0, (4, 3))}
    axes.axvline(value, ymax=height + 0.03, **line)
    axes.annotate(
        f"{name} = {value:g}",
        (value, height * top),
        (3 if value < 0.75 else -3, 0),
        textcoords="offset points",
        fontsize=7.5,
        va="center",
        ha="left" if value < 0.75 else "right",
    )
