"""All predictions of an evaluation as a page to look through: `predictions.html`, which needs no
network and no server. Pictures are read from the datasets' own folders.
"""

import base64
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from inbol_jax.evaluation.prediction import Prediction
from inbol_jax.evaluation.report import gold, mark
from inbol_jax.evaluation.tables import DOMAIN_LABELS, short_label
from inbol_jax.pages.page import write_page
from inbol_jax.questions import lettered

SCRIPT = Path(__file__).with_name("browser.js")


def write_browser(
    out: Path, predictions: Iterable[Prediction], image_folders: Mapping[str, Path]
) -> None:
    """Writes out/predictions.html, atomically.

    Args:
      image_folders: {dataset: the folder that its image paths start from}; without one a question
        is shown without its pictures.
    """
    folders = {name: os.path.relpath(folder, out) for name, folder in image_folders.items()}
    answers: dict[tuple[str, str], list[Prediction]] = {}
    models: dict[str, None] = {}
    for p in predictions:
        answers.setdefault((p.dataset, p.id), []).append(p)
        models.setdefault(p.model)
    rows = [_row(of_one) for of_one in answers.values()]
    shown = json.dumps(
        {"models": [*models], "folders": folders, "rows": rows}, separators=(",", ":")
    )
    script = SCRIPT.read_text(encoding="utf-8")
    # The page may run this very script, and nothing that stands in the data.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    context = {
        "data": Markup(shown.replace("<", "\\u003c")),  # no end of the element that holds it
        "digest": digest,
        "script": Markup(script),
    }
    write_page(out / "predictions.html", Path(__file__).parent, context)


def _row(answers: list[Prediction]) -> list[Any]:
    """What the script shows of a question, in the order in which it takes it apart."""
    question = answers[0]
    type = short_label("mixed" if question.type is None else f"type{question.type}")
    return [
        question.dataset,
        question.id,
        DOMAIN_LABELS[question.domain],
        type,
        question.kind,
        question.question,
        "; ".join(lettered(question.options)),
        gold(question),
        None if question.type == 3 else question.confidence,
        question.images,
        [[p.prediction, *mark(p), p.rule.name if p.rule else ""] for p in answers],
    ]
