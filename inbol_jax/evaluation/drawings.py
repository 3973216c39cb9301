"""The report's figures with their captions, and with texts for those who cannot see them."""

import dataclasses
from collections.abc import Sequence

from markupsafe import Markup
from matplotlib.figure import Figure

from inbol_jax.confidence.boundary import Thresholds
from inbol_jax.confidence.plot import confidence_histograms
from inbol_jax.evaluation import plots
from inbol_jax.evaluation.labels import DOMAIN_LABELS, percent, signed
from inbol_jax.evaluation.metrics import Metrics, by_confidence
from inbol_jax.evaluation.prediction import Prediction
from inbol_jax.pages import figures


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
    curves: plots.Curves,
    train_confidence: Sequence[float | int],
    thresholds: Thresholds,
) -> list[Drawing]:
    """All figures of a report; a figure for which there is nothing to draw is left out."""
    answerable = [p for p in predictions if p.type != 3]
    drawings = [_summary(metrics)]
    panels = {"Training": train_confidence} if len(train_confidence) else {}
    base = next(iter(metrics.models))
    for domain in metrics.domains:
        here = [p for p in answerable if p.domain == domain]
        if here:
            drawings.append(_by_confidence(here, list(metrics.models), domain))
            confidences = [p.confidence for p in here if p.model == base]
            panels |= {f"Test, {DOMAIN_LABELS[domain].lower()}": confidences}
    if panels:
        drawings.append(_histogram(panels, thresholds))
    drawn = {stage: rows for stage, rows in curves.items() if any("loss" in row for row in rows)}
    if drawn:
        alt = "Training curves of " + ", ".join(drawn)
        caption = (
            "Training curves. The thin line shows every logged step; if there are many steps, "
            "the thick line is their running mean."
        )
        drawings.append(Drawing("curves", plots.training_curves(drawn), alt, caption))
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
    return Drawing("summary", plots.summary_bars(metrics.models, domain), alt, caption)


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
    return Drawing(f"confidence_{domain}", plots.confidence_curves(bins), alt, caption)


def _histogram(panels: dict[str, Sequence[float | int]], thresholds: Thresholds) -> Drawing:
    delta_uk, delta_k = thresholds.delta_uk, thresholds.delta_k
    alt = (
        f"Histograms of confidence with delta_uk = {delta_uk:g} and delta_k = {delta_k:g}: "
        + "; ".join(panels)
    )
    caption = (
        "Confidence of the answerable questions. A question is Unknown if c ≤ δ_uk, Known if "
        "c ≥ δ_k, and Mixed between them."
    )
    figure = confidence_histograms(panels, (delta_uk, delta_k))
    return Drawing("histogram", figure, alt, caption)
