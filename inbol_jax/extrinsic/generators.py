"""Generators of Type 3 questions: each proposes questions that an example's image does not answer.

The paper's generation is not public, so this is our own design. A generator is a function under a
name; one of your own is a decorated function:

    @register_generator("weather")
    def weather(example, context, rng):
        yield Proposal("What will the weather be tomorrow?", "weather")
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from inbol_jax.answers import Generation, ImageHashes
from inbol_jax.errors import InbolError
from inbol_jax.extrinsic.contents import NOT_THINGS, ImageContents
from inbol_jax.extrinsic.grammar import in_english, subject, tagged
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


@dataclasses.dataclass(frozen=True, slots=True)
class Proposal:
    """A question that its generator takes to be beyond the image.

    Attributes:
      question: the question as the user would ask it.
      generator: name of the generator.
      subject: the thing that the question presumes to be in the image; "" for none.
      absent: whether the image is to lack the subject, which the filter `present` then checks.
      image: the question's image if it is not the example's own, relative to the same folder.
      options: what a multiple-choice question offers.
      extra: further columns of the record.
    """

    question: str
    generator: str
    subject: str = ""
    absent: bool = False
    image: str | None = None
    options: tuple[str, ...] = ()
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class CannotPropose(Exception):
    """A generator raises it if it can make no question of an example. The causes are counted, so
    they come from a small set of phrases."""


# A vision-language model: from questions with distinct ids, and a label for what is said meanwhile,
# to its most probable answers in their order. It is None of what it could not be asked.
Answerer = Callable[[Sequence[VQAExample], str], list[Generation | None]]


@dataclasses.dataclass
class Context:
    """What generators and filters draw on.

    Attributes:
      pool: all questions that may be drawn on.
      root: image folder.
      model: the vision-language model of `--model`; None if there is none.
      prepared: what the generators' `prepare` returned of the chunk at hand, by the example's id.
    """

    pool: Sequence[VQAExample]
    root: Path = Path()
    model: Answerer | None = None
    prepared: dict[str, Any] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def contents(self) -> ImageContents:
        """What is known of each image."""
        return ImageContents(self.pool)

    @functools.cached_property
    def hashes(self) -> ImageHashes:
        """What tells images of the same bytes."""
        return ImageHashes(self.root)

    @functools.cached_property
    def in_english(self) -> bool:
        """Whether the questions are in English, as our own are."""
        return in_english(example.question for example in self.pool)

    @functools.cached_property
    def asked(self) -> set[tuple[str, ...]]:
        """`asked_key` of the questions that the dataset asks or that were kept."""
        return {asked_key(example.image, example.question) for example in self.pool}


def asked_key(image: str, question: str) -> tuple[str, ...]:
    """An image's name and the words of a question, in lower case."""
    return (image, *_WORD.findall(question.lower()))


Propose = Callable[[VQAExample, Context, np.random.Generator], Iterator[Proposal]]
Prepare = Callable[[Sequence[VQAExample], Context], dict[str, Any]]
Check = Callable[[Context], None]


class Generator(NamedTuple):
    """A generator as registered.

    Attributes:
      name: its name for `--generators` and in the records.
      propose: yields questions about one example's image. The first that passes the filters is
        kept, so later ones are second tries. It may raise CannotPropose.
      prepare: looks at a chunk of examples together, so that a model sees them in batches, and
        returns by id what `propose` needs of each.
      check: raises InbolError if the pool, the image folder or the models are not what it needs.
      own_question: whether it asks the example's own question, about another or an altered image.
        If it cannot, the next such generator gets the example.
    """

    name: str
    propose: Propose
    prepare: Prepare | None = None
    check: Check | None = None
    own_question: bool = False


GENERATORS: dict[str, Generator] = {}


def register_generator(
    name: str,
    *,
    prepare: Prepare | None = None,
    check: Check | None = None,
    own_question: bool = False,
) -> Callable[[Propose], Propose]:
    """Puts a function under a name for `--generators`."""

    def register(propose: Propose) -> Propose:
        GENERATORS[name] = Generator(name, propose, prepare, check, own_question)
        return propose

    return register


def get_generators(names: Sequence[str]) -> list[Generator]:
    """The generators of these names. Raises InbolError if there is none of a name, or a name is
    there twice."""
    for name in names:
        if name not in GENERATORS:
            choices = ", ".join(GENERATORS)
            raise InbolError(
                f"--generators {name}: there is no such generator; choose among {choices}"
            )
    if len(set(names)) < len(names):
        raise InbolError("--generators: name each generator once")
    return [GENERATORS[name] for name in names]


# Questions of number and of existence presume nothing: of a picture without a kite, "How many kites
# are there?" has an answer.
ANSWERED_BY_ABSENCE = re.compile(
    r"^(?:how many|how much|is|are|was|were|do|does|did|can|could|has|have|what number)\b",
    re.IGNORECASE,
)
# Draws of another image's question. Several are needed because many subjects are in both images.
TRIES = 20
_WORD = re.compile(r"\w+")
PLURAL = re.compile(r"(?:\b(?:people|men|women|children|feet|teeth)|(?<![sui])s)$")
_PLURAL_VERBS = {"is": "are", "was": "were", "does": "do"}


def fill(template: str, noun: str) -> str:
    """The template with the noun, whose verb agrees with it ("How old are the shoes?")."""
    question = template.format(noun=noun)
    if not PLURAL.search(noun):
        return question
    verb = re.compile(rf"\b(is|was|does) the {re.escape(noun)}\b")
    return verb.sub(lambda match: f"{_PLURAL_VERBS[match[1]]} the {noun}", question)


def _shown(example: VQAExample, contents: ImageContents) -> list[str]:
    """Nouns for things that the image shows: its question's subject and its listed objects, but for
    names ("Nicaragua") and what is done ("facepalming")."""
    objects = example.extra.get("objects")
    listed = [str(thing) for thing in objects] if isinstance(objects, list) else []
    phrases = (subject(example.question) or "", *(thing for thing in listed if thing.islower()))
    return [
        phrase.split()[-1]
        for phrase in phrases
        if phrase.strip()
        and phrase.split()[-1] not in NOT_THINGS
        and tagged(f"the {phrase}")[-1].tag != "VBG"
        and contents.present(example.image, phrase)
    ]


def _check_language(context: Context) -> None:
    """Our templates, and the rules that find what a question is about, are English."""
    if not context.in_english:
        raise InbolError(
            "the dataset's questions are not in English, and unseeable and mismatched ask in "
            "English; choose other --generators"
        )


@register_generator("unseeable", check=_check_language)
def unseeable(
    example: VQAExample, context: Context, rng: np.random.Generator
) -> Iterator[Proposal]:
    """An attribute that no picture shows, of something that this picture does show ("How much does
    the star cost?")."""
    if nouns := _shown(example, context.contents):
        template = list(UNSEEABLE.values())[rng.integers(len(UNSEEABLE))]
        noun = nouns[rng.integers(len(nouns))]
        yield Proposal(fill(template, noun), "unseeable", noun)


@register_generator("mismatched", check=_check_language)
def mismatched(
    example: VQAExample, context: Context, rng: np.random.Generator
) -> Iterator[Proposal]:
    """A question that was asked of another image, about a thing that this one does not contain."""
    for _ in range(TRIES):
        other = context.pool[int(rng.integers(len(context.pool)))]
        presumed = subject(other.question)
        if (
            presumed
            and other.image != example.image
            and not ANSWERED_BY_ABSENCE.match(other.question)
        ):
            yield Proposal(
                other.question, "mismatched", presumed, absent=True, options=other.options
            )
