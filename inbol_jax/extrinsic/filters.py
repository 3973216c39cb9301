"""The filters of generated (Type 3) questions: functions that say why they reject a question.

`FILTERS` lists them in the order in which they are applied; those that ask a model come last, in
`MODEL_FILTERS`. Each rejection is counted under the filter's name.
"""

import dataclasses
import functools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any, NamedTuple

from PIL import Image

from inbol_jax.errors import InbolError
from inbol_jax.extrinsic.config import LANGUAGES, ExtrinsicConfig
from inbol_jax.extrinsic.generators import GeneratorContext, ImageQuestion, Proposal
from inbol_jax.extrinsic.grammar import fault
from inbol_jax.records import VQAExample
from inbol_jax.responses.matching import CORRECT_AT, score
from inbol_jax.responses.refusal import is_refusal
from inbol_jax.responses.vqa_accuracy import answer_key

_WORD = re.compile(r"\w+")
# What a template or a model left behind, and control characters.
_LEFT_BEHIND = re.compile(
    r"[{}\x00-\x1f\x7f-\x9f\ufffd]|<\|?[a-z_]+\|?>|\b(?:answer|question|user|assistant)\s*:",
    re.IGNORECASE,
)


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


@dataclasses.dataclass
class FilterContext:
    """What filters look at: what the generators draw on, and the options."""

    source: GeneratorContext
    config: ExtrinsicConfig

    @functools.cached_property
    def language(self) -> str | None:
        """The language that questions must be in; None if no text of the dataset tells it."""
        wanted = self.config.language
        return usual_language(e.question for e in self.source.pool) if wanted == "auto" else wanted

    @functools.cached_property
    def asked(self) -> set[int]:
        """Hashes of (image, words) of the questions that the dataset asks or that were kept.

        It takes about 80 bytes per question. Two of ten million share a hash of 64 bits with a
        probability of 1 in 370,000.
        """
        return {_asked_key(e.image, e.question) for e in self.source.pool}


def _asked_key(image: str, question: str) -> int:
    return hash((image, *_WORD.findall(question.lower())))


def ill_formed(candidate: Candidate, context: FilterContext) -> str | None:
    """Rejects a question of fewer than three words or more than 300 characters, without a question
    mark at its end, with line breaks or control characters, or with what a template or a model left
    behind ("{noun}", "<image>", "Answer:")."""
    question = candidate.proposal.question
    if len(question.split()) < 3:
        return "fewer than three words"
    if not question.rstrip().endswith("?"):
        return "no question mark at its end"
    if len(question) > 300:
        return "longer than 300 characters"
    match = _LEFT_BEHIND.search(question)
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


def wrong_language(candidate: Candidate, context: FilterContext) -> str | None:
    """Rejects a question in another language than that of the dataset's questions."""
    wanted = context.language
    written_in = language(candidate.proposal.question) if wanted else None
    return None if written_in in (None, wanted) else f"{written_in}, not {wanted}"


def ungrammatical(candidate: Candidate, context: FilterContext) -> str | None:
    """Rejects a text that is not one well-formed question in English: of several sentences, without
    a question word or a verb, with a word twice, or with an article that no noun can follow. A
    dataset in another language is not judged."""
    return fault(candidate.proposal.question) if context.language in ("en", None) else None


def present(candidate: Candidate, context: FilterContext) -> str | None:
    """Rejects a question of `mismatched` or `false_premise` if the thing that the image is to lack
    is in it, or may be."""
    contents, proposal = context.source.contents, candidate.proposal
    if not proposal.absent or contents.absent(candidate.example.image, proposal.subject):
        return None
    return f"{proposal.subject!r} may be in the image"


def answer_present(candidate: Candidate, context: FilterContext) -> str | None:
    """Rejects a question if what answers it elsewhere is among this image's annotations.

    Questions with an image of their own pass, because the annotations of the image before its
    evidence was removed hold the answer by construction. So do the answers yes and no, and numbers.
    """
    answer = candidate.proposal.answer
    spared = not any(map(str.isalpha, answer)) or answer_key(answer) in ("yes", "no")
    if candidate.proposal.image is not None or spared:
        return None
    if not context.source.contents.present(candidate.example.image, answer):
        return None
    return f"{answer!r} is among the image's annotations"


def duplicate(candidate: Candidate, context: FilterContext) -> str | None:
    """Rejects a question that the dataset asks about the same image, or that was kept before;
    case, punctuation and spaces aside. It comes last of `FILTERS`, and remembers what passes."""
    key = _asked_key(candidate.image, candidate.proposal.question)
    if key in context.asked:
        return "asked already"
    context.asked.add(key)
    return None


class Filter(NamedTuple):
    """A filter that judges questions one by one.

    Attributes:
      reject: the reason in words, or None if the question passes.
      with_objects: whether it is on by default also if each image's objects are listed. It is then
        a fact that a thing is missing, and what the other filters would reject are good questions.
    """

    reject: Callable[[Candidate, FilterContext], str | None]
    with_objects: bool = False


# In the order in which they are applied.
FILTERS: dict[str, Filter] = {
    "ill_formed": Filter(ill_formed, with_objects=True),
    "language": Filter(wrong_language),
    "ungrammatical": Filter(ungrammatical),
    "present": Filter(present, with_objects=True),
    "answer_present": Filter(answer_present),
    "duplicate": Filter(duplicate, with_objects=True),
}


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


def answered(
    candidates: Sequence[Candidate], context: FilterContext, *, blank: bool = False
) -> list[str | None]:
    """Rejects a question that the model answers the same way each time: it would be answerable, as
    far as this model can tell.

    Args:
      blank: whether the model sees a grey image in place of the question's own, and so answers from
        the text alone.

    Returns:
      per question the reason in words, or None if it passes.
    """
    assert context.source.model is not None  # the options say so
    questions = []
    for image, proposal in ((c.image, c.proposal) for c in candidates):
        drawn = (blank_image, "blank") if blank else (context.source.root / image, image)
        questions.append(ImageQuestion(proposal.question, *drawn, options=proposal.options))
    answers = context.source.model(
        questions,
        n=context.config.model_samples,
        temperature=1.0,
        max_new_tokens=12,
        label=f"asking {'without' if blank else 'with'} image",
    )
    reasons: list[str | None] = []
    for candidate, replies in zip(candidates, answers, strict=True):
        texts = [reply.text for reply in replies]
        reason = None if replies else "could not be asked"
        known = candidate.proposal.answer
        if (answer := settled_answer(texts, known, context.config.agreement)) is not None:
            reason = f"answered {answer!r}{' without the image' if blank else ''}"
        reasons.append(reason)
    return reasons


def blank_image() -> Image.Image:
    """A grey image, which stands for none."""
    return Image.new("RGB", (64, 64), (127, 127, 127))


# Filters that ask the model about many questions at a time; they come after all others.
RejectMany = Callable[[Sequence[Candidate], FilterContext], list[str | None]]
MODEL_FILTERS: dict[str, RejectMany] = {
    "text_only": functools.partial(answered, blank=True),
    "answered": answered,
}


def default_filters(config: ExtrinsicConfig, *, lists_objects: bool) -> list[str]:
    """The names of the filters that are on if --filters names none.

    Args:
      lists_objects: whether the dataset lists each image's objects.
    """
    names = [name for name, filter in FILTERS.items() if filter.with_objects >= lists_objects]
    return [*names, *(MODEL_FILTERS if config.model else ())]


def check_filters(names: Iterable[str], option: str = "--filters") -> None:
    """Raises InbolError, naming the option, if there is no filter of a name."""
    choices = [*FILTERS, *MODEL_FILTERS]
    for name in names:
        if name not in choices:
            raise InbolError(
                f"{option} {name}: there is no such filter; choose among {', '.join(choices)}"
            )
