"""What an audit finds, in numbers, in words, and on a page with samples of the questions."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from inbol_jax.errors import InbolError
from inbol_jax.extrinsic.config import LEAST_QUESTIONS
from inbol_jax.extrinsic.files import KEPT
from inbol_jax.extrinsic.shortcut import Auc, Interval
from inbol_jax.pages.page import embed, write_page
from inbol_jax.pages.table import Table

# From this AUC of the text on the audit warns.
TELLING_AUC = 0.85
COUNTS = ("rows", "counts", "set_aside")  # of the header


class AuditedQuestion(NamedTuple):
    """A question of the audit: a generated, an answerable or a rejected one.

    Attributes:
      original: the image before its evidence was removed; the same as `image` otherwise.
      generator: "" for an answerable question.
      filter, reason: of a rejected question; "" otherwise.
      options: what a multiple-choice question offers.
    """

    id: str
    question: str
    image: str
    original: str
    generator: str = ""
    filter: str = ""
    reason: str = ""
    options: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "AuditedQuestion":
        """From a line of extrinsic.jsonl or of its trail.

        Raises:
          InbolError: if a field is missing or no text.
        """
        removed = row.get("removed", row)
        original = removed.get("image") if isinstance(removed, dict) else None
        fields = [*map(row.get, ("id", "question", "image")), original]
        fields += [row.get(name, "") for name in ("generator", "filter", "reason")]
        options = row.get("options", ())
        if not all(isinstance(field, str) for field in (*fields, *options)):
            raise InbolError(f"{', '.join(cls._fields)} are texts; run `inbol extrinsic` again")
        return cls(*fields, tuple(options))


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
    """How well the model's doubt tells generated questions from answerable ones with one kind of
    image, and the share of refusals per class."""

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
      header: the header of extrinsic.jsonl.
      text, model: the shortcuts; None if they were not measured.
    """

    header: Mapping[str, Any]
    text: TextShortcut | None
    model: ModelShortcut | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            **{name: self.header[name] for name in COUNTS},
            "text": self.text and dataclasses.asdict(self.text),
            "model": self.model and dataclasses.asdict(self.model),
            "findings": list(findings(self)),
        }


def text_warning(text: TextShortcut | None) -> str | None:
    """A warning, with the generators to blame, if the text alone tells the questions from real
    ones."""
    if text is None or text.auc["all"].value <= TELLING_AUC:
        return None
    told = {name: auc.value for name, auc in text.auc.items() if name != "all"}
    worst = sorted((n for n in told if told[n] > TELLING_AUC), key=lambda n: -told[n])
    named = ", ".join(f"{name} ({told[name]:.2f})" for name in worst) or "all generators together"
    return (
        f"Warning: the text alone tells generated from real questions (AUC "
        f"{text.auc['all'].value:.2f}), and a model would learn to refuse by wording. It is the "
        f"questions of {named}: give the other generators more --turns, or leave these out."
    )


def findings(result: AuditResult) -> Iterator[str]:
    """Yields what the numbers say, in sentences; a warning comes first."""
    if warning := text_warning(result.text):
        yield warning
    kept, proposed = result.header["rows"], sum(result.header["counts"].values())
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
    image, blank = result.model.image.auc, result.model.blank.auc
    difference = result.model.difference
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


def write_audit_page(
    file: Path,
    result: AuditResult,
    samples: Mapping[tuple[str, str], Sequence[AuditedQuestion]],
    images: Path,
) -> None:
    """Writes the page with samples by ("kept", generator) and ("rejected", filter)."""
    header = result.header
    tables = [*_text_tables(result.text)] if result.text else []
    if result.model:
        tables.append(_model_table(result.model))
    set_aside = [(*key.split(": ", 1), str(n)) for key, n in header["set_aside"].items()]
    settings = [(name, str(value)) for name, value in header.items() if name not in COUNTS]
    context = {
        "findings": list(findings(result)),
        "funnel": funnel_table(header),
        "set_aside": set_aside
        and Table("Examples without a question", ("Generator", "cause", "n"), set_aside),
        "tables": tables,
        "embed": functools.partial(embed, images),
        "settings": Table("Settings", ("Setting", "Value"), settings),
    }
    for verdict in ("kept", "rejected"):
        context[verdict] = [(name, samples[v, name]) for v, name in sorted(samples) if v == verdict]
    write_page(file, Path(__file__).parent, context)


def funnel_table(header: Mapping[str, Any]) -> Table:
    """The numbers of proposed, rejected and kept questions, per generator and for all."""
    generators, filters = header["generators"], header["filters"]
    groups = [(name, [name]) for name in generators]
    if len(groups) > 1:
        groups.append(("all", generators))
    rows = []
    for name, members in groups:
        *rejected, kept = (
            sum(header["counts"].get(f"{generator}: {verdict}", 0) for generator in members)
            for verdict in (*filters, KEPT)
        )
        proposed = kept + sum(rejected)
        share = f"{kept / proposed:.0%}" if proposed else "\N{EN DASH}"
        rows.append([name, str(proposed), *map(str, rejected), str(kept), share])
    return Table(
        "Questions that were proposed, rejected by each filter in turn, and kept",
        ("Generator", "proposed", *filters, "kept", "share"),
        rows,
        (("", 2), ("rejected by", len(filters)), ("", 2)),
    )


def _text_tables(text: TextShortcut) -> Iterator[Table]:
    yield Table(
        "Text alone: a classifier on words, cross-validated over images",
        ("Generator", "unanswerable", "answerable", "AUC"),
        [(name, *map(str, auc.n), format_interval(auc)) for name, auc in text.auc.items()],
    )
    yield Table(
        "Words that tell, the strongest first",
        ("Speaks for", "words"),
        [(label, " · ".join(ngrams)) for label, ngrams in text.telling.items()],
    )


def _model_table(model: ModelShortcut) -> Table:
    rows = []
    for name, summary in (("with the image", model.image), ("with a grey image", model.blank)):
        shares = summary.refused_unanswerable, summary.refused_answerable
        refused = (format_interval(share, ".1%") for share in shares)
        rows.append((name, format_interval(summary.auc), *refused))
    columns = ("Asked", "AUC of its doubt", "refuses unanswerable", "refuses answerable")
    return Table("The model that was asked", columns, rows)
