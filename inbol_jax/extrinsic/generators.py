"""Generators of Type 3 questions: each looks at a question with its image and proposes others that the image does not answer.

Our own design: the paper's generation is not public. A generator is a function under a name; one of your own is a decorated function:

    @register_generator("weather")
    def weather(example, context, rng):
        yield Proposal("What will the weather be tomorrow?", "weather")
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from PIL import Image

from inbol_jax.errors import InbolError
from inbol_jax.extrinsic.facts import NOT_THINGS, ImageFacts
from inbol_jax.extrinsic.templates import BEYOND_FRAME, FALSE_PREMISE, UNSEEABLE
from inbol_jax.records import VQAExample


@dataclasses.dataclass(frozen=True, slots=True)
class Proposal:
    """A question that its generator takes to be beyond the image.

    Attributes:
      question: as the user would ask it.
      generator: its name.
      subject: what the question presumes of the image; "" for nothing.
      absent: whether the image is to lack the subject, which the filter `present` then checks.
      answer: what the question is answered with elsewhere: for the other image, or before its evidence was removed; "" where unknown.
      image: of the question, where it is not the example's own; relative to the same folder.
      extra: columns for the record.
    """

    question: str
    generator: str
    subject: str = ""
    absent: bool = False
    answer: str = ""
    image: str | None = None
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Reply(NamedTuple):
    """One answer of a model: its text, and its log-probability in nats where the model tells."""

    text: str
    logprob: float = 0.0


class Asked(NamedTuple):
    """A question about an image.

    Attributes:
      question: the whole prompt.
      image: its file, or what draws it, which is called only where the answer is not known yet.
      name: of the image, the same in every run: with the question it says which answers are whose.
    """

    question: str
    image: Path | Callable[[], Image.Image]
    name: str


class Asks(Protocol):
    """A vision-language model, or an endpoint that has one."""

    def __call__(
        self, asked: Sequence[Asked], *, n: int, temperature: float, max_new_tokens: int, label: str
    ) -> list[list[Reply]]:
        """n answers to each question, in their order; none to one that could not be asked."""


@dataclasses.dataclass(slots=True)
class Context:
    """What generators draw on.

    Attributes:
      pool: every question that may be drawn on.
      facts: what is known of each image.
      root: image folder.
      model: the vision-language model of `--model`; None without.
      writer: what writes questions: the endpoint, or else the model.
      set_aside: counts, by (generator, cause), what could not be tried.
      prepared: what a generator's `prepare` has found out, by (generator, id of the example); emptied before each chunk.
    """

    pool: Sequence[VQAExample]
    facts: ImageFacts
    root: Path = Path()
    model: Asks | None = None
    writer: Asks | None = None
    set_aside: Counter[tuple[str, str]] = dataclasses.field(default_factory=Counter)
    prepared: dict[tuple[str, str], Any] = dataclasses.field(default_factory=dict)


Propose = Callable[[VQAExample, Context, np.random.Generator], Iterator[Proposal]]
Prepare = Callable[[Sequence[VQAExample], Context], None]


@dataclasses.dataclass(frozen=True, slots=True)
class Generator:
    """A generator as registered.

    Attributes:
      name: for `--generators`, and in the records.
      propose: yields questions about one example's image; the first that passes the filters is kept, so later ones are second tries.
      prepare: looks at a chunk of examples together before they are proposed for, where a model is to see them in batches.
      check: raises InbolError where the context lacks what it needs.
    """

    name: str
    propose: Propose
    prepare: Prepare | None = None
    check: Callable[[Context], None] | None = None


GENERATORS: dict[str, Generator] = {}


def register_generator(
    name: str, *, prepare: Prepare | None = None, check: Callable[[Context], None] | None = None
) -> Callable[[Propose], Propose]:
    """Puts a function under a name for `--generators`."""

    def register(propose: Propose) -> Propose:
        GENERATORS[name] = Generator(name, propose, prepare, check)
        return propose

    return register


def get_generators(names: Sequence[str]) -> list[Generator]:
    """The generators of these names.

    Raises:
      InbolError: where there is none of a name, a name is there twice, or there are no names.
    """
    if unknown := [name for name in names if name not in GENERATORS]:
        raise InbolError(
            f"--generators {unknown[0]}: there is no such generator; choose among {', '.join(GENERATORS)}"
        )
    if not names or len(set(names)) < len(names):
        raise InbolError("--generators: each generator once, and at least one")
    return [GENERATORS[name] for name in names]


# "What color is the STAR?": the thing that a question presumes. Questions of number and existence presume nothing.
_BEHIND = "have|has|do|does|is|are|in|on|at|of|with|look|like|made|smell|taste|make|say|cost|sound|feel|mean|show"
_SUBJECT = re.compile(rf"\bthe ([a-z][a-z' -]*?)(?= (?:{_BEHIND})\b|[?.,]|$)", re.IGNORECASE)
_ANSWERED_BY_ABSENCE = re.compile(
    r"^(?:how many|how much|is|are|was|were|do|does|did|can|could|has|have|what number)\b",
    re.IGNORECASE,
)
_TRIES = 20  # draws of another image's question: many subjects are in both


def subject(question: str) -> str | None:
    """The noun phrase that a question presumes to be in the image, lower case, the car of "the color of the car"; None without."""
    found = [match.group(1).lower() for match in _SUBJECT.finditer(question)]
    return next(
        (phrase for phrase in found if phrase.split()[-1] not in NOT_THINGS),
        next(iter(found), None),
    )


def fill(template: str, noun: str) -> str:
    """The template with the noun, whose verb agrees with it: "How old are the shoes?"."""
    question = template.format(noun=noun)
    if re.search(r"(?<![sui])s$", noun) or noun in (
        "people",
        "men",
        "women",
        "children",
        "feet",
        "teeth",
    ):
        question = re.sub(
            rf"\b(is|was|does) the {re.escape(noun)}\b",
            lambda m: f"{_PLURAL[m[1]]} the {noun}",
            question,
        )
    return question


_PLURAL = {"is": "are", "was": "were", "does": "do"}


def usual_answer(example: VQAExample) -> str:
    """The most frequent gold answer, the first of several; "" where there is none."""
    return max(example.answers, key=example.answers.count, default="")


def _shown(example: VQAExample, facts: ImageFacts) -> list[str]:
    """Nouns for things that the image shows: its own subject, and what it lists as objects."""
    objects = example.extra.get("objects")
    listed = (
        [str(o).lower() for o in objects if str(o).strip()] if isinstance(objects, list) else []
    )
    nouns = (subject(example.question), *listed)
    return [
        last
        for n in nouns
        if n and (last := n.split()[-1]) not in NOT_THINGS and facts.present(example.image, n)
    ]


@register_generator("unseeable")
def unseeable(
    example: VQAExample, context: Context, rng: np.random.Generator
) -> Iterator[Proposal]:
    """An attribute that no picture shows, of something that this picture does show ("How much does the star cost?")."""
    if nouns := _shown(example, context.facts):
        template = list(UNSEEABLE)[rng.integers(len(UNSEEABLE))]
        noun = nouns[rng.integers(len(nouns))]
        yield Proposal(fill(UNSEEABLE[template], noun), "unseeable", noun)


@register_generator("mismatched")
def mismatched(
    example: VQAExample, context: Context, rng: np.random.Generator
) -> Iterator[Proposal]:
    """A question that was asked of another image, about something that this one does not contain."""
    for other, presumed in _others(example, context, rng):
        if not _ANSWERED_BY_ABSENCE.match(other.question):
            yield Proposal(other.question, "mismatched", presumed, True, usual_answer(other))


@register_generator("false_premise")
def false_premise(
    example: VQAExample, context: Context, rng: np.random.Generator
) -> Iterator[Proposal]:
    """A question of our own about something that is in another image ("What is the kite next to?" where there is no kite)."""
    for _, noun in _others(example, context, rng):
        template = FALSE_PREMISE[rng.integers(len(FALSE_PREMISE))]
        yield Proposal(fill(template, noun), "false_premise", noun, True)


@register_generator("beyond_frame")
def beyond_frame(
    example: VQAExample, context: Context, rng: np.random.Generator
) -> Iterator[Proposal]:
    """What lies outside the frame, or before and after the moment; of something that the picture shows, where that is known."""
    nouns = _shown(example, context.facts)
    templates = [t for t in BEYOND_FRAME if nouns or "{noun}" not in t]
    for i in rng.permutation(len(templates)):
        noun = nouns[rng.integers(len(nouns))] if "{noun}" in templates[i] else ""
        yield Proposal(fill(templates[i], noun), "beyond_frame", noun)


def _others(
    example: VQAExample, context: Context, rng: np.random.Generator
) -> Iterator[tuple[VQAExample, str]]:
    """Questions of other images that presume something, with what they presume."""
    for _ in range(_TRIES):
        other = context.pool[int(rng.integers(len(context.pool)))]
        presumed = subject(other.question)
        if presumed and other.image != example.image:
            yield other, presumed
