"""The report of an evaluation: `report.html`, one file that needs no network, and `report.md`.

Everything that a dataset, a model or a user has written is escaped: by jinja's autoescape in
HTML, by `cell` in Markdown.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from inbol_jax.confidence.boundary import Thresholds
from inbol_jax.errors import InbolError
from inbol_jax.evaluation.drawings import draw_all
from inbol_jax.evaluation.gallery import choose_questions, gold, mark
from inbol_jax.evaluation.labels import (
    DOMAIN_LABELS,
    duration,
    percent,
    short_label,
    signed,
    with_interval,
)
from inbol_jax.evaluation.metrics import Difference, Metrics
from inbol_jax.evaluation.plots import Curves
from inbol_jax.evaluation.prediction import Prediction
from inbol_jax.evaluation.tables import difference_table, kind_tables, score_table
from inbol_jax.evaluation.yes_no import yes_no_table
from inbol_jax.pages import figures
from inbol_jax.pages.page import embed, write_page
from inbol_jax.pages.table import Table

GALLERY_SIZE = 24  # questions at most


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """What a report shows.

    Attributes:
      predictions: all models' answers.
      metrics: what was computed of them.
      curves: {training stage: rows of "step", "loss" and other metrics}.
      train_confidence: confidences of the answerable training questions, in [0, 1].
      thresholds: where Known, Mixed and Unknown part.
      settings: the options of the run, shown as they are.
      image_folders: {dataset: the folder that its image paths start from}.
      other_tables: tables that were measured elsewhere, for comparison.
      seed: of the choice of gallery questions.
    """

    predictions: Sequence[Prediction]
    metrics: Metrics
    curves: Curves = dataclasses.field(default_factory=dict)
    train_confidence: Sequence[float | int] = ()
    thresholds: Thresholds = dataclasses.field(default_factory=Thresholds)
    settings: Mapping[str, str] = dataclasses.field(default_factory=dict)
    image_folders: Mapping[str, Path] = dataclasses.field(default_factory=dict)
    other_tables: Sequence[Table] = ()
    seed: int = 0


def write_report(out: Path, report: Report) -> None:
    """Writes out/report.html, out/report.md and out/figures/*.png, each atomically.

    The same report gives the same bytes.

    Raises:
      InbolError: if there are no predictions, or `out` cannot be written.
    """
    if not report.predictions:
        raise InbolError("no predictions to report on; run `inbol evaluate` first")
    context = _context(report)
    for drawing in context["drawings"]:
        figures.save(drawing.figure, out / "figures" / f"{drawing.name}.png")
    for name in ("report.md", "report.html"):
        write_page(out / name, Path(__file__).parent, context)


def _context(report: Report) -> dict[str, Any]:
    """What the templates show."""
    predictions, metrics = report.predictions, report.metrics
    models = list(metrics.models)
    yes_no = yes_no_table(predictions)
    seconds = [(stage, duration(s)) for stage, s in metrics.seconds.items()]
    gallery = []
    for answers in choose_questions(predictions, GALLERY_SIZE, report.seed):
        folder = report.image_folders.get(answers[0].dataset)
        gallery.append((embed(folder, answers[0].image), answers))
    return {
        "headline": headline(metrics),
        "models": models,
        "n_questions": len({(p.dataset, p.id) for p in predictions}),
        "datasets": sorted({p.dataset for p in predictions}),
        "score_tables": [score_table(metrics.models, domain) for domain in metrics.domains],
        "difference_table": difference_table(metrics.differences),
        "kind_tables": kind_tables(predictions, models) + ([yes_no] if yes_no else []),
        "other_tables": report.other_tables,
        "drawings": draw_all(
            predictions, metrics, report.curves, report.train_confidence, report.thresholds
        ),
        "gallery": gallery,
        "gold": gold,
        "mark": mark,
        "short_label": short_label,
        "domain_labels": DOMAIN_LABELS,
        "settings_table": Table("Settings", ("Setting", "Value"), list(report.settings.items())),
        "seconds_table": Table("Time", ("Stage", "Time"), seconds),
    }


def headline(metrics: Metrics) -> list[str]:
    """What the numbers say, per domain: the last model against the base and the one before it."""
    models = list(metrics.models)
    base, last = models[0], models[-1]
    sentences = []
    for domain in metrics.domains:
        name = DOMAIN_LABELS[domain]
        first, final = metrics.models[base][domain], metrics.models[last][domain]
        whole = final["all"]
        if base == last:
            t = with_interval(whole.t, whole.t_low, whole.t_high)
            sentences.append(
                f"{name}: T of {base} over all {whole.n} questions is {t}. "
                "There is no other model to compare it with."
            )
            continue
        change = _overall(metrics, base, last, domain)
        sentences.append(
            f"{name}: trustworthiness T over all {whole.n} questions goes from "
            f"{signed(first['all'].t)} ({base}) to {signed(whole.t)} ({last}), a paired difference "
            f"of {with_interval(change.diff, change.low, change.high)}: {_verdict(change)}."
        )
        if final["type12"].n and final["type3"].n:
            accuracy = [percent(groups["type12"].acc) for groups in (first, final)]
            refusal = [percent(groups["type3"].refr) for groups in (first, final)]
            sentences.append(
                f"{name}: accuracy on answerable questions goes from {' to '.join(accuracy)}, "
                f"refusal of Type 3 from {' to '.join(refusal)}."
            )
        if len(models) > 2:
            step = _overall(metrics, models[-2], last, domain)
            sentences.append(
                f"{name}: T of {last} minus that of {models[-2]} is "
                f"{with_interval(step.diff, step.low, step.high)}: {_verdict(step)}."
            )
    return sentences


def _overall(metrics: Metrics, a: str, b: str, domain: str) -> Difference:
    """The difference of two models over all questions of a domain."""
    wanted = (a, b, domain, "all")
    return next(d for d in metrics.differences if (d.a, d.b, d.domain, d.group) == wanted)


def _verdict(difference: Difference) -> str:
    if difference.low > 0:
        return f"the interval lies above 0, so {difference.b} beats {difference.a}"
    if difference.high < 0:
        return f"the interval lies below 0, so {difference.b} is worse than {difference.a}"
    return (
        f"the interval holds 0, so this evaluation does not tell {difference.b} from {difference.a}"
    )
