"""Histograms of confidences, split where Known, Mixed and Unknown part."""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from inbol_jax.pages.figures import GOOD, NEUTRAL, STYLE

BOUNDARY_COLOURS = {"Unknown": "#e69f00", "Mixed": NEUTRAL, "Known": GOOD}


@matplotlib.rc_context(STYLE)
def confidence_histograms(
    confidences: Mapping[str, Sequence[float | int]], thresholds: tuple[float, float]
) -> Figure:
    """How often each confidence occurs, with the thresholds, and the shares of Unknown, Mixed and
    Known.

    Args:
      confidences: {title of the panel: confidences in [0, 1] of its answerable questions}.
      thresholds: (delta_uk, delta_k); Unknown is c <= delta_uk, Known is c >= delta_k.
    """
    delta_uk, delta_k = thresholds
    figure = Figure(figsize=(3 * max(len(confidences), 2) + 0.6, 3.2), layout="constrained")
    edges = np.linspace(-0.05, 1.05, 12)
    for index, (title, numbers) in enumerate(confidences.items()):
        axes = figure.add_subplot(1, len(confidences), index + 1)
        c = np.round(np.asarray(numbers, np.float64), 9)
        classes = {
            "Unknown": c <= delta_uk,
            "Mixed": (c > delta_uk) & (c < delta_k),
            "Known": c >= delta_k,
        }
        # stacked by class, because a threshold falls on a possible confidence, in the middle of a
        # bar
        bottom = np.zeros(11)
        for name, members in classes.items():
            heights = np.histogram(c[members], edges)[0] / max(len(c), 1)
            axes.bar(np.arange(11) / 10, heights, 0.085, bottom, color=BOUNDARY_COLOURS[name])
            bottom += heights
        top = max(float(bottom.max()), 0.01) * 1.42
        axes.set_ylim(0, top)
        axes.set_xlim(-0.08, 1.08)
        for threshold, name, height in (
            (delta_uk, "δ_uk", 0.82),
            (delta_k, "δ_k", 0.76),
        ):  # two heights: they may be close
            axes.axvline(
                threshold, ymax=height + 0.03, color="#33383f", linewidth=1, linestyle=(0, (4, 3))
            )
            offset, side = ((3, 0), "left") if threshold < 0.75 else ((-3, 0), "right")
            place = (threshold, height * top)
            axes.annotate(
                f"{name} = {threshold:g}",
                place,
                offset,
                textcoords="offset points",
                fontsize=7.5,
                va="center",
                ha=side,
            )
        middle = min(max((delta_uk + delta_k) / 2, 0.35), 0.65)
        places = ((-0.05, "left"), (middle, "center"), (1.05, "right"))
        for (place, side), (name, members) in zip(places, classes.items(), strict=True):
            share = members.mean() if len(c) else 0.0
            axes.text(
                place,
                0.985 * top,
                f"{name}\n{share:.0%}",
                ha=side,
                va="top",
                fontsize=8,
                fontweight="bold",
                color="#33383f",
            )
        axes.set_title(f"{title} (n = {len(c)})", fontsize=9)
        axes.set_xticks(np.arange(0, 11, 2) / 10)
        axes.grid(False, axis="x")
        axes.set_xlabel("confidence c(x)")
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        if index == 0:
            axes.set_ylabel("share of questions")
    return figure
