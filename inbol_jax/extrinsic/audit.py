"""`inbol audit`: what `inbol extrinsic` made on one page, with counts, samples, and whether the
text alone gives the questions away."""

import functools
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from inbol_jax.artifacts import one_writer, read_jsonl, write_json
from inbol_jax.data.rows import Unusable, image_check
from inbol_jax.data.vqa import VQADataset, load_dataset_folder
from inbol_jax.extrinsic.answers import AnswerStore, model_answers
from inbol_jax.extrinsic.audit_page import (
    AuditedQuestion,
    AuditResult,
    ModelAnswersSummary,
    ModelShortcut,
    Share,
    TextShortcut,
    findings,
    text_warning,
    write_audit_page,
)
from inbol_jax.extrinsic.config import LEAST_QUESTIONS, AuditConfig
from inbol_jax.extrinsic.files import questions_file, read_header, trail_file
from inbol_jax.extrinsic.filters import blank_image
from inbol_jax.extrinsic.generators import ImageQuestion, Reply
from inbol_jax.extrinsic.shortcut import auc, auc_difference, cross_validated, telling_ngrams
from inbol_jax.intervals import share
from inbol_jax.models.loading import load_pretrained
from inbol_jax.models.processor import prompt_for
from inbol_jax.progress import say
from inbol_jax.responses.refusal import is_refusal
from inbol_jax.sharding import make_mesh

MAX_TEXTS = 10_000  # of each class, for the classifier
TELLING = 12  # n-grams shown of each class


class Reservoirs:
    """Uniform random samples of streams, up to `size` items per key (Vitter 1985, algorithm R)."""

    def __init__(self, size: int, seed: int):
        self.items: dict[Hashable, list[Any]] = {}
        self._seen: dict[Hashable, int] = {}
        self._size, self._rng = size, np.random.default_rng(seed)

    def add(self, key: Hashable, item: Any) -> None:
        seen = self._seen[key] = self._seen.get(key, 0) + 1
        kept = self.items.setdefault(key, [])
        if len(kept) < self._size:
            kept.append(item)
        elif (place := int(self._rng.integers(seen))) < self._size:
            kept[place] = item


@one_writer
def audit(config: AuditConfig) -> AuditResult:
    """Writes audit.html and audit.json. Returns what the latter holds.

    Raises:
      InbolError: if there are no generated questions, no dataset to compare them with, or a model
        that cannot be loaded.
    """
    file = questions_file(config.out)
    header = read_header(file)
    images = config.out / header["images"]
    if config.data is None:
        source = config.out / header["data"]
        dataset = load_dataset_folder(source, images=config.images or images)
    else:
        dataset = load_dataset_folder(config.data, images=config.images)

    texts = Reservoirs(MAX_TEXTS, config.seed)  # by whether they were generated
    samples = Reservoirs(config.samples, config.seed)
    for question in read_jsonl(file, AuditedQuestion.from_json):
        texts.add(True, question)
        samples.add(("kept", question.generator), question)
    for example in dataset.examples:
        if example.answerable is not False and isinstance(example.image, str):
            about = (example.id, example.question, *[example.image] * 2)
            texts.add(False, AuditedQuestion(*about, options=example.options))
    if trail_file(file).is_file():
        for question in read_jsonl(trail_file(file), AuditedQuestion.from_json):
            samples.add(("rejected", question.filter), question)

    generated, answerable = texts.items.get(True, []), texts.items.get(False, [])
    text = text_shortcut(generated, answerable, config.seed)
    model = model_shortcut(config, generated, answerable, images, dataset) if config.model else None
    result = AuditResult(header, text, model)
    write_json(config.out / "audit.json", result.to_json())
    page = config.out / "audit.html"
    write_audit_page(page, result, samples.items, images)
    for sentence in findings(result):
        say(sentence)
    say(f"audit -> {page}")
    if warning := text_warning(result.text):
        say(warning)
    return result


def text_shortcut(
    generated: Sequence[AuditedQuestion], answerable: Sequence[AuditedQuestion], seed: int
) -> TextShortcut | None:
    """How well a classifier tells the questions by their text; None if there are too few."""
    if min(len(generated), len(answerable)) < LEAST_QUESTIONS:
        return None
    questions = [*generated, *answerable]
    texts = [q.question for q in questions]
    labels = np.arange(len(questions)) < len(generated)
    try:
        scores = cross_validated(texts, labels, [q.original for q in questions], seed)
    except ValueError:  # all questions of a class are about one image, or have no words
        return None
    aucs = {"all": auc(scores, labels)}
    generators = np.array([q.generator for q in questions])
    for name in sorted({q.generator for q in generated}):
        chosen = ~labels | (generators == name)
        aucs[name] = auc(scores[chosen], labels[chosen])
    for_generated, for_answerable = telling_ngrams(texts, labels, TELLING)
    return TextShortcut(aucs, {"unanswerable": for_generated, "answerable": for_answerable})


def model_shortcut(
    config: AuditConfig,
    generated: Sequence[AuditedQuestion],
    answerable: Sequence[AuditedQuestion],
    images: Path,
    dataset: VQADataset,
) -> ModelShortcut | None:
    """How the model answers with the image and with a grey one; None if there are too few
    questions."""
    assert config.model is not None
    rng = np.random.default_rng(config.seed)
    files: list[tuple[AuditedQuestion, Path]] = []  # with the image, the generated ones first
    sizes = []
    unusable = 0
    for questions, root in ((generated, images), (answerable, dataset.root)):
        before, check = len(files), image_check(root)
        for i in rng.permutation(len(questions))[: config.model_questions]:
            try:
                check(questions[i].image)
                files.append((questions[i], root / questions[i].image))
            except Unusable:  # missing, or outside the folder
                unusable += 1
        sizes.append(len(files) - before)
    if min(sizes) < LEAST_QUESTIONS:
        return None
    prompt = prompt_for(config.model, config.prompt, [dataset.file])
    mesh = make_mesh(*config.mesh)
    checkpoint = load_pretrained(config.model, dtype=config.dtype, mesh=mesh).asked_by(prompt)
    with AnswerStore(config.out / "audit.answers.jsonl") as store:
        ask = functools.partial(
            model_answers(checkpoint, store, seed=config.seed, batch_size=config.batch_size),
            n=1,
            temperature=0.0,
            max_new_tokens=config.max_new_tokens,
        )
        with_image = ask(
            [ImageQuestion(q.question, file, str(file), options=q.options) for q, file in files],
            label="asking with image",
        )
        with_blank = ask(
            [ImageQuestion(q.question, blank_image, "blank", options=q.options) for q, _ in files],
            label="asking without image",
        )

    asked = [bool(a) and bool(b) for a, b in zip(with_image, with_blank, strict=True)]
    labels = (np.arange(len(files)) < sizes[0])[asked]
    if min(labels.sum(), (~labels).sum()) < LEAST_QUESTIONS:
        return None
    seen = [replies[0] for replies, both in zip(with_image, asked, strict=True) if both]
    blank = [replies[0] for replies, both in zip(with_blank, asked, strict=True) if both]
    return ModelShortcut(
        unusable + len(files) - len(labels),
        _summarise(seen, labels),
        _summarise(blank, labels),
        auc_difference(_doubts(seen), _doubts(blank), labels),
    )


def _summarise(replies: Sequence[Reply], labels: np.ndarray) -> ModelAnswersSummary:
    refused = np.array([is_refusal(reply.text) for reply in replies])
    shares = []
    for chosen in (labels, ~labels):
        k, n = int(refused[chosen].sum()), int(chosen.sum())
        shares.append(Share(*share(k, n), n))
    return ModelAnswersSummary(auc(_doubts(replies), labels), *shares)


def _doubts(replies: Sequence[Reply]) -> np.ndarray:
    """f64[n]: 1 - p of an answer and 1 + p of a refusal, where p is its probability."""
    p = np.exp(np.minimum(0.0, [reply.logprob for reply in replies]))
    return np.where([is_refusal(reply.text) for reply in replies], 1 + p, 1 - p)
