"""The figures of a report: numbers in, a matplotlib `Figure` out, without pyplot's global state.

The colours are Okabe and Ito's, which colour-blind readers tell apart; the markers differ as well.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from inbol_jax.evaluation.labels import signed
from inbol_jax.evaluation.metrics import ConfidenceBin, Scores, Summary
from inbol_jax.pages.figures import BAD, GOOD, MINUS, NEUTRAL, STYLE

# Training stage -> rows of {"step": int, "loss": float, ...}
Curves = Mapping[str, Sequence[Mapping[str, Any]]]

MODEL_COLOURS = ("#5f6670", "#0072b2", "#c04e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MODEL_MARKERS = "osD^vPX"
PANELS = {
    "type1": "Type 1: known, so answer",
    "mixed": "Mixed: between the two thresholds",
    "type2": "Type 2: unknown, so refuse",
    "type3": "Type 3: not in the image, so refuse",
}
CURVES = {
    "loss": "loss",
    "reward_margin": "reward margin (nats)",
    "reward_accuracy": "reward accuracy",
}


@matplotlib.rc_context(STYLE)
def confidence_curves(bins: Mapping[str, Sequence[ConfidenceBin]]) -> Figure:
    """Figure 4 of the paper: refusal rate and answered accuracy by confidence, with Wilson bands.

    Args:
      bins: {model: its bins, which have the same edges for all models}.
    """
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for index, (model, model_bins) in enumerate(bins.items()):
        centres = [(b.low + b.high) / 2 for b in model_bins]
        colour = MODEL_COLOURS[index % len(MODEL_COLOURS)]
        marker = MODEL_MARKERS[index % len(MODEL_MARKERS)]
        rates = (
            (left, [b.refr for b in model_bins]),
            (right, [b.answered_acc for b in model_bins]),
        )
        for axes, estimates in rates:
            # f64[n] each; None becomes NaN, which matplotlib leaves out
            y, low, high = np.array(estimates, np.float64).T
            axes.fill_between(centres, low, high, color=colour, alpha=0.12, linewidth=0)
            style = {"color": colour, "marker": marker, "markersize": 4.5, "linewidth": 1.8}
            axes.plot(centres, y, **style, clip_on=False, label=_short(model))
    first = next(iter(bins.values()))
    centres = [(b.low + b.high) / 2 for b in first]
    names = [f"{b.low:g} to {b.high:g}\n" for b in first]
    # Every model was asked the same questions, but they answered different ones.
    left.set_xticks(centres, [f"{name}n = {b.n}" for name, b in zip(names, first, strict=True)])
    right.set_xticks(centres, [f"{name} " for name in names])
    left.set_title("(a) Refusal rate by confidence")
    right.set_title("(b) Answered accuracy by confidence")
    for axes in (left, right):
        axes.set_xlim(first[0].low, first[-1].high)
        axes.set_ylim(0, 1)
        axes.set_xlabel("confidence c(x) of the base model")
        axes.grid(False, axis="x")
        axes.yaxis.set_major_formatter(_percent)
    figure.legend(handles=left.lines, loc="outside upper center", ncols=min(len(bins), 5))
    return figure


@matplotlib.rc_context(STYLE)
def training_curves(curves: Curves) -> Figure:
    """Loss by step of every stage, and the implicit rewards of DPO if a stage logs them."""
    panels = []
    for stage, rows in curves.items():
        panels += [(stage, name) for name in CURVES if any(name in row for row in rows)]
    columns = min(max(len(panels), 1), 4)
    height = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(max(2.6 * columns, 5.2), 2.4 * max(height, 1)), layout="constrained")
    for index, (stage, name) in enumerate(panels):
        axes = figure.add_subplot(height, columns, index + 1)
        points = [(row["step"], row[name]) for row in curves[stage] if name in row]
        points = np.array(points, np.float64)  # [n, 2]
        step, y = points[np.isfinite(points).all(axis=1)].T
        window = len(y) // 15
        if window < 2:
            axes.plot(step, y, color=GOOD, linewidth=1.6)
        else:  # the steps thin, and their running mean, drawn at the middle of its window
            axes.plot(step, y, color=GOOD, linewidth=0.7, alpha=0.35)
            smooth = np.convolve(y, np.ones(window) / window, "valid")
            axes.plot(step[(window - 1) // 2 :][: len(smooth)], smooth, color=GOOD, linewidth=1.8)
        axes.set_title(f"{stage}: {CURVES[name]}", fontsize=9)
        axes.set_xlabel("step")
        if name == "reward_accuracy":
            axes.set_ylim(0, 1.02)
            axes.axhline(0.5, color="#8a9099", linewidth=0.8, linestyle=":")
            axes.yaxis.set_major_formatter(_percent)
    return figure


@matplotlib.rc_context(STYLE)
def summary_bars(models: Summary, domain: str = "in_domain") -> Figure:
    """What every model does with each type of question, coloured by its worth to the user."""
    figure = Figure(figsize=(9, 1.75 + 0.62 * len(models)), layout="constrained")
    grid = figure.subplots(2, 2, sharex=True, sharey=True)
    for axes, (group, title) in zip(grid.flat, PANELS.items(), strict=True):
        cells = [domains[domain][group] for domains in models.values()]
        for y, cell in enumerate(cells):
            if cell.n:
                _bar(axes, y, _parts(cell, type3=group == "type3"))
                axes.text(1.015, y, f"T {signed(cell.t, 2)}", va="center", fontsize=8.5)
            else:
                axes.text(0.01, y, "no questions", va="center", fontsize=8, color="#5f6670")
        axes.set_title(f"{title} (n = {cells[0].n})", fontsize=9)
        axes.set_yticks(range(len(models)), [_short(model) for model in models])
        axes.tick_params(length=0)
        axes.grid(False)
        axes.spines[:].set_visible(False)
        axes.xaxis.set_visible(False)
        axes.set_xlim(0, 1.2)
        axes.set_ylim(len(models) - 0.5, -0.5)
    worth = (
        ("+1  correct, or refused on Type 3", GOOD),
        ("0  refused", NEUTRAL),
        (f"{MINUS}1  wrong, or answered on Type 3", BAD),
    )
    handles = [Patch(color=colour, label=label) for label, colour in worth]
    figure.legend(
        handles=handles, loc="outside upper center", ncols=3, handlelength=1.1, handleheight=1.0
    )
    return figure


Parts = Sequence[tuple[str, float, str]]  # name, share and colour


def _parts(cell: Scores, *, type3: bool) -> Parts:
    """The shares of a bar, which add up to 1."""
    if type3:
        return ("refused", cell.refr, GOOD), ("answered", 1 - cell.refr, BAD)
    wrong = 1 - cell.acc - cell.refr
    return ("correct", cell.acc, GOOD), ("refused", cell.refr, NEUTRAL), ("wrong", wrong, BAD)


def _bar(axes: Axes, y: int, parts: Parts) -> None:
    """One bar. A wide part is labelled with name and number, a narrower one with its number."""
    left = 0.0
    for name, share, colour in parts:
        axes.barh(y, share, 0.72, left, color=colour, edgecolor="white", linewidth=0.8)
        if share >= 0.065:
            number = f"{share:.0%}"
            text = f"{name} {number}"
            text = text if share >= 0.024 * len(text) else number
            ink = "#1d2127" if colour == NEUTRAL else "white"
            axes.text(left + share / 2, y, text, ha="center", va="center", fontsize=8, color=ink)
        left += share


def _percent(fraction: float, _position: int | None = None) -> str:
    return f"{fraction:.0%}"


def _short(model: str) -> str:
    """A model's name, without its middle if it is long: checkpoints' names differ at their ends."""
    return model if len(model) <= 20 else f"{model[:9]}…{model[-10:]}"
