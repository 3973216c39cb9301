"""A model in Python: what it answers about pictures, how sure it is, and how it would refuse."""

import contextlib
import dataclasses
import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from scipy.special import expit

from inbol_jax.answers import Generation
from inbol_jax.confidence.boundary import Thresholds, classify, question_type
from inbol_jax.defaults import NEW_TOKENS
from inbol_jax.errors import InbolError
from inbol_jax.evaluation.metrics import Summary, summarise
from inbol_jax.evaluation.prediction import Prediction
from inbol_jax.intervals import Estimate, share
from inbol_jax.losses import sequence_logprob
from inbol_jax.models.loading import Checkpoint, load_pretrained
from inbol_jax.models.packing import Branch, RowShape, collate, pack_row
from inbol_jax.models.processor import load_image_inputs, make_text_encoder, prompt_for
from inbol_jax.prompts import PromptOptions
from inbol_jax.questions import METRICS
from inbol_jax.records import Boundary, VQAExample
from inbol_jax.responses.outcome import outcome
from inbol_jax.responses.refusal import find_refusal
from inbol_jax.sampling.config import SamplingOptions
from inbol_jax.sampling.forced import answer_and_force
from inbol_jax.sampling.generate import generate
from inbol_jax.stage import SetAside
from inbol_jax.taught_refusals import refusals_of
from inbol_jax.training.step import target_logprobs

Picture = Path | str | Image.Image | np.ndarray | None


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a model said to a question.

    Attributes:
      text: the response.
      refusal: the rule by which it refuses, such as "i do not know"; None if it answers.
      likelihood: of the whole response, in [0, 1].
      chance_of_refusing: P(refusals) / (P(refusals) + P(best other)) of the first token, in [0, 1],
        before any rule that `inbol calibrate` keeps; None for samples.
    """

    text: str
    refusal: str | None
    likelihood: float
    chance_of_refusing: float | None = None

    @property
    def refused(self) -> bool:
        """Whether the response is a refusal."""
        return self.refusal is not None


class Model:
    """A checkpoint that can be asked. All methods take a picture as a path, a PIL image, an array
    u8[height, width, 3] or None, and the question about it.

    Args:
      refusals: texts whose first tokens are those of a refusal.
    Attributes:
      checkpoint: the Flax module, its variables, and what else belongs to them.
    """

    def __init__(self, checkpoint: Checkpoint, refusals: Sequence[str]):
        self.checkpoint, self._refusals = checkpoint, refusals

    def ask(
        self,
        picture: Picture | Sequence[Picture],
        question: str | Sequence[str],
        *,
        max_new_tokens: int = NEW_TOKENS,
        batch_size: int = 32,
    ) -> Answer | list[Answer]:
        """The greedy answer; of a list of questions a list of them, about one picture or a list of
        as many.

        Raises:
          InbolError: if a picture cannot be read, or a question not be asked.
        """
        many = not isinstance(question, str)
        questions = question if many else [question]
        pictures = picture if isinstance(picture, list | tuple) else [picture] * len(questions)
        if len(pictures) != len(questions):
            raise InbolError(f"{len(questions)} questions about {len(pictures)} pictures")
        pairs = [*zip(pictures, questions, strict=True)]
        with _folder(pairs) as (folder, examples), _all_asked() as set_aside:
            batches = answer_and_force(
                self.checkpoint,
                examples,
                folder,
                refusals=self._refusals,
                max_new_tokens=max_new_tokens,
                batch_size=batch_size,
                label=None,
                set_aside=set_aside,
            )
            said = {example.id: answer for batch in batches for example, answer in batch}
        found = [_answer(a.said, float(expit(a.logodds))) for _, a in sorted(said.items())]
        return found if many else found[0]

    def sample(
        self,
        picture: Picture,
        question: str,
        n: int = 10,
        *,
        temperature: float = 1.0,
        seed: int = 0,
        max_new_tokens: int = NEW_TOKENS,
    ) -> list[Answer]:
        """n answers drawn from the model."""
        options = SamplingOptions(temperature, n=n, max_new_tokens=max_new_tokens)
        with _folder([(picture, question)]) as (folder, examples), _all_asked() as set_aside:
            how = {"options": options, "seed": seed, "batch_size": 1, "label": None}
            batches = generate(self.checkpoint, examples, folder, **how, set_aside=set_aside)
            return [_answer(said) for batch in batches for _, all in batch for said in all]

    def confidence(
        self,
        picture: Picture,
        question: str,
        answers: str | Sequence[str],
        *,
        metric: str = METRICS[0],
        **options: Any,
    ) -> Estimate:
        """The confidence c(x): the share of n samples that give one of the gold answers, with its
        95% Wilson interval.

        Args:
          metric: one of `questions.METRICS`.
          options: of `sample`.
        """
        gold = (answers,) if isinstance(answers, str) else tuple(answers)
        example = VQAExample("0", (), question, gold, metric=metric)
        samples = self.sample(picture, question, **options)
        correct = sum(outcome(example, said.text) == "correct" for said in samples)
        return share(correct, len(samples))

    def logprobs(
        self, picture: Picture, question: str, responses: str | Sequence[str]
    ) -> np.ndarray:
        """The log-probabilities of given responses, their ends included, f32[n], in nats."""
        responses = [responses] if isinstance(responses, str) else responses
        if not responses:
            raise InbolError("no response is given")
        checkpoint, encoder = self.checkpoint, make_text_encoder(self.checkpoint)
        with _folder([(picture, question)]) as (folder, (example,)):
            paths, text = [folder / name for name in example.images], encoder.text(example)
            grids = encoder.grids(paths)
            prompt = encoder.prompt(text, grids)
            branches = [Branch(encoder.response(text, said, grids)) for said in responses]
            row = pack_row(prompt, branches, RowShape.fitting([(prompt, branches)]))
            row |= load_image_inputs(checkpoint, paths, grids)
        batch = collate([row], 1)
        tokens = target_logprobs(checkpoint.model, checkpoint.variables, batch)  # [1, a]
        # Branches are numbered from 1: [n, a], true where a target is of the branch.
        of_branch = batch["target_segment"] == np.arange(1, len(branches) + 1)[:, None]
        return np.asarray(sequence_logprob(tokens, of_branch))


def load(
    model: str | Path,
    *,
    prompt: str = PromptOptions.prompt,
    system: str | None = None,
    templates: str = "one",
    dtype: str = "auto",
) -> Model:
    """A model by its folder or hub id.

    Args:
      prompt, system: how questions are put, as in `inbol evaluate`.
      templates: the refusals that it was taught, a set of `inbol build`.
      dtype: "float32", "bfloat16", or "auto" for what suits the checkpoint.

    Raises:
      InbolError: if it cannot be loaded, or not be asked so.
    """
    chosen = prompt_for(model, PromptOptions(prompt, system), (), tell=lambda said: None)
    return Model(load_pretrained(model, dtype=dtype).asked_by(chosen), refusals_of(templates))


def score(rows: Iterable[Mapping[str, Any]]) -> Summary:
    """Acc, RefR and T of anybody's answers: {model: {domain: {group: its scores}}}.

    Args:
      rows: one per answer, with `id`, `question`, `prediction` and the gold `answers`, or
        `answerable` false; perhaps `options`, `metric`, `images`, `model`, `dataset`, `domain`, and
        the base's `confidence`, without which an answerable question is neither of Type 1 nor 2.

    Raises:
      InbolError: if a row lacks a column, or an answer stands twice.
    """
    unnamed = {"model": "model", "dataset": "dataset", "domain": "in_domain", "images": ()}
    predictions = []
    for number, row in enumerate(rows):
        named = unnamed | dict(row)
        named["id"] = str(number if row.get("id") is None else row["id"])
        if isinstance(row.get("answers"), str):
            named["answers"] = [row["answers"]]
        if row.get("confidence") is not None:  # it may be one of numpy's numbers
            named["confidence"] = float(row["confidence"])
        try:
            predictions.append(_prediction(named))
        except InbolError as error:
            cause = str(error).removesuffix(Prediction.remedy)
            raise InbolError(f"row {number}: {cause}") from error
    return summarise(predictions)


def _prediction(row: Mapping[str, Any]) -> Prediction:
    """The answer of a row, judged."""
    example, confidence = VQAExample.from_json(row), row.get("confidence")
    if not example.judgeable:
        raise InbolError("it needs the gold answers, or answerable false")
    boundary = Boundary.MIXED
    if confidence is not None:
        boundary = classify(confidence, 1, Thresholds())
    type = question_type(boundary, answerable=example.answerable)
    judged = {"type": type, "confidence": 0.0 if type == 3 else confidence or 0.0}
    judged["outcome"] = outcome(example, str(row.get("prediction")))
    return Prediction.from_json(row | example.to_json() | judged)


def _answer(said: Generation, chance: float | None = None) -> Answer:
    rule = find_refusal(said.text)
    return Answer(said.text, rule and rule.name, math.exp(said.logprob), chance)


@contextlib.contextmanager
def _all_asked() -> Iterator[SetAside]:
    """What may set nothing aside."""
    set_aside = SetAside(0.0)
    yield set_aside
    for id, reason in set_aside.reasons.items():
        raise InbolError(f"question {int(id)}: {reason}")


@contextlib.contextmanager
def _folder(
    pairs: Sequence[tuple[Picture, str]],
) -> Iterator[tuple[Path, list[VQAExample]]]:
    """The folder that all pictures lie below as files, and the questions about them in order of
    their ids. What is no file yet becomes one, for all that reads images reads files."""
    with tempfile.TemporaryDirectory() as name:
        root, examples = Path("/"), []
        for i, (picture, question) in enumerate(pairs):
            id = f"{i:08}"
            files = () if picture is None else (_file(picture, Path(name) / id),)
            images = tuple(os.path.relpath(file, root) for file in files)
            examples.append(VQAExample(id, images, question))
        yield root, examples


def _file(picture: Picture, file: Path) -> Path:
    """A picture's file: its own, or `file`, as PNG, in which nothing is lost."""
    if isinstance(picture, Path | str):
        return Path(picture)
    try:
        image = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
        image = ImageOps.exif_transpose(image)
        if image.mode in ("CMYK", "YCbCr", "LAB", "HSV"):  # which PNG has not
            image = image.convert("RGB")
        image.save(file, "PNG")
    except (TypeError, ValueError, OSError, AttributeError) as error:
        raise InbolError(
            f"a picture is a path, a PIL image or an array u8[height, width, 3]: {error}"
        ) from error
    return file
