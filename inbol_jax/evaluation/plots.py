"""The report's figures with their captions, and with texts for those who cannot see them.

The colours are Okabe and Ito's, which colour-blind readers tell apart; the markers differ as well.
"""

import dataclasses
from collections.abc import Sequence

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from inbol_jax.evaluation.metrics import Metrics, Scores, by_confidence
from inbol_jax.evaluation.prediction import BASELINES, Prediction, by_likelihood, calibrated
from inbol_jax.evaluation.tables import DOMAIN_LABELS, percent, signed
from inbol_jax.pages import figures
from inbol_jax.pages.figures import BAD, GOOD, MINUS, NEUTRAL, STYLE

MODEL_COLOURS = ("#5f6670", "#0072b2", "#c04e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MODEL_STYLES = tuple(zip(MODEL_COLOURS, "osD^vPX", strict=True))  # with the markers
INK = "#1d2127"
LOGODDS = "base_threshold_logodds"  # is drawn as the base's own line
LIKELIHOOD = "base_threshold_likelihood"
DASHES = ((1, 1.5), (4, 1.5), (7, 2, 1, 2), (7, 2))  # of the base's other scores
PANELS = {
    "type1": "Type 1: known, so answer",
    "mixed": "Mixed: between the two thresholds",
    "type2": "Type 2: unknown, so refuse",
    "type3": "Type 3: unanswerable, so refuse",
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


def draw_all(predictions: Sequence[Prediction], metrics: Metrics) -> list[Drawing]:
    """All figures of a report, the summary first; those for which there is something to draw."""
    # The summary is of the domain of training, which comes first in the alphabet.
    drawings = [summary_bars(metrics, metrics.domains[0])]
    for domain in metrics.domains:
        here = [p for p in predictions if p.type != 3 and p.domain == domain]
        drawings += [confidence_curves(here, metrics.asked, domain)] if here else []
    return drawings + ([tradeoff(metrics), fronts(metrics)] if metrics.curves else [])


@matplotlib.rc_context(STYLE)
def confidence_curves(
    predictions: Sequence[Prediction], models: Sequence[str], domain: str
) -> Drawing:
    """Figure 4 of the paper: rates of each model by confidence, with Wilson bands."""
    bins = {model: by_confidence(predictions, model) for model in models}
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    ends = []
    for index, (model, model_bins) in enumerate(bins.items()):
        centres = [(b.low + b.high) / 2 for b in model_bins]  # five, from 0.1 to 0.9
        colour, marker = MODEL_STYLES[index % len(MODEL_STYLES)]
        style = {"color": colour, "marker": marker, "markersize": 4.5, "linewidth": 1.8}
        for axes, rate in ((left, "refr"), (right, "answered_acc")):
            # f64[n] each; None becomes NaN, which matplotlib leaves out
            y, low, high = np.array([getattr(b, rate) for b in model_bins], np.float64).T
            axes.fill_between(centres, low, high, color=colour, alpha=0.12, linewidth=0)
            axes.plot(centres, y, **style, clip_on=False, label=_short(model))
        shares = [percent(b.refr.value) for b in model_bins if b.n]  # of the bins with questions
        ends.append(f"{model} from {shares[0]} to {shares[-1]}")
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
    alt = (
        "Refusal rate and answered accuracy by confidence. Refusal rate from the lowest to the "
        f"highest confidence: {'; '.join(ends)}."
    )
    caption = (
        f"{DOMAIN_LABELS[domain]}: refusal rate, and accuracy of the questions that are answered, "
        "by confidence (the axes of Figure 4 of the paper). Only answerable questions count. "
        "The bands are 95% Wilson intervals."
    )
    return Drawing(f"confidence_{domain}", figure, alt, caption)


@matplotlib.rc_context(STYLE)
def tradeoff(metrics: Metrics) -> Drawing:
    """T by the share of refusals, for metrics that have curves: a panel per domain, a line per
    model and score of the base."""
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
        for name, dashes in zip(others, DASHES, strict=False):
            curve = metrics.curves[name][domain]
            style = {"color": MODEL_COLOURS[0], "linewidth": 1.2, "dashes": dashes}
            handles += axes.plot(curve.refused, curve.t, **style, label=metrics.label(name))
        # The oracle is a point: it has no threshold to move.
        point = metrics.models["oracle"][domain]["all"]
        star = {"color": INK, "linestyle": "none", "marker": "*", "markersize": 11}
        handles += axes.plot([point.refr], [point.t], **star, label="oracle")
        axes.set_title(f"{DOMAIN_LABELS[domain]} (n = {point.n})")
        axes.set(xlim=(0, 1), xlabel="share of questions that are refused", ylabel="T")
        axes.xaxis.set_major_formatter(PercentFormatter(1, 0))
    figure.legend(handles=handles, loc="outside upper center", ncols=4)
    numbers = []
    for name, of_domain in metrics.curves.items():
        best = [f"{DOMAIN_LABELS[d].lower()} {signed(c.best_t)}" for d, c in of_domain.items()]
        numbers.append(f"{metrics.label(name)}: {', '.join(best)}")
    alt = f"T against the share of refusals. Highest T of each curve: {'; '.join(numbers)}"
    base = metrics.asked[0]
    caption = (
        "T against the share of questions that are refused, as a bias on the refusal tokens moves "
        f"each model. Filled marks: the model as it is; hollow ones: with the bias chosen on "
        f"validation. Dashed: {base} with a threshold on another score. Where a line of a trained "
        f"model lies above all of {base}'s, training has taught more than where to refuse."
    )
    return Drawing("tradeoff", figure, alt, caption)


def _model_line(
    axes: Axes, metrics: Metrics, model: str, domain: str, style: tuple[str, str]
) -> Line2D:
    """A model's curve, a filled mark where the model is, a hollow one where its bias puts it."""
    colour, marker = style
    curve = metrics.curves[model][domain]
    (line,) = axes.plot(curve.refused, curve.t, color=colour, linewidth=1.8, label=_short(model))
    # Neither mark need lie on the line: it moves the forced answers, and the model gives its own.
    for name, fill in ((model, colour), (calibrated(model), "white")):
        point = metrics.models[name][domain]["all"]
        mark = {"marker": marker, "markersize": 7, "markerfacecolor": fill, "zorder": 3}
        axes.plot([point.refr], [point.t], color=colour, linestyle="none", clip_on=False, **mark)
    return line


@matplotlib.rc_context(STYLE)
def fronts(metrics: Metrics) -> Drawing:
    """The value at every price of a wrong answer, and below it the risk at every coverage: a column
    per domain, a line per model, with its best rule, and per thing that needs no training."""
    domains, models = metrics.domains, metrics.asked
    styles = {name: {"color": INK, "linewidth": 1.0} for name in metrics.prices}
    for name, dashes in zip((n for n in styles if n not in models), DASHES, strict=False):
        styles[name]["dashes"] = dashes
    for index, model in enumerate(models):
        colour, marker = MODEL_STYLES[index % len(MODEL_STYLES)]
        styles[model] = {"color": colour, "marker": marker, "markersize": 4.5, "linewidth": 1.8}
    figure = Figure(figsize=(4.6 * max(len(domains), 2), 7.4), layout="constrained")
    grid = figure.subplots(2, len(domains), squeeze=False, sharey="row")
    for (above, below), domain in zip(grid.T, domains, strict=True):
        for name, style in styles.items():
            prices = metrics.prices[name][domain]
            values = [cell.value for cell in prices.values()]
            above.plot([*map(float, prices)], values, **style, label=metrics.label(_short(name)))
            # A model's own curve is that of its refusal tokens; the likelihood's is the better one.
            rule = LIKELIHOOD if name == models[0] else by_likelihood(name)
            curve = metrics.curves.get(rule if name in models else name, {}).get(domain)
            if curve:
                coverage = [1 - refused for refused in curve.refused[1:]]
                style = style | {"marker": ""}
                below.plot(coverage, curve.risk[1:], **style)
        above.set_title(DOMAIN_LABELS[domain])
        above.set_xscale("log", base=2)
        above.set(xlabel="price of a wrong answer", xticks=[*map(float, prices)], ylabel="value")
        above.xaxis.set_major_formatter("{x:g}")
        below.set(xlim=(0, 1), xlabel="share of questions that are answered")
        below.set_ylabel("share of the answers that is wrong")
        for axis in (below.xaxis, below.yaxis):
            axis.set_major_formatter(PercentFormatter(1, 0))
    grid[1, 0].set_ylim(bottom=0)
    figure.legend(handles=grid[0, 0].lines, loc="outside upper center", ncols=4)
    numbers = []
    for name, of_domain in metrics.prices.items():
        ends = []
        for domain, prices in of_domain.items():
            first, *_, last = (signed(cell.value) for cell in prices.values())
            ends.append(f"{DOMAIN_LABELS[domain].lower()} {first} to {last}")
        numbers.append(f"{metrics.label(name)} {', '.join(ends)}")
    alt = f"Value from the lowest price of a wrong answer to the highest: {'; '.join(numbers)}"
    caption = (
        "Above: the mean value if a wrong answer costs more or less than a correct one is worth. "
        "Each model has the rule and threshold that is best at that price on validation, and "
        f"{models[0]} the best of all its scores. Below: how many of the answers are wrong, if "
        "only the likeliest are given."
    )
    return Drawing("fronts", figure, alt, caption)


@matplotlib.rc_context(STYLE)
def summary_bars(metrics: Metrics, domain: str) -> Drawing:
    """What every model does with each type of question, coloured by its worth to the user."""
    models = {name: metrics.models[name][domain] for name in metrics.asked}
    figure = Figure(figsize=(9, 1.75 + 0.62 * len(models)), layout="constrained")
    grid = figure.subplots(2, 2, sharex=True, sharey=True)
    for axes, (group, title) in zip(grid.flat, PANELS.items(), strict=True):
        cells = [groups[group] for groups in models.values()]
        for y, cell in enumerate(cells):
            if cell.n:
                _draw_bar(axes, y, cell, type3=group == "type3")
                axes.text(1.015, y, f"T {signed(cell.t, 2)}", va="center", fontsize=8.5)
            else:
                axes.text(0.01, y, "no questions", va="center", fontsize=8, color="#5f6670")
        axes.set_title(f"{title} (n = {cells[0].n})", fontsize=9)
        axes.set_yticks(range(len(models)), [_short(model) for model in models])
        axes.tick_params(length=0)
        axes.grid(False)
        axes.spines[:].set_visible(False)
        axes.xaxis.set_visible(False)
        axes.set(xlim=(0, 1.2), ylim=(len(models) - 0.5, -0.5))  # T stands right of the bars
    worth = [
        Patch(color=GOOD, label="+1  correct, or refused on Type 3"),
        Patch(color=NEUTRAL, label="0  refused"),
        Patch(color=BAD, label=f"{MINUS}1  wrong, or answered on Type 3"),
    ]
    size = {"ncols": 3, "handlelength": 1.1, "handleheight": 1.0}
    figure.legend(handles=worth, loc="outside upper center", **size)
    numbers = []
    for model, groups in models.items():
        values = [f"{group} {signed(cell.t)}" for group, cell in groups.items() if cell.n]
        numbers.append(f"{model}: {', '.join(values)}")
    alt = f"Shares of correct, refused and wrong answers by type and model. T: {'; '.join(numbers)}"
    caption = (
        f"{DOMAIN_LABELS[domain]}: what each model does with each type of question. The colour "
        "says what a response is worth to the user, and T is the mean of these values."
    )
    return Drawing("summary", figure, alt, caption)


def _draw_bar(axes: Axes, y: int, cell: Scores, *, type3: bool) -> None:
    """The shares of a group's responses side by side; they add up to 1."""
    if type3:
        parts = (("refused", cell.refr, GOOD), ("answered", 1 - cell.refr, BAD))
    else:
        wrong = 1 - cell.acc - cell.refr
        parts = ("correct", cell.acc, GOOD), ("refused", cell.refr, NEUTRAL), ("wrong", wrong, BAD)
    left = 0.0  # where the next part begins
    for name, share, colour in parts:
        axes.barh(y, share, 0.72, left, color=colour, edgecolor="white", linewidth=0.8)
        if share >= 0.065:  # name and number if the part is wide, the number alone otherwise
            label = f"{name} {share:.0%}"
            label = label if share >= 0.024 * len(label) else f"{share:.0%}"
            style = {"color": INK if colour == NEUTRAL else "white", "fontsize": 8}
            axes.text(left + share / 2, y, label, ha="center", va="center", **style)
        left += share


def _short(model: str) -> str:
    """A model's name, without its middle if it is long: checkpoints' names differ at their ends."""
    return model if len(model) <= 20 else f"{model[:9]}…{model[-10:]}"
