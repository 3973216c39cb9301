"""The filters of generated (Type 3) questions, one class per filter.

`FILTERS` lists them by name in the order in which they are applied; those that ask a model come
last. Each says why it rejects a question, and each rejection is counted under the filter's name.
"""

import functools
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, ClassVar, NamedTuple

from PIL import Image

from inbol_jax.errors import InbolError
from inbol_jax.extrinsic.asked import AskedQuestions, EvaluationQuestions
from inbol_jax.extrinsic.config import LANGUAGES, ExtrinsicConfig
from inbol_jax.extrinsic.generators import GeneratorContext, ImageQuestion, Proposal
from inbol_jax.extrinsic.grammar import fault
from inbol_jax.records import VQAExample
from inbol_jax.responses.matching import CORRECT_AT, score
from inbol_jax.responses.refusal import is_refusal
from inbol_jax.responses.vqa_accuracy import answer_key


class Candidate(NamedTuple):
    """A proposal with the example that it was made from."""

    example: VQAExample
    proposal: Proposal

    @property
    def image(self) -> str:
        return self.proposal.image or self.example.image

    @property
    def id(self) -> str:
        return f"{self.example.id}-{self.proposal.generator}"


class FilterContext(NamedTuple):
    """What filters are made from: what the generators draw on, options, and the questions of the
    evaluation splits of `--against`."""

    source: GeneratorContext
    config: ExtrinsicConfig
    evaluation: EvaluationQuestions | None = None

    def language(self) -> str | None:
        """The language that questions must be in; None if no text of the dataset tells it."""
        wanted = self.config.language
        return usual_language(e.question for e in self.source.pool) if wanted == "auto" else wanted


class Filter:
    """Rejects questions one by one.

    Attributes:
      name: its name for `--filters`, in the records and in the trail.
      with_objects: whether it is on by default also if each image's objects are listed. It is then
        a fact that a thing is missing, and what the other filters would reject are good questions.
      needs: the option without which it cannot run, and with which it is on by default.
    """

    name: ClassVar[str]
    with_objects: ClassVar[bool] = False
    needs: ClassVar[str] = ""

    def __init__(self, context: FilterContext):
        self._context = context

    def reject(self, candidate: Candidate) -> str | None:
        """Returns the reason in words, or None if the question passes."""
        raise NotImplementedError

    def remember(self, candidate: Candidate) -> None:
        """Is told each question that passed all single filters."""


class IllFormed(Filter):
    """Rejects a question of fewer than three words or more than 300 characters, without a question
    mark at its end, with line breaks or control characters, or with what a template or a model left
    behind ("{noun}", "<image>", "Answer:")."""

    name = "ill_formed"
    with_objects = True
    _left_behind = re.compile(
        r"[{}\x00-\x1f\x7f-\x9f\ufffd]|<\|?[a-z_]+\|?>|\b(?:answer|question|user|assistant)\s*:",
        re.IGNORECASE,
    )

    def reject(self, candidate: Candidate) -> str | None:
        question = candidate.proposal.question
        if len(question.split()) < 3:
            return "fewer than three words"
        if not question.rstrip().endswith("?"):
            return "no question mark at its end"
        if len(question) > 300:
            return "longer than 300 characters"
        match = self._left_behind.search(question)
        return f"holds {match[0]!r}" if match else None


@functools.cache
def _language_identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(list(LANGUAGES))
    return identifier


def language(text: str) -> str | None:
    """One of `LANGUAGES` by the model of py3langid (Lui & Baldwin 2012); None if none of them is
    probable enough."""
    name, probability = _language_identifier().classify(text)
    # A wrong guess costs a good question, so the unsure ones pass.
    return str(name) if probability >= 0.6 else None


def usual_language(texts: Iterable[str]) -> str | None:
    """The language of most of the first thousand texts; None if no text has one."""
    counts = Counter(language(text) for text in islice(texts, 1000))
    del counts[None]
    return counts.most_common(1)[0][0] if counts else None


class WrongLanguage(Filter):
    """Rejects a question in another language than that of the dataset's questions."""

    name = "language"

    def __init__(self, context: FilterContext):
        super().__init__(context)
        self._wanted = context.language()

    def reject(self, candidate: Candidate) -> str | None:
        written_in = language(candidate.proposal.question) if self._wanted else None
        return None if written_in in (None, self._wanted) else f"{written_in}, not {self._wanted}"


class Ungrammatical(Filter):
    """Rejects a text that is not one well-formed question in English: of several sentences, without
    a question word or a verb, with a word twice, or with an article that no noun can follow. A
    dataset in another language is not judged."""

    name = "ungrammatical"

    def __init__(self, context: FilterContext):
        super().__init__(context)
        self._judges = context.language() in ("en", None)

    def reject(self, candidate: Candidate) -> str | None:
        return fault(candidate.proposal.question) if self._judges else None


class Present(Filter):
    """Rejects a question of `mismatched` or `false_premise` if the thing that the image is to lack
    is in it, or may be."""

    name = "present"
    with_objects = True

    def reject(self, candidate: Candidate) -> str | None:
        contents, proposal = self._context.source.contents, candidate.proposal
        if not proposal.absent or contents.absent(candidate.example.image, proposal.subject):
            return None
        return f"{proposal.subject!r} may be in the image"


class AnswerPresent(Filter):
    """Rejects a question if what answers it elsewhere is among this image's annotations.

    Questions with an image of their own pass, because the annotations of the image before its
    evidence was removed hold the answer by construction. So do the answers yes and no, and numbers.
    """

    name = "answer_present"

    def reject(self, candidate: Candidate) -> str | None:
        answer, contents = candidate.proposal.answer, self._context.source.contents
        spared = not any(map(str.isalpha, answer)) or answer_key(answer) in ("yes", "no")
        if candidate.proposal.image is not None or spared:
            return None
        if not contents.present(candidate.example.image, answer):
            return None
        return f"{answer!r} is among the image's annotations"


class Duplicate(Filter):
    """Rejects a question that the dataset asks about the same image, or that was kept before, case
    aside. It takes about 80 bytes per question."""

    name = "duplicate"
    with_objects = True

    def __init__(self, context: FilterContext):
        super().__init__(context)
        self._asked = {self._key(e.image, e.question) for e in context.source.pool}

    @staticmethod
    def _key(image: str, question: str) -> int:
        return hash((image, question.strip().lower()))

    def reject(self, candidate: Candidate) -> str | None:
        key = self._key(candidate.image, candidate.proposal.question)
        return "asked already" if key in self._asked else None

    def remember(self, candidate: Candidate) -> None:
        self._asked.add(self._key(candidate.image, candidate.proposal.question))


class NearDuplicate(Filter):
    """Rejects a question that is nearly the same as one that the dataset asks about the same image,
    or that was kept before."""

    name = "near_duplicate"

    def __init__(self, context: FilterContext):
        super().__init__(context)
        self._asked = AskedQuestions()
        for example in context.source.pool:
            self._asked.add(example.image, example.question)

    def reject(self, candidate: Candidate) -> str | None:
        similarity = self._asked.similarity(candidate.image, candidate.proposal.question)
        if similarity < self._context.config.near_duplicate:
            return None
        return f"similarity {similarity:.2f} to another question about the image"

    def remember(self, candidate: Candidate) -> None:
        self._asked.add(candidate.image, candidate.proposal.question)


class Leaked(Filter):
    """Rejects a question that an evaluation split of `--against` asks about the same picture."""

    name = "leaked"
    needs = "against"

    def __init__(self, context: FilterContext):
        super().__init__(context)
        self._evaluation = _require(context.evaluation, self)

    def reject(self, candidate: Candidate) -> str | None:
        image = self._context.source.root / candidate.image
        leaked = self._evaluation.contains(candidate.proposal.question, image)
        return "in an evaluation split" if leaked else None


def blank_image() -> Image.Image:
    """A grey image, which stands for none."""
    return Image.new("RGB", (64, 64), (127, 127, 127))


def settled_answer(replies: Sequence[str], answer: str, agreement: float) -> str | None:
    """The answer on which replies agree: the known one if at least half of them match it, or any
    that at least the share `agreement` of them gives; None if there is none."""
    given = [reply for reply in replies if not is_refusal(reply)]
    matching = sum(score(reply, [answer]) >= CORRECT_AT for reply in given) if answer else 0
    if matching and 2 * matching >= len(replies):
        return answer
    keys = [answer_key(reply) for reply in given]
    for reply, key in zip(given, keys, strict=True):
        # At most one answer is given by more than half of the replies.
        if keys.count(key) >= agreement * len(replies):
            return reply
    return None


class Answered(Filter):
    """Rejects a question that the model answers the same way each time: it would be answerable, as
    far as this model can tell. The model is asked about many questions at a time."""

    name = "answered"
    needs = "model"
    _label, _manner = "asking with image", ""

    def __init__(self, context: FilterContext):
        super().__init__(context)
        self._model = _require(context.source.model, self)

    def _ask(self, candidate: Candidate) -> ImageQuestion:
        file, proposal = self._context.source.root / candidate.image, candidate.proposal
        options = tuple(proposal.extra.get("options", ()))
        return ImageQuestion(proposal.question, file, candidate.image, options=options)

    def reject_many(self, candidates: Sequence[Candidate]) -> list[str | None]:
        """Returns per question the reason in words, or None if it passes."""
        config = self._context.config
        answers = self._model(
            [self._ask(candidate) for candidate in candidates],
            n=config.model_samples,
            temperature=1.0,
            max_new_tokens=12,
            label=self._label,
        )
        reasons: list[str | None] = []
        for candidate, replies in zip(candidates, answers, strict=True):
            texts = [reply.text for reply in replies]
            reason = None if replies else "could not be asked"
            known = candidate.proposal.answer
            if (answer := settled_answer(texts, known, config.agreement)) is not None:
                reason = f"answered {answer!r}{self._manner}"
            reasons.append(reason)
        return reasons


class TextOnly(Answered):
    """Rejects a question that the model answers the same way each time when it sees a grey image in
    place of the question's own, so from the text alone."""

    name = "text_only"
    _label, _manner = "asking without image", " without the image"

    def _ask(self, candidate: Candidate) -> ImageQuestion:
        return super()._ask(candidate)._replace(image=blank_image, name="blank")


# In the order in which they are applied.
FILTERS: dict[str, type[Filter]] = {
    filter.name: filter
    for filter in (
        *(IllFormed, WrongLanguage, Ungrammatical, Present, AnswerPresent, Duplicate),
        *(NearDuplicate, Leaked, TextOnly, Answered),
    )
}


def _require(value: Any, filter: Filter) -> Any:
    if value is None:
        raise InbolError(f"--filters {filter.name}: needs --{filter.needs}")
    return value


def default_filters(config: ExtrinsicConfig, *, lists_objects: bool) -> list[str]:
    """The names of the filters that are on if --filters names none.

    Args:
      lists_objects: whether the dataset lists each image's objects.
    """
    return [
        name
        for name, filter in FILTERS.items()
        if (getattr(config, filter.needs) if filter.needs else filter.with_objects >= lists_objects)
    ]


def get_filters(names: Sequence[str], context: FilterContext) -> list[Filter]:
    """The filters of these names, in the order of `FILTERS`. Raises InbolError if one lacks what it
    needs."""
    return [make(context) for name, make in FILTERS.items() if name in names]


def check_filters(names: Iterable[str], option: str = "--filters") -> None:
    """Raises InbolError, naming the option, if there is no filter of a name."""
    for name in names:
        if name not in FILTERS:
            raise InbolError(
                f"{option} {name}: there is no such filter; choose among {', '.join(FILTERS)}"
            )
