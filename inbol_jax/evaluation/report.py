"""The report of an evaluation: `report.html`, one file that needs no network, and `report.md` with its figures beside it.

Everything that a data set, a model or a user has written is escaped: by jinja's autoescape in HTML, by `cell` in Markdown.
"""

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from inbol_jax.confidence.plot import confidence_histograms
from inbol_jax.errors import InbolError
from inbol_jax.evaluation import plots
from inbol_jax.evaluation.metrics import GROUPS, Row, by_confidence, by_kind, value
from inbol_jax.evaluation.yes_no import yes_no_table
from inbol_jax.pages import figures
from inbol_jax.pages.page import embed, write_page
from inbol_jax.pages.table import Table

DOMAIN_LABELS = {"in_domain": "In domain", "out_of_domain": "Out of domain"}
GROUP_LABELS = {
    "type1": "Type 1: known, answer",
    "mixed": "Mixed",
    "type2": "Type 2: unknown, refuse",
    "type12": "Types 1+2: all answerable",
    "type3": "Type 3: not in the image, refuse",
    "all": "All",
}
MAX_TEXT = 300  # characters of a question or an answer in the gallery
NONE = "\N{EN DASH}"


@dataclasses.dataclass(frozen=True, slots=True)
class Drawing:
    """A figure, its file name without suffix, what it shows to those who cannot see it, and its caption."""

    name: str
    figure: Figure
    alt: str
    caption: str

    @property
    def svg(self) -> Markup:
        return Markup(
            figures.svg(self.figure, prefix=self.name, label=self.alt)
        )  # ours: figures.svg escapes the label


def write_report(
    out: Path,
    *,
    rows: Sequence[Row],
    metrics: Mapping[str, Any],
    curves: plots.Curves,
    train_confidence: Sequence[float | int],
    thresholds: tuple[float, float],
    settings: Mapping[str, Any],
    seconds: Mapping[str, float | int],
    image_folders: Mapping[str, Path],
    seed: int,
    gallery_size: int = 24,
    other_tables: Sequence[Table] = (),
) -> None:
    """Writes out/report.html, out/report.md and out/figures/*.png, each atomically. The same arguments give the same bytes.

    Args:
      rows: predictions, as in predictions.jsonl.
      metrics: {"models": metrics.summarise(rows), "differences": metrics.differences(rows), ...}, as in metrics.json.
      curves: {stage: rows of "step", "loss" and other metrics}; may be empty.
      train_confidence: of the answerable training questions, in [0, 1]; may be empty.
      thresholds: (delta_uk, delta_k).
      settings, seconds: of the run; shown as they are, seconds by stage.
      image_folders: {dataset: the folder that its image paths start from}.
      seed: of the choice of gallery questions.
      gallery_size: at most so many questions.
      other_tables: measured elsewhere, for comparison; shown as they are.
    Raises:
      InbolError: without rows, or where `out` cannot be written.
    """
    if not rows:
        raise InbolError("no predictions to report on; run `inbol evaluate` first")
    drawings = _drawings(rows, metrics, curves, train_confidence, thresholds)
    models = list(metrics["models"])
    context = {
        "headline": headline(metrics),
        "models": models,
        "n_questions": len({(row["dataset"], row["id"]) for row in rows}),
        "datasets": sorted({row["dataset"] for row in rows}),
        "main_tables": [
            _main_table(metrics["models"], domain) for domain in _domains(metrics["models"])
        ],
        "difference_table": _difference_table(metrics["differences"]),
        "kind_tables": [
            table
            for type3 in (True, False)
            if (table := _kind_table(rows, models, type3=type3)).rows
        ]
        + [table for table in (yes_no_table(rows),) if table],
        "other_tables": other_tables,
        "drawings": drawings,
        "gallery": [
            _card(question, image_folders) for question in choose(rows, gallery_size, seed)
        ],
        "settings_table": Table(
            "Settings", ("Setting", "Value"), [(name, _plain(v)) for name, v in settings.items()]
        ),
        "seconds_table": Table(
            "Time", ("Stage", "Time"), [(name, _duration(s)) for name, s in seconds.items()]
        ),
    }
    for drawing in drawings:
        figures.save(drawing.figure, out / "figures" / f"{drawing.name}.png")
    for name in ("report.md", "report.html"):
        write_page(out / name, Path(__file__).parent, context)


def headline(metrics: Mapping[str, Any]) -> list[str]:
    """What the numbers say, for each domain: T from the base to the last model, and the last against the one before it."""
    models = list(metrics["models"])
    base, last = models[0], models[-1]
    sentences = []
    for domain in _domains(metrics["models"]):
        name = DOMAIN_LABELS[domain]
        first, final = (metrics["models"][model].get(domain, {}) for model in (base, last))
        if not first or not final:
            continue
        n = final["all"]["n"]
        if base == last:
            sentences.append(
                f"{name}: T of {base} over all {n} questions is {_with_interval(final['all'])}. No other model to compare with."
            )
            continue
        whole = _difference(metrics, base, last, domain)
        sentences.append(
            f"{name}: trustworthiness T over all {n} questions goes from {_signed(first['all']['t'])} ({base}) to "
            f"{_signed(final['all']['t'])} ({last}), a paired difference of {_with_interval(whole, 'diff')}: {_verdict(whole, last, base)}."
        )
        if final["type12"]["n"] and final["type3"]["n"]:
            sentences.append(
                f"{name}: accuracy on answerable questions goes from {_percent(first['type12']['acc'])} to "
                f"{_percent(final['type12']['acc'])}, refusal of Type 3 from {_percent(first['type3']['refr'])} to "
                f"{_percent(final['type3']['refr'])}."
            )
        if len(models) > 2:
            step = _difference(metrics, models[-2], last, domain)
            sentences.append(
                f"{name}: {last} against {models[-2]}: {_with_interval(step, 'diff')}: {_verdict(step, last, models[-2])}."
            )
    return sentences


def choose(rows: Sequence[Row], size: int, seed: int) -> list[dict[str, Row]]:
    """A random choice of questions, as evenly as possible from every domain and type. The order of the rows does not matter.

    Returns: at most `size` questions, each {model: its row}, in the order of domains and types.
    """
    models = list(dict.fromkeys(row["model"] for row in rows))
    questions: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:
        questions.setdefault((row["dataset"], row["id"]), {})[row["model"]] = row
    strata: dict[tuple[str, int], list[dict[str, Row]]] = {}
    for _, answers in sorted(questions.items()):
        row = next(iter(answers.values()))
        ordered = {model: answers[model] for model in models if model in answers}
        strata.setdefault((row["domain"], GROUPS["all"].index(row["type"])), []).append(ordered)
    random = np.random.default_rng(seed)
    shuffled = [
        [(key, stratum[i]) for i in random.permutation(len(stratum))]
        for key, stratum in sorted(strata.items())
    ]
    turns = (
        turn
        for turn in itertools.chain.from_iterable(itertools.zip_longest(*shuffled))
        if turn is not None
    )
    return [
        question for _, question in sorted(itertools.islice(turns, size), key=lambda turn: turn[0])
    ]


def _card(question: Mapping[str, Row], image_folders: Mapping[str, Path]) -> dict[str, Any]:
    """What the gallery shows of one question."""
    row = next(iter(question.values()))
    group = "mixed" if row["type"] is None else f"type{row['type']}"
    answers = []
    for model, answer in question.items():
        worth = value(answer["outcome"], answer["type"])
        word = "answered" if answer["type"] == 3 and worth < 0 else answer["outcome"]
        mark, colour = {1: ("✓", "good"), 0: ("○", "neutral"), -1: ("✗", "bad")}[worth]
        answers.append(
            {
                "model": model,
                "text": _short(answer["prediction"]),
                "mark": mark,
                "word": word,
                "colour": colour,
            }
        )
    return {
        "image": embed(image_folders.get(row["dataset"]), row["image"]),
        "question": _short(row["question"]),
        "type": GROUP_LABELS[group].split(":")[0],
        "domain": DOMAIN_LABELS[row["domain"]],
        "dataset": row["dataset"],
        "confidence": NONE if row["type"] == 3 else f"{row['confidence']:.2g}",
        # gold answers come with multiplicity: each once, the most frequent first
        "gold": _short(
            ", ".join(sorted(dict.fromkeys(row["answers"]), key=lambda a: -row["answers"].count(a)))
        )
        or NONE,
        "answers": answers,
    }


def _drawings(
    rows: Sequence[Row],
    metrics: Mapping[str, Any],
    curves: plots.Curves,
    train_confidence: Sequence[float | int],
    thresholds: tuple[float, float],
) -> list[Drawing]:
    models, domains = metrics["models"], _domains(metrics["models"])
    t = {
        model: ", ".join(
            f"{g} {_signed(c['t'])}" for g, c in models[model].get(domains[0], {}).items() if c["n"]
        )
        for model in models
    }
    result = [
        Drawing(
            "summary",
            plots.summary_bars(models, domains[0]),
            "Shares of correct, refused and wrong answers by type and model. T: "
            + "; ".join(f"{m}: {t[m]}" for m in models),
            f"{DOMAIN_LABELS[domains[0]]}: what each model does with each type of question, coloured by what it is worth to the "
            "user. T is the mean worth.",
        )
    ]
    for domain in domains:
        here = [row for row in rows if row["domain"] == domain and row["type"] != 3]
        if not here:
            continue
        bins = {model: by_confidence(here, model) for model in models}
        ends = {
            m: [_percent(b["refr"]) for b in bins[m] if b["n"]]
            for m in models
            if any(b["n"] for b in bins[m])
        }
        alt = "; ".join(f"{m} from {shares[0]} to {shares[-1]}" for m, shares in ends.items())
        result.append(
            Drawing(
                f"confidence_{domain}",
                plots.confidence_curves(bins),
                f"Refusal rate and answered accuracy by confidence. Refusal rate from the lowest to the highest confidence: {alt}.",
                f"{DOMAIN_LABELS[domain]}: refusal rate and accuracy of what is answered, by confidence (the axes of Figure 4 of the "
                "paper), over answerable questions, with 95% Wilson bands.",
            )
        )
    base = next(iter(models))
    panels = {"Training": train_confidence} if len(train_confidence) else {}
    for domain in domains:
        test = [
            r["confidence"]
            for r in rows
            if r["model"] == base and r["domain"] == domain and r["type"] != 3
        ]
        panels |= {f"Test, {DOMAIN_LABELS[domain].lower()}": test} if test else {}
    if panels:
        alt = (
            f"Histograms of confidence with delta_uk = {thresholds[0]:g} and delta_k = {thresholds[1]:g}: "
            + "; ".join(panels)
        )
        caption = "Confidence of answerable questions. Unknown: c ≤ δ_uk; Known: c ≥ δ_k; Mixed between them."
        result.append(Drawing("histogram", confidence_histograms(panels, thresholds), alt, caption))
    drawn = {stage: rows for stage, rows in curves.items() if any("loss" in row for row in rows)}
    if drawn:
        caption = "Training: every logged step, thin, and a running mean where there are many."
        result.append(
            Drawing(
                "curves",
                plots.training_curves(drawn),
                "Training curves of " + ", ".join(drawn),
                caption,
            )
        )
    return result


def _main_table(models: Mapping[str, Any], domain: str) -> Table:
    rows = []
    for group, label in GROUP_LABELS.items():
        cells = [models[model].get(domain, {}).get(group, {"n": 0}) for model in models]
        numbers = [
            (_percent(c["acc"]), _percent(c["refr"]), _with_interval(c)) if c["n"] else (NONE,) * 3
            for c in cells
        ]
        rows.append(
            (label, str(max(c["n"] for c in cells)), *itertools.chain.from_iterable(numbers))
        )
    columns = ("Questions", "n", *("Acc", "RefR", "T (95% interval)") * len(models))
    return Table(DOMAIN_LABELS[domain], columns, rows, (("", 2), *((model, 3) for model in models)))


def _difference_table(differences: Sequence[Mapping[str, Any]]) -> Table:
    rows: dict[tuple[str, str, str], dict[str, str]] = {}
    for d in differences:
        text = NONE
        if d["diff"] is not None:
            mark = (
                "\N{NO-BREAK SPACE}▲"
                if d["low"] > 0
                else "\N{NO-BREAK SPACE}▼"
                if d["high"] < 0
                else ""
            )
            text = _with_interval(d, "diff").replace(
                " ", f"{mark} ", 1
            )  # after the number, before its interval
        rows.setdefault((d["domain"], d["a"], d["b"]), {})[d["group"]] = text
    columns = ("Change", *(GROUP_LABELS[group].split(":")[0] for group in GROUPS))
    by_domain = sorted(rows.items(), key=lambda item: item[0][0])
    body = [
        (f"{DOMAIN_LABELS[domain]}: {b} − {a}", *cells.values())
        for (domain, a, b), cells in by_domain
    ]
    return Table(
        "Paired differences of T, with 95% intervals; ▲ better and ▼ worse where the interval leaves 0 out",
        columns,
        body,
    )


def _kind_table(rows: Sequence[Row], models: Sequence[str], *, type3: bool) -> Table:
    found: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for entry in by_kind(rows):
        if entry["type3"] == type3:
            found.setdefault((entry["domain"], entry["kind"]), {})[entry["model"]] = entry
    body = []
    for (domain, kind), cells in sorted(found.items()):
        line = [
            f"{DOMAIN_LABELS[domain]}: {kind or '(no kind)'}",
            str(max(c["n"] for c in cells.values())),
        ]
        for model in models:
            c = cells.get(model)
            numbers = (
                (_percent(c["acc"]), _percent(c["refr"]), _signed(c["t"])) if c else (NONE,) * 3
            )
            line += (
                numbers[1:] if type3 else numbers
            )  # accuracy means nothing where there is no answer
        body.append(line)
    names = ("RefR", "T") if type3 else ("Acc", "RefR", "T")
    caption = "Type 3 by kind of question" if type3 else "Answerable questions by kind"
    return Table(
        caption,
        ("Questions", "n", *names * len(models)),
        body,
        (("", 2), *((model, len(names)) for model in models)),
    )


def _difference(metrics: Mapping[str, Any], a: str, b: str, domain: str) -> Mapping[str, Any]:
    wanted = {"a": a, "b": b, "domain": domain, "group": "all"}
    return next(d for d in metrics["differences"] if d.items() >= wanted.items())


def _verdict(difference: Mapping[str, Any], b: str, a: str) -> str:
    if difference["low"] > 0:
        return f"the interval lies above 0, so {b} beats {a}"
    if difference["high"] < 0:
        return f"the interval lies below 0, so {b} is worse than {a}"
    return f"the interval holds 0, so this evaluation does not tell {b} from {a}"


def _domains(models: Mapping[str, Any]) -> list[str]:
    return sorted({domain for domains in models.values() for domain in domains})


def _short(text: str) -> str:
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "…"


def _plain(setting: Any) -> str:
    return (
        setting
        if isinstance(setting, str)
        else json.dumps(setting, ensure_ascii=False, default=str)
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _signed(number: float) -> str:
    return f"{round(number, 3) + 0.0:+.3f}".replace(
        "-", figures.MINUS
    )  # + 0.0: no minus before a zero


def _with_interval(cell: Mapping[str, Any], name: str = "t") -> str:
    low, high = (cell["t_low"], cell["t_high"]) if name == "t" else (cell["low"], cell["high"])
    return f"{_signed(cell[name])} ({_signed(low)}\N{NO-BREAK SPACE}to\N{NO-BREAK SPACE}{_signed(high)})"


def _duration(seconds: float | int) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
