"""The page of an audit: its tables, and samples of the questions with their images."""

import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from inbol_jax.extrinsic.files import KEPT, ExtrinsicHeader
from inbol_jax.extrinsic.findings import (
    AuditResult,
    ModelShortcut,
    TextShortcut,
    findings,
    format_interval,
)
from inbol_jax.pages.page import embed, write_page
from inbol_jax.pages.table import Table


class AuditedQuestion(NamedTuple):
    """A question of the audit: a generated, an answerable or a rejected one.

    Attributes:
      original: the image before its evidence was removed; the same as `image` otherwise.
      generator: "" for an answerable question.
      filter, reason: of a rejected question; "" otherwise.
    """

    id: str
    question: str
    image: str
    original: str
    generator: str = ""
    filter: str = ""
    reason: str = ""

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "AuditedQuestion":
        """From a line of extrinsic.jsonl, of its trail or of a dataset."""
        optional = {name: row.get(name, "") for name in ("generator", "filter", "reason")}
        original = row.get("removed", row)["image"]
        return cls(row["id"], row["question"], row["image"], original, **optional)


def write_audit_page(
    file: Path,
    result: AuditResult,
    header: ExtrinsicHeader,
    kept: Mapping[str, Sequence[AuditedQuestion]],
    rejected: Mapping[str, Sequence[AuditedQuestion]],
    images: Path,
) -> None:
    """Writes the page.

    Args:
      kept: samples by generator.
      rejected: samples by filter.
      images: the folder of their images.
    """
    tables = []
    if result.text:
        tables += _text_tables(result.text)
    if result.model:
        tables.append(_model_table(result.model))
    set_aside = [(*key, str(n)) for key, n in sorted(header.counts.set_aside.items())]
    hidden = {"counts", "set_aside", "rows"}
    settings = [(k, str(v)) for k, v in header.to_json().items() if k not in hidden]
    context = {
        "findings": list(findings(result)),
        "funnel": funnel_table(header),
        "set_aside": set_aside
        and Table("Examples without a question", ("Generator", "cause", "n"), set_aside),
        "tables": tables,
        "kept": sorted(kept.items()),
        "rejected": sorted(rejected.items()),
        "embed": functools.partial(embed, images),
        "settings": Table("Settings", ("Setting", "Value"), settings),
    }
    write_page(file, Path(__file__).parent, context)


def funnel_table(header: ExtrinsicHeader) -> Table:
    """The numbers of proposed, rejected and kept questions, per generator and for all."""
    verdicts = header.counts.verdicts
    groups = [(name, [name]) for name in header.generators]
    if len(groups) > 1:
        groups.append(("all", header.generators))
    rows = []
    for name, generators in groups:
        *rejected, kept = (
            sum(verdicts[generator, verdict] for generator in generators)
            for verdict in (*header.filters, KEPT)
        )
        proposed = kept + sum(rejected)
        share = f"{kept / proposed:.0%}" if proposed else "\N{EN DASH}"
        rows.append([name, str(proposed), *map(str, rejected), str(kept), share])
    return Table(
        "Questions that were proposed, rejected by each filter in turn, and kept",
        ("Generator", "proposed", *header.filters, "kept", "share"),
        rows,
        (("", 2), ("rejected by", len(header.filters)), ("", 2)),
    )


def _text_tables(text: TextShortcut) -> Iterable[Table]:
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
