"""Generators of Type 3 questions: each proposes questions that an example's image does not answer.

The paper's generation is not public, so this is our own design. A generator is a function under a
name; one of your own is a decorated function:

    @register_generator("weather")
    def weather(example, context, rng):
        yield Proposal("What will the weather be tomorrow?", "weather")
"""

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from inbol_jax.errors import InbolError
from inbol_jax.extrinsic.contents import NOT_THINGS, ImageContents
from inbol_jax.extrinsic.grammar import subject
from inbol_jax.records import VQAExample

# Attributes that no picture shows, asked about something that the picture does show.
UNSEEABLE: dict[str, str] = {
    "price": "How much does the {noun} cost?",
    "owner": "Who owns the {noun}?",
    "smell": "What does the {noun} smell like?",
    "age": "How old is the {noun}?",
    "taste": "What does the {noun} taste like?",
    "sound": "What sound does the {noun} make?",
    "behind": "What is behind the {noun}?",
}

# Asked about something that is not there: each presumes that it is.
FALSE_PREMISE: tuple[str, ...] = (
    "What is the {noun} next to?",
    "What is in front of the {noun}?",
    "What is on top of the {noun}?",
    "Which side of the picture is the {noun} on?",
    "What is the {noun} made of?",
    "Why is the {noun} in the picture?",
)

# What lies outside the frame, in space or in time.
BEYOND_FRAME: tuple[str, ...] = (
    "What is just outside the left edge of the picture?",
    "What is just outside the right edge of the picture?",
    "What is above the top edge of the picture?",
    "What is below the bottom edge of the picture?",
    "Who is looking at the scene from outside the picture?",
    "What happened right before this picture was taken?",
    "What will happen right after this picture was taken?",
    "What is on the far side of the {noun}?",
    "What is on the back of the {noun}?",
    "Where was the {noun} an hour before the picture was taken?",
)

# For a vision-language model that sees the image. What it writes goes through the same filters as
# every other question.
WRITER_PROMPT = """\
Write {n} questions about this image that cannot be answered from it, however closely one looks. \
Each question must be about something that the image shows, sound natural, and ask for \
information that the image does not hold: what is hidden, cut off, outside the frame, before or \
after the moment, or a property that cannot be seen. No question may be answered by common \
knowledge, by yes or no, or by reading text in the image. A question that someone has asked about \
this image and that can be answered: "{question}"
Write one question on each line, each ending with a question mark, without numbers and without \
answers."""


@dataclasses.dataclass(frozen=True, slots=True)
class Proposal:
    """A question that its generator takes to be beyond the image.

    Attributes:
      question: the question as the user would ask it.
      generator: name of the generator.
      subject: the thing that the question presumes to be in the image; "" for none.
      absent: whether the image is to lack the subject, which the filter `present` then checks.
      answer: what answers the question elsewhere, for another image or before the evidence was
        removed; "" if that is not known.
      image: the question's image if it is not the example's own, relative to the same folder.
      options: what a multiple-choice question offers.
      extra: further columns of the record.
    """

    question: str
    generator: str
    subject: str = ""
    absent: bool = False
    answer: str = ""
    image: str | None = None
    options: tuple[str, ...] = ()
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class CannotPropose(Exception):
    """A generator raises it if it can make no question of an example. The causes are counted, so
    they come from a small set of phrases."""


class Reply(NamedTuple):
    """One answer of a model, with its log-probability in nats if the model tells it."""

    text: str
    logprob: float = 0.0


class ImageQuestion(NamedTuple):
    """A question about an image, for a model.

    Attributes:
      question: the question.
      image: file of the image, or a function that draws it, which is called only if the answer is
        not known yet.
      name: name of the image, the same in every run. The question, it and the bytes of the file
        identify an answer.
      drawn_from: the file that the function draws from, if it does.
      options: what a multiple-choice question offers.
    """

    question: str
    image: Path | Callable[[], Image.Image]
    name: str
    drawn_from: Path | None = None
    options: tuple[str, ...] = ()


# A vision-language model, or an endpoint that has one. It is called with image questions and the
# options n, temperature, max_new_tokens and label, and returns n replies per question in their
# order; none for one that could not be asked.
Answerer = Callable[..., list[list[Reply]]]


@dataclasses.dataclass(frozen=True, slots=True)
class GeneratorContext:
    """What generators draw on.

    Attributes:
      pool: all questions that may be drawn on.
      contents: what is known of each image.
      root: image folder.
      model: the vision-language model of `--model`; None if there is none.
      writer: the endpoint that writes questions, or else the model; None if there is neither.
      prepared: what the generators' `prepare` returned, by the example's id.
    """

    pool: Sequence[VQAExample]
    contents: ImageContents
    root: Path = Path()
    model: Answerer | None = None
    writer: Answerer | None = None
    prepared: Mapping[str, Any] = dataclasses.field(default_factory=dict)


Propose = Callable[[VQAExample, GeneratorContext, np.random.Generator], Iterator[Proposal]]
Prepare = Callable[[Sequence[VQAExample], GeneratorContext], Mapping[str, Any]]
Check = Callable[[GeneratorContext], None]


class Generator(NamedTuple):
    """A generator as registered.

    Attributes:
      name: its name for `--generators` and in the records.
      propose: yields questions about one example's image. The first that passes the filters is
        kept, so later ones are second tries. It may raise CannotPropose.
      prepare: looks at a chunk of examples together, so that a model sees them in batches, and
        returns by id what `propose` needs of each.
      check: raises InbolError if the pool, the image folder or the models are not what it needs.
    """

    name: str
    propose: Propose
    prepare: Prepare | None = None
    check: Check | None = None


GENERATORS: dict[str, Generator] = {}


def register_generator(
    name: str, *, prepare: Prepare | None = None, check: Check | None = None
) -> Callable[[Propose], Propose]:
    """Puts a function under a name for `--generators`."""

    def register(propose: Propose) -> Propose:
        GENERATORS[name] = Generator(name, propose, prepare, check)
        return propose

    return register


def get_generators(names: Sequence[str]) -> list[Generator]:
    """The generators of these names. Raises InbolError if there is none of a name, a name is there
    twice, or there are no names."""
    for name in names:
        if name not in GENERATORS:
            raise InbolError(
                f"--generators {name}: there is no such generator; choose among "
                f"{', '.join(GENERATORS)}"
            )
    if not names or len(set(names)) < len(names):
        raise InbolError("--generators: name each generator once, and at least one")
    return [GENERATORS[name] for name in names]


# Questions of number and of existence presume nothing.
_ANSWERED_BY_ABSENCE = re.compile(
    r"^(?:how many|how much|is|are|was|were|do|does|did|can|could|has|have|what number)\b",
    re.IGNORECASE,
)
# Draws of another image's question. Several are needed because many subjects are in both images.
_TRIES = 20
_WRITTEN = 3  # questions that a model writes per prompt
_BULLET = re.compile(r"^(?:[-*•\u2013]+|\(?\d{1,2}[.):])\s+")
_PLURAL = re.compile(r"(?:\b(?:people|men|women|children|feet|teeth)|(?<![sui])s)$")
_PLURAL_VERBS = {"is": "are", "was": "were", "does": "do"}


def fill(template: str, noun: str) -> str:
    """The template with the noun, whose verb agrees with it ("How old are the shoes?")."""
    question = template.format(noun=noun)
    if not _PLURAL.search(noun):
        return question
    verb = re.compile(rf"\b(is|was|does) the {re.escape(noun)}\b")
    return verb.sub(lambda match: f"{_PLURAL_VERBS[match[1]]} the {noun}", question)


def usual_answer(example: VQAExample) -> str:
    """The most frequent gold answer; "" if there is none."""
    answers = example.answer_texts
    return max(answers, key=answers.count, default="")


def _shown(example: VQAExample, contents: ImageContents) -> list[str]:
    """Nouns for things that the image shows: its question's subject and its listed objects."""
    objects = example.extra.get("objects")
    listed = objects if isinstance(objects, list) else []
    nouns = []
    for phrase in (subject(example.question) or "", *(str(thing).lower() for thing in listed)):
        noun = phrase.split()[-1] if phrase.strip() else ""
        if noun and noun not in NOT_THINGS and contents.present(example.image, phrase):
            nouns.append(noun)
    return nouns


@register_generator("unseeable")
def unseeable(
    example: VQAExample, context: GeneratorContext, rng: np.random.Generator
) -> Iterator[Proposal]:
    """An attribute that no picture shows, of something that this picture does show ("How much does
    the star cost?")."""
    if nouns := _shown(example, context.contents):
        template = list(UNSEEABLE.values())[rng.integers(len(UNSEEABLE))]
        noun = nouns[rng.integers(len(nouns))]
        yield Proposal(fill(template, noun), "unseeable", noun)


@register_generator("mismatched")
def mismatched(
    example: VQAExample, context: GeneratorContext, rng: np.random.Generator
) -> Iterator[Proposal]:
    """A question that was asked of another image, about a thing that this one does not contain."""
    for other, presumed in _questions_of_others(example, context, rng):
        if not _ANSWERED_BY_ABSENCE.match(other.question):
            about = usual_answer(other), None, other.options
            yield Proposal(other.question, "mismatched", presumed, True, *about)


@register_generator("false_premise")
def false_premise(
    example: VQAExample, context: GeneratorContext, rng: np.random.Generator
) -> Iterator[Proposal]:
    """A question of our own about something that is in another image ("What is the kite next to?"
    about an image without a kite)."""
    for _, noun in _questions_of_others(example, context, rng):
        template = FALSE_PREMISE[rng.integers(len(FALSE_PREMISE))]
        yield Proposal(fill(template, noun), "false_premise", noun, True)


@register_generator("beyond_frame")
def beyond_frame(
    example: VQAExample, context: GeneratorContext, rng: np.random.Generator
) -> Iterator[Proposal]:
    """What lies outside the frame, or before or after the moment; about something that the picture
    shows, if that is known."""
    nouns = _shown(example, context.contents)
    templates = [t for t in BEYOND_FRAME if nouns or "{noun}" not in t]
    for i in rng.permutation(len(templates)):
        noun = nouns[rng.integers(len(nouns))] if "{noun}" in templates[i] else ""
        yield Proposal(fill(templates[i], noun), "beyond_frame", noun)


def _questions_of_others(
    example: VQAExample, context: GeneratorContext, rng: np.random.Generator
) -> Iterator[tuple[VQAExample, str]]:
    """Draws questions of other images that presume a thing, each with that thing."""
    for _ in range(_TRIES):
        other = context.pool[int(rng.integers(len(context.pool)))]
        presumed = subject(other.question)
        if presumed and other.image != example.image:
            yield other, presumed


def _check_writer(context: GeneratorContext) -> None:
    if context.writer is None:
        raise InbolError(
            "--generators model_written: needs --model, or --endpoint with --endpoint-model"
        )


def _write_questions(
    examples: Sequence[VQAExample], context: GeneratorContext
) -> dict[str, list[str]]:
    """By id what the model wrote, without the examples that it could not be asked about."""
    assert context.writer is not None
    prompts = []
    for example in examples:
        prompt = WRITER_PROMPT.format(n=_WRITTEN, question=example.question)
        prompts.append(ImageQuestion(prompt, context.root / example.image, example.image))
    replies = context.writer(
        prompts, n=1, temperature=1.0, max_new_tokens=128, label="writing questions"
    )
    pairs = zip(examples, replies, strict=True)
    return {example.id: parse_questions(reply[0].text) for example, reply in pairs if reply}


def parse_questions(text: str) -> list[str]:
    """The distinct lines of what a model wrote, without bullets, numbers and quotation marks."""
    lines = (_BULLET.sub("", line.strip()).strip("\"'“”* ") for line in text.splitlines())
    return list(dict.fromkeys(line for line in lines if line))


@register_generator("model_written", prepare=_write_questions, check=_check_writer)
def model_written(
    example: VQAExample, context: GeneratorContext, rng: np.random.Generator
) -> Iterator[Proposal]:
    """What the model wrote when it was shown the image and a question that can be answered."""
    if example.id not in context.prepared:
        raise CannotPropose("could not be asked")
    if not context.prepared[example.id]:
        raise CannotPropose("model wrote no question")
    for question in context.prepared[example.id]:
        yield Proposal(question, "model_written")
