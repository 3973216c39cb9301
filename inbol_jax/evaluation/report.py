"""The report of an evaluation: `report.html`, one file that needs no network.

Everything that a dataset, a model or a user has written is escaped by jinja.
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from inbol_jax.errors import InbolError
from inbol_jax.evaluation.config import EvaluateConfig
from inbol_jax.evaluation.metrics import Difference, Metrics, best_baseline
from inbol_jax.evaluation.plots import draw_all
from inbol_jax.evaluation.prediction import TYPES, Prediction, by_likelihood, calibrated
from inbol_jax.evaluation.selective import MIN_QUESTIONS
from inbol_jax.evaluation.tables import (
    DOMAIN_LABELS,
    baseline_tables,
    difference_table,
    duration,
    kind_tables,
    percent,
    score_table,
    short_label,
    signed,
    summary_table,
    t_of,
    with_interval,
    worth_of_rule,
)
from inbol_jax.pages import figures
from inbol_jax.pages.page import embed, write_page
from inbol_jax.pages.table import Table
from inbol_jax.questions import lettered

GALLERY_SIZE = 24  # questions at most
REFUSES_ALL = 0.9  # share of the known questions above which a model is said to refuse everything


def write_report(
    out: Path,
    config: EvaluateConfig,
    predictions: Sequence[Prediction],
    metrics: Metrics,
    *,
    image_folders: Mapping[str, Path],
    other_tables: Sequence[Table] = (),
) -> None:
    """Writes out/report.html and out/figures/*.png, each atomically.

    The same arguments give the same bytes.

    Args:
      config: its seed chooses the gallery, and all options are shown.
      image_folders: {dataset: the folder that its image paths start from}.
      other_tables: tables that were measured elsewhere, for comparison.

    Raises:
      InbolError: if there are no predictions, or `out` cannot be written.
    """
    if not predictions:
        raise InbolError("no predictions to report on; run `inbol evaluate` first")
    models = metrics.asked
    settings = [(name, str(value)) for name, value in dataclasses.asdict(config).items()]
    seconds = [(stage, duration(s)) for stage, s in metrics.seconds.items()]
    drawings = draw_all(predictions, metrics)
    gallery = []  # of (the question's images, all models' answers)
    for answers in choose_questions(predictions, GALLERY_SIZE, config.seed):
        folder = image_folders.get(answers[0].dataset)
        gallery.append(([embed(folder, image) for image in answers[0].images], answers))
    context = {
        "headline": headline(metrics),
        "models": models,
        "n_questions": len({(p.dataset, p.id) for p in predictions}),
        "datasets": sorted({p.dataset for p in predictions}),
        "score_tables": [score_table(metrics, domain) for domain in metrics.domains],
        "summary_table": summary_table(metrics),
        "difference_table": difference_table(metrics),
        "baseline_tables": baseline_tables(metrics),
        "validated": bool(metrics.curves),
        "kind_tables": kind_tables(predictions, models),
        "other_tables": other_tables,
        "drawings": drawings,
        "gallery": gallery,
        "gold": gold,
        "lettered": lettered,
        "mark": mark,
        "short_label": short_label,
        "domain_labels": DOMAIN_LABELS,
        "settings_table": Table("Settings", ("Setting", "Value"), settings),
        "seconds_table": Table("Time", ("Stage", "Time"), seconds),
    }
    for drawing in drawings:
        figures.save(drawing.figure, out / "figures" / f"{drawing.name}.png")
    write_page(out / "report.html", Path(__file__).parent, context)


def choose_questions(
    predictions: Sequence[Prediction], size: int, seed: int
) -> list[list[Prediction]]:
    """All models' predictions of at most `size` random questions, in order of domains and types.

    As many as possible are of each domain and type. The order of the questions does not matter.
    """
    questions: dict[tuple[str, str], list[Prediction]] = {}
    for p in predictions:
        questions.setdefault((p.dataset, p.id), []).append(p)
    strata: dict[tuple[str, int], list[list[Prediction]]] = {}
    # Sorted, so that the choice does not depend on the order of the questions.
    for _, answers in sorted(questions.items()):
        stratum = answers[0].domain, TYPES.index(answers[0].type)
        strata.setdefault(stratum, []).append(answers)
    random = np.random.default_rng(seed)
    drawn = []  # (turn, stratum, index within it): one question of each stratum in turn
    for stratum, members in sorted(strata.items()):
        drawn += [(turn, stratum, i) for turn, i in enumerate(random.permutation(len(members)))]
    chosen = sorted(drawn)[:size]
    return [strata[stratum][i] for _, stratum, i in sorted(chosen, key=lambda place: place[1])]


def gold(question: Prediction) -> str:
    """The gold answers of a question, each one once, the most frequent first."""
    return ", ".join(answer for answer, _ in Counter(question.answers).most_common())


def mark(answer: Prediction) -> tuple[str, str, str]:
    """Sign, word and CSS class for what an answer is worth to the user."""
    worth = answer.user_value
    sign, colour = {1: ("✓", "good"), 0: ("○", "neutral"), -1: ("✗", "bad")}[worth]
    return sign, "answered" if answer.type == 3 and worth < 0 else answer.outcome, colour


def headline(metrics: Metrics) -> list[str]:
    """What the numbers say: per domain the last model against what needs no training, accuracy and
    refusals, and which models refuse nearly all that the base knows; then what each threshold is
    worth."""
    base, last = metrics.asked[0], metrics.asked[-1]
    # "all" holds every type: it is what the best baseline was picked by.
    changes = {(d.a, d.b, d.domain): d for d in metrics.differences if d.group == "all"}
    sentences = []
    for domain in metrics.domains:
        name, best = DOMAIN_LABELS[domain], best_baseline(metrics.models, base, domain)
        first, final, free = (metrics.models[m][domain] for m in (base, last, best))
        whole = final["all"]
        t = f"{name}: T of {last} over all {whole.n} questions is {t_of(whole)}"
        t += f"; {metrics.label(best)}, the best of what needs no training of the model, has "
        t += f"{signed(free['all'].t)}."
        if base == last:
            sentences.append(f"{t} There is no other model to compare it with.")
        else:
            verdict = _verdict(changes[best, last, domain], metrics)
            sentences.append(f"{t} The paired difference is {verdict}.")
            before, after = ([g["type12"].acc, g["type3"].refr] for g in (first, final))
            if None not in before:
                accuracy, refusal = (
                    f"{percent(a)} to {percent(b)}" for a, b in zip(before, after, strict=True)
                )
                sentences.append(
                    f"{name}: accuracy on answerable questions goes from {accuracy}, refusal of "
                    f"Type 3 from {refusal}."
                )
        for model in metrics.asked:
            known = metrics.models[model][domain]["type1"]
            if known.n and known.refr > REFUSES_ALL:
                sentences.append(
                    f"{name}: {model} refuses {percent(known.refr)} of the {known.n} questions "
                    f"that {base} knows, so it does little else than always refusing."
                )
        if last in metrics.prices:
            sentences += _at_prices(metrics, last, domain)
    return sentences + [
        worth_of_rule(metrics.label(policy), rule, metrics.calibrations[policy])
        for rule, name in (("bias", calibrated), ("likelihood", by_likelihood))
        for policy in map(name, metrics.asked)
        if policy in metrics.calibrations
    ]


def _at_prices(metrics: Metrics, model: str, domain: str) -> list[str]:
    """At which prices of a wrong answer the model is told from what needs no training."""
    cells = metrics.prices[model][domain].items()
    said = []
    for verdict, word in ((1, "above"), (-1, "below")):
        if prices := [price for price, cell in cells if cell.verdict == verdict]:
            said.append(f"{word} it if a wrong answer costs {', '.join(prices)}")
    if not said:
        return []
    return [
        f"{DOMAIN_LABELS[domain]}: against the best of what needs no training, both with what is "
        f"best on validation for that price, {model} is {' and '.join(said)}."
    ]


def _verdict(d: Difference, metrics: Metrics) -> str:
    """The difference, and what its interval allows to say."""
    a, b = metrics.label(d.a), metrics.label(d.b)
    said = {
        1: f"the interval lies above 0, so {b} beats {a}",
        0: f"the interval holds 0, so this evaluation does not tell {b} from {a}",
        -1: f"the interval lies below 0, so {b} is worse than {a}",
    }[d.verdict]
    if not (d.says_something or d.low <= 0 <= d.high):
        few = f"{d.n} questions are too few" if d.n < MIN_QUESTIONS else "all changes are alike"
        said = f"{few}, so the interval does not tell {b} from {a}"
    return f"{with_interval(d.diff, d.low, d.high)}: {said}"
