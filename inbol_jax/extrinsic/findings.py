"""The numbers of an audit, and what they say in words."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from inbol_jax.extrinsic.config import LEAST_QUESTIONS
from inbol_jax.extrinsic.files import FunnelCounts
from inbol_jax.extrinsic.shortcut import Auc, Interval


@dataclasses.dataclass(frozen=True, slots=True)
class TextShortcut:
    """How well a classifier tells generated questions from answerable ones by their text.

    Attributes:
      auc: over all questions ("all") and by generator.
      telling: the n-grams that speak most for "unanswerable" and for "answerable".
    """

    auc: dict[str, Auc]
    telling: dict[str, list[str]]


@dataclasses.dataclass(frozen=True, slots=True)
class Share(Interval):
    """A share of n questions with its 95% interval."""

    n: int


@dataclasses.dataclass(frozen=True, slots=True)
class ModelAnswersSummary:
    """How the model answers with one kind of image.

    Attributes:
      auc: how well its doubt tells generated questions from answerable ones.
      refused_unanswerable, refused_answerable: share of refusals per class.
    """

    auc: Auc
    refused_unanswerable: Share
    refused_answerable: Share


@dataclasses.dataclass(frozen=True, slots=True)
class ModelShortcut:
    """The model's answers with the image and with a grey one in its place.

    Attributes:
      not_asked: number of questions that could not be asked both ways, and are left out.
      difference: AUC with the image minus AUC with a grey one.
    """

    not_asked: int
    image: ModelAnswersSummary
    blank: ModelAnswersSummary
    difference: Interval


@dataclasses.dataclass(frozen=True, slots=True)
class AuditResult:
    """What `audit.json` holds.

    Attributes:
      counts: what became of the examples.
      text, model: the shortcuts; None if they were not measured.
    """

    counts: FunnelCounts
    text: TextShortcut | None
    model: ModelShortcut | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "rows": self.counts.kept,
            **self.counts.to_json(),
            "text": self.text and dataclasses.asdict(self.text),
            "model": self.model and dataclasses.asdict(self.model),
            "findings": list(findings(self)),
        }


def findings(result: AuditResult) -> Iterator[str]:
    """Yields what the numbers say, in sentences."""
    kept, proposed = result.counts.kept, result.counts.verdicts.total()
    share = kept / max(1, proposed)
    yield f"{kept} of {proposed} proposed questions passed the filters ({share:.0%})."
    if result.text is None:
        yield (
            f"Too few questions for the shortcut test: {LEAST_QUESTIONS} of each class, about "
            "several images, are needed."
        )
        return
    text = result.text.auc["all"]
    yield (
        "A classifier that sees the text alone tells unanswerable from answerable at AUC "
        f"{format_interval(text)}: {_judge_text(text)}."
    )
    if result.model is None:
        return
    image, blank, difference = (
        result.model.image.auc,
        result.model.blank.auc,
        result.model.difference,
    )
    yield (
        f"The model's doubt tells them at AUC {format_interval(image)} with the image and "
        f"{format_interval(blank)} with a grey one in its place, a paired difference of "
        f"{format_interval(difference, '+.3f')}: {_judge_difference(difference)}."
    )
    gap = text.value - image.value
    if gap > 0:
        yield (
            f"The text tells them better than the model with the image, by {gap:.3f}: to refuse by "
            "the text is what training on these questions would teach first."
        )
    else:
        yield f"The model with the image tells them better than the text, by {-gap:.3f}."


def _judge_text(text: Auc) -> str:
    if text.low >= 0.9:
        return (
            "the text alone gives the questions away, and a model can learn to refuse without "
            "looking"
        )
    if text.low >= 0.6:
        return (
            "the text alone gives part of them away, and a model can learn some refusals without "
            "looking"
        )
    if text.high < 0.65:
        return "the text alone gives little away"
    if text.low > 0.5:
        return "the text alone gives something away, though not much"
    return "there are too few questions to say how much the text gives away"


def _judge_difference(difference: Interval) -> str:
    if difference.low > 0:
        return "the image helps it to tell them apart"
    if difference.high < 0:
        return "it tells them apart worse with the image than without"
    return "this does not show that it looks"


def format_interval(interval: Interval, form: str = ".3f") -> str:
    """An interval as "0.900 (0.880 to 0.920)"."""
    numbers = (format(x, form) for x in (interval.value, interval.low, interval.high))
    value, low, high = (number.replace("-", "\N{MINUS SIGN}") for number in numbers)
    return f"{value} ({low} to {high})"
