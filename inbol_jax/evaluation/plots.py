"""The report's figures with their captions, and with texts for those who cannot see them.

The colours are Okabe and Ito's, which colour-blind readers tell apart; the markers differ as well.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from inbol_jax.confidence.boundary import Thresholds
from inbol_jax.confidence.plot import confidence_histograms
from inbol_jax.evaluation.metrics import ConfidenceBin, Metrics, Scores, Summary, by_confidence
from inbol_jax.evaluation.prediction import BASELINES, Prediction, calibrated
from inbol_jax.evaluation.tables import DOMAIN_LABELS, percent, signed
from inbol_jax.pages import figures
from inbol_jax.pages.figures import BAD, GOOD, MINUS, NEUTRAL, STYLE

# Training stage -> rows of {"step": int, "loss": float, ...}
Curves = Mapping[str, Sequence[Mapping[str, Any]]]

MODEL_COLOURS = ("#5f6670", "#0072b2", "#c04e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MODEL_STYLES = tuple(zip(MODEL_COLOURS, "osD^vPX", strict=True))  # with the markers
LOGODDS = "base_threshold_logodds"  # is drawn as the base's own line
DASHES = ((1, 1.5), (4, 1.5), (7, 2, 1, 2))  # of the base's other scores
PANELS = {
    "type1": "Type 1: known, so answer",
    "mixed": "Mixed: between the two thresholds",
    "type2": "Type 2: unknown, so refuse",
    "type3": "Type 3: unanswerable, so refuse",
}
CURVES = {
    "loss": "loss",
    "reward_margin": "reward margin (nats)",
    "reward_accuracy": "reward accuracy",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Drawing:
    """A figure, its file name without suffix, what it shows in words, and its caption."""

    name: str
    figure: Figure
    alt: str
    caption: str

    @property
    def svg(self) -> Markup:
        """The figure as SVG. It is safe in HTML, because `figures.svg` escapes the label."""
        return Markup(figures.svg(self.figure, prefix=self.name, label=self.alt))


def draw_all(
    predictions: Sequence[Prediction],
    metrics: Metrics,
    curves: Curves,
    train_confidence: Sequence[float | int],
    thresholds: Thresholds,
) -> list[Drawing]:
    """All figures of a report; a figure for which there is nothing to draw is left out."""
    drawings = [_summary(metrics)]
    panels = {"Training": train_confidence} if len(train_confidence) else {}
    models = list(metrics.models)
    for domain in metrics.domains:
        if here := [p for p in predictions if p.type != 3 and p.domain == domain]:
            drawings.append(_by_confidence(here, models, domain))
            confidences = [p.confidence for p in here if p.model == models[0]]
            panels[f"Test, {DOMAIN_LABELS[domain].lower()}"] = confidences
    if panels:
        drawings.append(_histogram(panels, thresholds))
    drawn = {stage: rows for stage, rows in curves.items() if any("loss" in row for row in rows)}
    if drawn:
        alt = "Training curves of " + ", ".join(drawn)
        caption = (
            "Training curves. The thin line shows every logged step; if there are many steps, "
            "the thick line is their running mean."
        )
        drawings.append(Drawing("curves", training_curves(drawn), alt, caption))
    return drawings


def _summary(metrics: Metrics) -> Drawing:
    domain = metrics.domains[0]
    numbers = []
    for model, domains in metrics.models.items():
        groups = [f"{g} {signed(c.t)}" for g, c in domains[domain].items() if c.n]
        numbers.append(f"{model}: {', '.join(groups)}")
    alt = f"Shares of correct, refused and wrong answers by type and model. T: {'; '.join(numbers)}"
    caption = (
        f"{DOMAIN_LABELS[domain]}: what each model does with each type of question. The colour "
        "says what a response is worth to the user, and T is the mean of these values."
    )
    return Drawing("summary", summary_bars(metrics.models, domain), alt, caption)


def _by_confidence(predictions: Sequence[Prediction], models: list[str], domain: str) -> Drawing:
    bins = {model: by_confidence(predictions, model) for model in models}
    ends = []
    for model in models:
        shares = [percent(b.refr.value) for b in bins[model] if b.n]
        ends.append(f"{model} from {shares[0]} to {shares[-1]}")
    alt = (
        "Refusal rate and answered accuracy by confidence. Refusal rate from the lowest to the "
        f"highest confidence: {'; '.join(ends)}."
    )
    caption = (
        f"{DOMAIN_LABELS[domain]}: refusal rate, and accuracy of the questions that are answered, "
        "by confidence (the axes of Figure 4 of the paper). Only answerable questions count. "
        "The bands are 95% Wilson intervals."
    )
    return Drawing(f"confidence_{domain}", confidence_curves(bins), alt, caption)


def draw_tradeoff(metrics: Metrics) -> Drawing:
    """T against the share of refusals, for metrics that have curves."""
    base, numbers = metrics.asked[0], []
    for name, domains in metrics.curves.items():
        best = [f"{DOMAIN_LABELS[d].lower()} {signed(c.best_t)}" for d, c in domains.items()]
        numbers.append(f"{name}: {', '.join(best)}")
    alt = f"T against the share of refusals. Highest T of each curve: {'; '.join(numbers)}"
    caption = (
        "T against the share of questions that are refused, as a bias on the refusal tokens moves "
        f"each model. Filled marks: the model as it is; hollow ones: with the bias chosen on "
        f"validation. Dashed: {base} with a threshold on another score. Where a line of a trained "
        f"model lies above all of {base}'s, training has taught more than where to refuse."
    )
    return Drawing("tradeoff", tradeoff(metrics), alt, caption)


def _histogram(panels: dict[str, Sequence[float | int]], thresholds: Thresholds) -> Drawing:
    delta_uk, delta_k = thresholds.delta_uk, thresholds.delta_k
    deltas = f"delta_uk = {delta_uk:g} and delta_k = {delta_k:g}"
    alt = f"Histograms of confidence with {deltas}: {'; '.join(panels)}"
    caption = (
        "Confidence of the answerable questions. A question is Unknown if c ≤ δ_uk, Known if "
        "c ≥ δ_k, and Mixed between them."
    )
    figure = confidence_histograms(panels, (delta_uk, delta_k))
    return Drawing("histogram", figure, alt, caption)


@matplotlib.rc_context(STYLE)
def confidence_curves(bins: Mapping[str, Sequence[ConfidenceBin]]) -> Figure:
    """Figure 4 of the paper: rates of each model by confidence, with Wilson bands."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for index, (model, model_bins) in enumerate(bins.items()):
        centres = [(b.low + b.high) / 2 for b in model_bins]
        colour, marker = MODEL_STYLES[index % len(MODEL_STYLES)]
        style = {"color": colour, "marker": marker, "markersize": 4.5, "linewidth": 1.8}
        for axes, rate in ((left, "refr"), (right, "answered_acc")):
            # f64[n] each; None becomes NaN, which matplotlib leaves out
            y, low, high = np.array([getattr(b, rate) for b in model_bins], np.float64).T
            axes.fill_between(centres, low, high, color=colour, alpha=0.12, linewidth=0)
            axes.plot(centres, y, **style, clip_on=False, label=_short(model))
    first = next(iter(bins.values()))
    # Every model was asked the same questions, but they answered different ones.
    left.set_xticks(centres, [f"{b.low:g} to {b.high:g}\nn = {b.n}" for b in first])
    right.set_xticks(centres, [f"{b.low:g} to {b.high:g}\n " for b in first])
    left.set_title("(a) Refusal rate by confidence")
    right.set_title("(b) Answered accuracy by confidence")
    for axes in (left, right):
        axes.set(xlim=(first[0].low, first[-1].high), ylim=(0, 1))
        axes.set_xlabel("confidence c(x) of the base model")
        axes.grid(False, axis="x")
        axes.yaxis.set_major_formatter(PercentFormatter(1, 0))
    figure.legend(handles=left.lines, loc="outside upper center", ncols=min(len(bins), 5))
    return figure


@matplotlib.rc_context(STYLE)
def tradeoff(metrics: Metrics) -> Figure:
    """T by the share of refusals: a panel per domain, a line per model and score of the base."""
    domains = metrics.domains
    figure = Figure(figsize=(4.6 * max(len(domains), 2), 4.4), layout="constrained")
    for axes, domain in zip(
        figure.subplots(1, len(domains), squeeze=False)[0], domains, strict=True
    ):
        handles = []
        for index, model in enumerate(metrics.asked):
            style = MODEL_STYLES[index % len(MODEL_STYLES)]
            handles.append(_model_line(axes, metrics, model, domain, style))
        others = [name for name in BASELINES if name in metrics.curves and name != LOGODDS]
        for name, dashes in zip(others, DASHES, strict=True):
            curve = metrics.curves[name][domain]
            style = {"color": MODEL_COLOURS[0], "linewidth": 1.2, "dashes": dashes}
            handles += axes.plot(curve.refused, curve.t, **style, label=name)
        point = metrics.models["oracle"][domain]["all"]
        star = {"color": "#1d2127", "linestyle": "none", "marker": "*", "markersize": 11}
        handles += axes.plot([point.refr], [point.t], **star, label="oracle")
        axes.set_title(f"{DOMAIN_LABELS[domain]} (n = {point.n})")
        axes.set(xlim=(0, 1), xlabel="share of questions that are refused", ylabel="T")
        axes.xaxis.set_major_formatter(PercentFormatter(1, 0))
    figure.legend(handles=handles, loc="outside upper center", ncols=4)
    return figure


def _model_line(
    axes: Axes, metrics: Metrics, model: str, domain: str, style: tuple[str, str]
) -> Line2D:
    """A model's curve, a filled mark where the model is, a hollow one where its bias puts it."""
    colour, marker = style
    curve = metrics.curves[model][domain]
    (line,) = axes.plot(curve.refused, curve.t, color=colour, linewidth=1.8, label=_short(model))
    for name, fill in ((model, colour), (calibrated(model), "white")):
        point = metrics.models[name][domain]["all"]
        mark = {"marker": marker, "markersize": 7, "markerfacecolor": fill, "zorder": 3}
        axes.plot([point.refr], [point.t], color=colour, linestyle="none", clip_on=False, **mark)
    return line


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
            axes.yaxis.set_major_formatter(PercentFormatter(1, 0))
    return figure


@matplotlib.rc_context(STYLE)
def summary_bars(models: Summary, domain: str = "in_domain") -> Figure:
    """What every model does with each type of question, coloured by its worth to the user."""
    figure = Figure(figsize=(9, 1.75 + 0.62 * len(models)), layout="constrained")
    grid = figure.subplots(2, 2, sharex=True, sharey=True)
    style = {"ha": "center", "va": "center", "fontsize": 8}
    for axes, (group, title) in zip(grid.flat, PANELS.items(), strict=True):
        cells = [domains[domain][group] for domains in models.values()]
        for y, cell in enumerate(cells):
            if cell.n:
                left = 0.0
                for name, share, colour in _parts(cell, type3=group == "type3"):
                    axes.barh(y, share, 0.72, left, color=colour, edgecolor="white", linewidth=0.8)
                    style["color"] = "#1d2127" if colour == NEUTRAL else "white"
                    axes.text(left + share / 2, y, _bar_label(name, share), **style)
                    left += share
                axes.text(1.015, y, f"T {signed(cell.t, 2)}", va="center", fontsize=8.5)
            else:
                axes.text(0.01, y, "no questions", va="center", fontsize=8, color="#5f6670")
        axes.set_title(f"{title} (n = {cells[0].n})", fontsize=9)
        axes.set_yticks(range(len(models)), [_short(model) for model in models])
        axes.tick_params(length=0)
        axes.grid(False)
        axes.spines[:].set_visible(False)
        axes.xaxis.set_visible(False)
        axes.set(xlim=(0, 1.2), ylim=(len(models) - 0.5, -0.5))
    worth = [
        Patch(color=GOOD, label="+1  correct, or refused on Type 3"),
        Patch(color=NEUTRAL, label="0  refused"),
        Patch(color=BAD, label=f"{MINUS}1  wrong, or answered on Type 3"),
    ]
    size = {"ncols": 3, "handlelength": 1.1, "handleheight": 1.0}
    figure.legend(handles=worth, loc="outside upper center", **size)
    return figure


def _parts(cell: Scores, *, type3: bool) -> Sequence[tuple[str, float, str]]:
    """Names, shares and colours of a bar; the shares add up to 1."""
    if type3:
        return ("refused", cell.refr, GOOD), ("answered", 1 - cell.refr, BAD)
    wrong = 1 - cell.acc - cell.refr
    return ("correct", cell.acc, GOOD), ("refused", cell.refr, NEUTRAL), ("wrong", wrong, BAD)


def _bar_label(name: str, share: float) -> str:
    """Name and number if the part of the bar is wide, a number or nothing if it is narrower."""
    if share < 0.065:
        return ""
    text = f"{name} {share:.0%}"
    return text if share >= 0.024 * len(text) else f"{share:.0%}"


def _short(model: str) -> str:
    """A model's name, without its middle if it is long: checkpoints' names differ at their ends."""
    return model if len(model) <= 20 else f"{model[:9]}…{model[-10:]}"
