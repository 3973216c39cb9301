"""`inbol audit`: what `inbol extrinsic` made on one page, with counts, samples, and whether the
text alone gives the questions away.

If it does, a model can learn to refuse without looking at the image. A linear classifier on words
(scikit-learn) is therefore cross-validated over images, and asked to tell generated questions from
those that the images answer.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import numpy as np

from inbol_jax.artifacts import one_writer, read_jsonl, write_json
from inbol_jax.data.vqa import load_dataset_folder
from inbol_jax.extrinsic.config import AuditConfig
from inbol_jax.extrinsic.files import KEPT, QUESTIONS, Header, read_header
from inbol_jax.extrinsic.filters import FILTERS
from inbol_jax.intervals import Estimate
from inbol_jax.pages.page import embed, write_page
from inbol_jax.pages.table import Table
from inbol_jax.progress import say
from inbol_jax.questions import Question
from inbol_jax.records import VQAExample

LEAST_QUESTIONS = 20  # of each class; with fewer, an AUC says nothing
MAX_TEXTS = 10_000  # of each class, for the classifier
FOLDS = 5
TELLING_AUC = 0.75  # above it the audit warns
STOPPING_AUC = 0.85  # above it `inbol extrinsic` stops
TELLING = 12  # words shown of each class


class AuditedQuestion(Question, frozen=True, kw_only=True):
    """A generated question, or an answerable one."""

    remedy: ClassVar[str] = "; run `inbol extrinsic` again"

    generator: str = ""
    removed: dict[str, Any] = msgspec.field(default_factory=dict)

    @property
    def original(self) -> str:
        """The image before its evidence was removed."""
        return str(self.removed.get("image", self.image))


@one_writer
def audit(config: AuditConfig) -> dict[str, Any]:
    """Writes audit.html and audit.json. Returns what the latter holds.

    Raises:
      InbolError: if there are no generated questions, or no dataset to compare them with.
    """
    header = read_header(config.out)
    images = config.out / header.images
    dataset = load_dataset_folder(config.out / header.data, images=images)
    rng = np.random.default_rng(config.seed)
    generated = [*read_jsonl(config.out / QUESTIONS, AuditedQuestion.from_json)]
    drawn = some(generated, rng)
    text = text_shortcut(drawn, answerable(dataset.examples, rng), config.seed)
    result = {name: getattr(header, name) for name in ("rows", "counts", "set_aside")}
    result |= {"text": text, "findings": list(findings(header, text))}
    write_json(config.out / "audit.json", result)

    settings = [(name, str(value)) for name, value in header.settings.items()]
    set_aside = [(*key.split(": ", 1), str(n)) for key, n in header.set_aside.items()]
    page = config.out / "audit.html"
    context = {
        "findings": result["findings"],
        "funnel": funnel_table(header, text),
        "telling": text["telling"] if text else {},
        "set_aside": Table("Examples without a question", ("Generator", "cause", "n"), set_aside),
        "settings": Table("Settings", ("Setting", "Value"), settings),
        "kept": samples(generated, config.samples, rng),
        "embed": functools.partial(embed, images),
    }
    write_page(page, Path(__file__).parent, context)
    for sentence in result["findings"]:
        say(sentence)
    say(f"audit -> {page}")
    return result


def answerable(examples: Sequence[VQAExample], rng: np.random.Generator) -> list[AuditedQuestion]:
    """Random questions that one image answers."""
    own = [e for e in examples if e.answerable is not False and len(e.images) == 1]
    return [AuditedQuestion(e.id, e.images, e.question) for e in some(own, rng)]


def some(questions: Sequence[Any], rng: np.random.Generator) -> list[Any]:
    """Random ones, as many as are tested."""
    return [questions[i] for i in rng.permutation(len(questions))[:MAX_TEXTS]]


def samples(
    questions: Sequence[AuditedQuestion], n: int, rng: np.random.Generator
) -> dict[str, list[AuditedQuestion]]:
    """Up to n random questions of each generator."""
    drawn: dict[str, list[AuditedQuestion]] = {}
    for i in rng.permutation(len(questions)):
        group = drawn.setdefault(questions[i].generator, [])
        if len(group) < n:
            group.append(questions[i])
    return dict(sorted(drawn.items()))


def text_shortcut(
    generated: Sequence[AuditedQuestion], answerable: Sequence[AuditedQuestion], seed: int
) -> dict[str, Any] | None:
    """How well a classifier tells generated questions from answerable ones by their text.

    Returns:
      "auc": {"all", or a generator: {"value", "low", "high"}}; "telling": {"unanswerable",
      "answerable": the words and pairs of words that speak most for it}. None if there are too few
      questions, or those of a class are about one image.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict

    folds = min(FOLDS, *(len({q.original for q in side}) for side in (generated, answerable)))
    if min(len(generated), len(answerable)) < LEAST_QUESTIONS or folds < 2:
        return None
    questions = [*generated, *answerable]
    label = np.arange(len(questions)) < len(generated)
    # A text's words (a capital counts), marks and pairs of neighbours, scaled to length 1, so that
    # a long text counts no more than a short one: sparse f64[n, features].
    vectorizer = TfidfVectorizer(
        token_pattern=r"\w+|[^\w\s]",
        ngram_range=(1, 2),
        binary=True,
        use_idf=False,
        lowercase=False,
    )
    x = vectorizer.fit_transform([q.question for q in questions])
    # Both classes weigh the same, however many texts of each there are.
    classifier = LogisticRegression(class_weight="balanced", max_iter=1000)
    # Each text is scored by a classifier that saw no text about its image.
    score = cross_val_predict(
        classifier,
        x,
        label,
        groups=np.array([q.original for q in questions], object),
        cv=StratifiedGroupKFold(folds, shuffle=True, random_state=seed),
        method="decision_function",
    )
    generator = np.array([q.generator for q in questions])
    auc = {"all": auc_estimate(score, label)}
    for name in sorted({q.generator for q in generated}):
        chosen = ~label | (generator == name)
        auc[name] = auc_estimate(score[chosen], label[chosen])

    # The classifier's penalty keeps the weights of rare words small.
    ordered = vectorizer.get_feature_names_out()[np.argsort(classifier.fit(x, label).coef_[0])]
    telling = {"unanswerable": [*ordered[::-1][:TELLING]], "answerable": [*ordered[:TELLING]]}
    return {"auc": {name: a._asdict() for name, a in auc.items()}, "telling": telling}


def auc_estimate(score: np.ndarray, label: np.ndarray) -> Estimate:
    """Area under the ROC curve: how often a positive scores above a negative, a tie counting half.

    The interval is that of Hanley and McNeil 1982, "The meaning and use of the area under a
    receiver operating characteristic (ROC) curve".

    Args:
      score: f64[n].
      label: bool[n], with both values among them.
    """
    from sklearn.metrics import roc_auc_score

    value = float(roc_auc_score(label, score))
    n, m = int(label.sum()), int((~label).sum())
    # Chances that two random positives both score above one negative, and one above two negatives.
    two_positives, two_negatives = value / (2 - value), 2 * value**2 / (1 + value)
    variance = value * (1 - value)
    variance += (n - 1) * (two_positives - value**2) + (m - 1) * (two_negatives - value**2)
    half = 1.959964 * float(np.sqrt(max(0.0, variance) / (n * m)))
    return Estimate(value, max(0.0, value - half), min(1.0, value + half))


def findings(header: Header, text: Mapping[str, Any] | None) -> Iterator[str]:
    """Yields what the numbers say, in sentences; a warning comes first."""
    auc = {name: a["value"] for name, a in text["auc"].items()} if text else {"all": None}
    total = auc.pop("all")
    if total is not None and total > TELLING_AUC:
        worst = sorted((name for name in auc if auc[name] > TELLING_AUC), key=lambda n: -auc[n])
        named = ", ".join(f"{name} ({auc[name]:.2f})" for name in worst)
        yield (
            f"Warning: the text alone tells generated from real questions (AUC {total:.2f}), and a "
            "model would learn to refuse by wording. It is the questions of "
            f"{named or 'all generators together'}: leave them out of --generators. The default "
            "ones ask the dataset's own questions."
        )
    kept, proposed = header.rows, sum(header.counts.values())
    yield f"{kept} of {proposed} proposed questions passed the filters."
    yield (
        f"Too few questions for the shortcut test: {LEAST_QUESTIONS} of each class, about several "
        "images, are needed."
        if total is None
        else "A classifier that sees the text alone tells generated from answerable questions at "
        f"AUC {total:.3f}; 0.5 is chance."
    )


def funnel_table(header: Header, text: Mapping[str, Any] | None) -> Table:
    """The numbers of proposed, rejected and kept questions, and how well their text tells them,
    per generator and for all."""
    generators, filters = header.generators, [*FILTERS]
    auc = text["auc"] if text else {}
    rows = []
    for name, members in (*((name, [name]) for name in generators), ("all", generators)):
        *rejected, kept = (
            sum(header.counts.get(f"{member}: {verdict}", 0) for member in members)
            for verdict in (*filters, KEPT)
        )
        told = "{value:.3f} ({low:.3f} to {high:.3f})".format(**auc[name]) if name in auc else ""
        rows.append([name, *map(str, (kept + sum(rejected), *rejected, kept)), told])
    return Table(
        "Questions that were proposed, rejected by each filter in turn, and kept",
        ("Generator", "proposed", *filters, "kept", "AUC of the text"),
        rows,
        (("", 2), ("rejected by", len(filters)), ("", 2)),
    )
