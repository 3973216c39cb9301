"""The figures of a report: numbers in, a matplotlib `Figure` out. No pyplot, so no global state and no display.

Colours are Okabe and Ito's, which colour-blind readers tell apart; models differ in their markers as well.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from inbol_jax.pages.figures import BAD, GOOD, MINUS, NEUTRAL, STYLE

Curves = Mapping[
    str, Sequence[Mapping[str, Any]]
]  # stage -> rows of {"step": int, "loss": float, ...}

MODEL_COLOURS = ("#5f6670", "#0072b2", "#c04e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MODEL_MARKERS = "osD^vPX"
PANELS = {
    "type1": "Type 1: known, so answer",
    "mixed": "Mixed: between the two thresholds",
    "type2": "Type 2: unknown, so refuse",
    "type3": "Type 3: not in the image, so refuse",
}


@matplotlib.rc_context(STYLE)
def confidence_curves(bins: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Figure 4 of the paper: refusal rate and answered accuracy by confidence, a line a model, with 95% Wilson bands.

    Args:
      bins: {model: metrics.by_confidence(...)}, all over the same edges.
    """
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    panels = (
        (left, "(a) Refusal rate by confidence", "refr", "refr"),
        (right, "(b) Answered accuracy by confidence", "answered_acc", "acc"),
    )
    first = next(iter(bins.values()), ())
    for axes, title, name, band in panels:
        for index, model_bins in enumerate(bins.values()):
            x = [(b["low"] + b["high"]) / 2 for b in model_bins]
            y, low, high = (
                _floats(b[key] for b in model_bins) for key in (name, f"{band}_low", f"{band}_high")
            )
            colour = MODEL_COLOURS[index % len(MODEL_COLOURS)]
            axes.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0)
            axes.plot(
                x,
                y,
                color=colour,
                marker=MODEL_MARKERS[index % len(MODEL_MARKERS)],
                markersize=4.5,
                linewidth=1.8,
                clip_on=False,
            )
        axes.set_title(title)
        # how many were asked is the same for every model, how many of them were answered is not
        counts = [f"\nn = {b['n']}" if axes is left else "\n " for b in first]
        names = [
            f"{b['low']:g} to {b['high']:g}{count}" for b, count in zip(first, counts, strict=True)
        ]
        axes.set_xticks([(b["low"] + b["high"]) / 2 for b in first], names)
        if first:
            axes.set_xlim(first[0]["low"], first[-1]["high"])
        axes.set_xlabel("confidence c(x) of the base model")
        axes.grid(False, axis="x")
        axes.set_ylim(0, 1)
        axes.yaxis.set_major_formatter(_percent)
    _model_legend(figure, list(bins))
    return figure


@matplotlib.rc_context(STYLE)
def training_curves(curves: Curves) -> Figure:
    """Loss by step for every stage, and the implicit rewards of DPO where a stage logs them.

    Args:
      curves: {stage: rows with "step" and float metrics}; of them "loss", "reward_margin" and "reward_accuracy" are drawn.
    """
    labels = {
        "loss": "loss",
        "reward_margin": "reward margin (nats)",
        "reward_accuracy": "reward accuracy",
    }
    panels = [
        (stage, name)
        for stage, rows in curves.items()
        for name in labels
        if any(name in row for row in rows)
    ]
    columns = min(max(len(panels), 1), 4)
    height = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(max(2.6 * columns, 5.2), 2.4 * max(height, 1)), layout="constrained")
    for index, (stage, name) in enumerate(panels):
        axes = figure.add_subplot(height, columns, index + 1)
        points = np.array(
            [(row["step"], row[name]) for row in curves[stage] if name in row], np.float64
        )
        step, y = points[np.isfinite(points).all(axis=1)].T
        window = len(y) // 15
        axes.plot(
            step,
            y,
            color=GOOD,
            linewidth=1.6 if window < 2 else 0.7,
            alpha=1 if window < 2 else 0.35,
        )
        if window >= 2:  # a running mean, drawn at the middle of its window
            smooth = np.convolve(y, np.ones(window) / window, "valid")
            axes.plot(step[(window - 1) // 2 :][: len(smooth)], smooth, color=GOOD, linewidth=1.8)
        axes.set_title(f"{stage}: {labels[name]}", fontsize=9)
        axes.set_xlabel("step")
        if name == "reward_accuracy":
            axes.set_ylim(0, 1.02)
            axes.axhline(0.5, color="#8a9099", linewidth=0.8, linestyle=":")
            axes.yaxis.set_major_formatter(_percent)
    return figure


@matplotlib.rc_context(STYLE)
def summary_bars(
    models: Mapping[str, Mapping[str, Mapping[str, Mapping[str, Any]]]], domain: str = "in_domain"
) -> Figure:
    """What every model does with each type of question, coloured by what that is worth to the user.

    Args:
      models: metrics.summarise(...).
      domain: the one to draw; a model without it has no bars.
    """
    figure = Figure(figsize=(9, 1.75 + 0.62 * len(models)), layout="constrained")
    grid = figure.subplots(2, 2, sharex=True, sharey=True)
    for axes, (group, title) in zip(grid.flat, PANELS.items(), strict=True):
        cells = [models[model].get(domain, {}).get(group) or {"n": 0} for model in models]
        for y, cell in enumerate(cells):
            if not cell["n"]:
                axes.text(0.01, y, "no questions", va="center", fontsize=8, color="#5f6670")
                continue
            wrong = 1 - cell["acc"] - cell["refr"]
            if group == "type3":
                _stack(
                    axes, y, (("refused", cell["refr"], GOOD), ("answered", 1 - cell["refr"], BAD))
                )
            else:
                _stack(
                    axes,
                    y,
                    (
                        ("correct", cell["acc"], GOOD),
                        ("refused", cell["refr"], NEUTRAL),
                        ("wrong", wrong, BAD),
                    ),
                )
            axes.text(1.015, y, f"T {_signed(cell['t'])}", va="center", fontsize=8.5)
        axes.set_title(f"{title} (n = {max(cell['n'] for cell in cells)})", fontsize=9)
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


def _stack(axes: Axes, y: int, parts: Sequence[tuple[str, float, str]]) -> None:
    """One bar of shares that add up to 1, each labelled where it is wide enough: with its name, or with its number alone."""
    left = 0.0
    for name, share, colour in parts:
        axes.barh(y, share, 0.72, left, color=colour, edgecolor="white", linewidth=0.8)
        text = f"{name} {share:.0%}"
        if share >= 0.065:
            text = text if share >= 0.024 * len(text) else f"{share:.0%}"
            ink = "#1d2127" if colour == NEUTRAL else "white"
            axes.text(left + share / 2, y, text, ha="center", va="center", fontsize=8, color=ink)
        left += share


def _model_legend(figure: Figure, models: Sequence[str]) -> None:
    handles = [
        Line2D(
            [],
            [],
            color=MODEL_COLOURS[i % len(MODEL_COLOURS)],
            marker=MODEL_MARKERS[i % len(MODEL_MARKERS)],
            markersize=5,
            label=_short(model),
        )
        for i, model in enumerate(models)
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=min(len(models), 5) or 1)


def _floats(values: Any) -> np.ndarray:
    """f64[n], with NaN, which matplotlib leaves out, for None."""
    return np.array([math.nan if v is None else v for v in values], np.float64)


def _percent(fraction: float, _position: int | None = None) -> str:
    return f"{fraction:.0%}"


def _short(model: str) -> str:
    """A model's name, its middle left out where it would squeeze the panels. Names of checkpoints differ at their ends."""
    return model if len(model) <= 20 else f"{model[:9]}…{model[-10:]}"


def _signed(number: float) -> str:
    return f"{round(number, 2) + 0.0:+.2f}".replace("-", MINUS)  # + 0.0: no minus before a zero
